"""Whole pair records, made the way the recorder makes them, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson
import zstandard

from proxy.config.resolved import Compare
from proxy.pairs.expand import Expander
from tests.support.journal_lines import leg, line, record_settings, route

#: Records of `pairs` are one second apart from here on.
START_MS = 1_700_000_000_000

NUMERIC = Compare("y", "numeric", 0.0, 0.0)
LABEL = Compare("y", "label", 0.0, 0.0)


def pair(
    seq: int,
    primary: object = 1,
    candidate: object = 1,
    /,
    *,
    compare: Compare = LABEL,
    replicate: object = None,
    **changes: Any,
) -> dict[str, Any]:
    """Return a pair whose answers are `{"y": primary}` and `{"y": candidate}`.

    Args:
        seq: number within the instance; the time follows from it.
        primary: the primary's prediction.
        candidate: the candidate's.
        compare: the route's comparison.
        replicate: the primary's second answer, where one was sampled.
        changes: fields of the journal line to change, such as `candidate_status`.
    """
    answers = {"primary": primary, "candidate": candidate, "replicate": replicate}
    legs = [
        leg(side, orjson.dumps({"y": prediction}))
        for side, prediction in answers.items()
        if side != "replicate" or prediction is not None
    ]
    fields = {
        "seq": seq,
        "ts_us": (START_MS + 1000 * seq) * 1000,
        "request_id": f"r-{seq}",
        "sample_prob": 1.0,
        **changes,
    }
    return Expander(route(compare=compare), record_settings(), "0.1.0").expand(
        line(*legs, **fields)
    )


def frames(records: Iterable[dict[str, Any]], per_frame: int = 50) -> bytes:
    """Return `records` as zstd frames of NDJSON, as the local log holds them."""
    compressor = zstandard.ZstdCompressor(write_checksum=True)
    lines = [orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records]
    return b"".join(
        compressor.compress(b"".join(lines[start : start + per_frame]))
        for start in range(0, len(lines), per_frame)
    )


def write_pairs(path: Path, records: Iterable[dict[str, Any]]) -> Path:
    """Write `records` to `path` as `frames`; return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(frames(records))
    return path
