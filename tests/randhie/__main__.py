"""Run it at full size: `python -m tests.randhie [--rows N] [--margin M] [--rate R] [--out FOLDER]`.

Needs the test packages, and a Kafka broker: that of `KAFKA_BOOTSTRAP_SERVERS`, else one is started
here, which needs java and mvn.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.randhie.models import CANDIDATES, QUESTIONS, ROWS
from tests.randhie.stage import Plan, record, report, verdict_of
from tests.support.kafka import real_broker

CACHE = Path(__file__).parents[2] / ".cache" / "kafka"
#: What must come of each candidate, as an exit code of `understudy verdict`.
WANTED = {
    f"{question}/{role}": 0 if role == "refit" else 2
    for question in QUESTIONS
    for role in CANDIDATES
}


def main() -> int:
    """Record, judge, report; exit code 1 when a verdict is not as it must be."""
    options = _options()
    out = options.out or Path(tempfile.mkdtemp(prefix="randhie-"))
    out.mkdir(parents=True, exist_ok=True)
    plan = Plan(options.rows, options.margin, options.rate)
    with _broker(out) as bootstrap:
        recorded = record(out.resolve(), bootstrap, plan)
        pairs = recorded.ledger["pairs decided"]["total"]
        print(f"{recorded.requests:,} requests in {recorded.seconds:.1f} s, {pairs:,} pairs")
        wrong = 0
        for name, code in WANTED.items():
            told = verdict_of(recorded, name)
            print(f"{told.document['sentence']} Exit code {told.code}.")
            wrong += told.code != code
        print(report(recorded, out.resolve() / "report.html"))
    print(f"config, state and report.html are in {out}")
    return 1 if wrong else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.randhie", description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="people to ask about")
    parser.add_argument("--margin", type=float, default=Plan().margin, help="of every gate")
    parser.add_argument("--rate", type=float, default=Plan().rate, help="requests a second")
    parser.add_argument("--out", type=Path, help="a folder for everything; else a temporary one")
    return parser.parse_args()


@contextmanager
def _broker(out: Path) -> Iterator[str]:
    """Give the address of a broker: yours, or one that ends with the block."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if given:
        yield given
        return
    with tempfile.TemporaryDirectory(dir=out) as data, real_broker(CACHE, Path(data)) as bootstrap:
        yield bootstrap


if __name__ == "__main__":
    sys.exit(main())
