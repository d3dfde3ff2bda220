"""The local log of a running instance, read as an analyst would: zstd frames of NDJSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import zstandard

from tests.support.deadline import wait_for


def read_pairs(state_dir: Path) -> list[dict[str, Any]]:
    """Return every record in the local log so far, in the order of its files."""
    found: list[dict[str, Any]] = []
    for path in sorted((state_dir / "pairs").glob("*.ndjson.zst")):
        with (
            path.open("rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as reader,
        ):
            found += [orjson.loads(line) for line in reader.read().splitlines()]
    return found


def wait_pairs(
    state_dir: Path, count: int, prefix: str = "", timeout_s: float = 15.0
) -> list[dict[str, Any]]:
    """Wait until the local log holds at least `count` records; return them in order of `ts`.

    Args:
        state_dir: of the instance.
        count: records to wait for.
        prefix: how their request ids begin; others are left out.
        timeout_s: seconds.

    Raises:
        AssertionError: they did not come, or two records have the same `pair_id`.
    """

    def enough() -> list[dict[str, Any]]:
        records = read_pairs(state_dir)
        assert len({record["pair_id"] for record in records}) == len(records)
        found = [record for record in records if record["request_id"].startswith(prefix)]
        return found if len(found) >= count else []

    what = f"{count} records {prefix}"
    return sorted(wait_for(enough, what, timeout_s), key=lambda record: record["ts"])
