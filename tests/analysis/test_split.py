"""Compare and verdict look at the split: keys, each once; and one that is off blocks every verdict."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.analysis.aggregate import Aggregate, Reading, add_all
from proxy.analysis.findings import CandidateFindings
from proxy.analysis.parquet import ParquetWriter
from proxy.analysis.reports.build import page_of
from proxy.analysis.reports.markdown import markdown_of
from proxy.analysis.sources import open_source
from proxy.analysis.summarise import summarise, summary_of
from proxy.analysis.summary import as_dict
from proxy.comparison.verdict_json import dumps, loads_verdict
from proxy.pairs.record import FIELDS
from tests.support.records import pair, write_pairs

USERS, PAIRS = 800, 1_600


def canary(share: float, *, seed: int = 3, says: int = 1) -> list[dict[str, Any]]:
    """Return pairs of a canary declared at 20% that serves `share` of the users, some of them often."""
    rng = random.Random(seed)
    users = [(f"{rng.getrandbits(64):016x}", rng.random() < share) for _ in range(USERS)]
    found = []
    for number in range(PAIRS):
        unit, is_hit = users[int(USERS * rng.random() ** 2)]
        found.append(
            pair(
                number, 1, says, mode="canary", ramp_weight_bp=2_000, unit_hash=unit,
                served_by="candidate" if is_hit else "primary",
                assign_prob=0.2 if is_hit else 0.8,
            )
        )  # fmt: skip
    return found


def found_in(records: list[dict[str, Any]]) -> CandidateFindings:
    """Return the findings about the one candidate."""
    (one,) = summarise(records).candidates
    return one


def test_a_split_as_declared_is_told_and_blocks_nothing() -> None:
    """Some users come a hundred times, which says nothing more."""
    one = found_in(canary(0.2))
    (arm,) = one.verdict.split
    assert (arm.name, arm.declared) == ("canary v2 at 20%", 0.2)
    assert arm.keys < USERS
    assert abs(arm.seen - 0.2) < 0.04
    assert one.verdict.reason != "sample_ratio"


@pytest.mark.parametrize("says", [1, 2])
def test_a_split_that_is_off_blocks_every_verdict(says: int) -> None:
    """Whether the candidate looks good or bad: nobody knows what the difference comes from."""
    records = canary(0.3, says=says)
    summary = summarise(records)
    (one,) = summary.candidates
    assert (one.verdict.verdict, one.verdict.reason) == ("no_data", "sample_ratio")
    assert "is not split as declared (canary v2 at 20%: " in one.sentence
    text = markdown_of(page_of(as_dict(summary)))
    assert "traffic is not split as declared" in text
    assert "canary v2 at 20%" in text


def test_parts_of_a_source_give_the_split_of_the_whole() -> None:
    """Users who are in both of them count once."""
    records = canary(0.25)
    parts = [Aggregate(Reading()) for _ in range(2)]
    for part, half in zip(parts, (records[: PAIRS // 2], records[PAIRS // 2 :]), strict=True):
        add_all(part, half)
    parts[0].merge(parts[1])
    (merged,) = summary_of(parts[0], Reading()).candidates
    assert merged.verdict == found_in(records).verdict


def test_files_of_every_kind_tell_the_same(tmp_path: Path) -> None:
    """NDJSON in zstd is read by rows, Parquet by columns."""
    records = canary(0.3)
    write_pairs(tmp_path / "rows" / "a.ndjson.zst", records)
    (tmp_path / "columns").mkdir()
    with (tmp_path / "columns" / "a.parquet").open("wb") as file:
        writer = ParquetWriter(file, FIELDS)
        writer.write(records)
        writer.close()
    verdicts = []
    for folder in ("rows", "columns"):
        (one,) = summarise(open_source(str(tmp_path / folder))).candidates
        verdicts.append(one.verdict)
    assert verdicts[0] == verdicts[1]
    assert verdicts[0].reason == "sample_ratio"


def test_a_verdict_with_its_split_comes_out_of_its_record() -> None:
    """And a figure that was changed is found out."""
    reading = Reading()
    aggregate = Aggregate(reading)
    add_all(aggregate, canary(0.3))
    verdict = reading.judging.verdict(
        "iris", "v2", aggregate.groups["iris", "v2"].tally.judged, [("pairs/0", PAIRS)]
    )
    assert loads_verdict(dumps(verdict)) == verdict
    said = orjson.loads(dumps(verdict))
    said["counts"]["arms"][0]["cells"][0][1] += 1
    with pytest.raises(ValueError, match="other figures"):
        loads_verdict(orjson.dumps(said))


def test_records_without_what_a_split_needs_are_compared_all_the_same() -> None:
    """Narrow files leave these fields out."""
    records = canary(0.3)
    for record in records:
        for name in ("unit_hash", "assign_prob", "ramp_weight_bp"):
            del record[name]
    one = found_in(records)
    assert one.verdict.split == ()
    assert one.pairs == PAIRS
