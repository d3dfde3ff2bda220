"""The local log of a running instance, read as an analyst would: zstd frames of NDJSON."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import zstandard

from tests.support.deadline import PATIENCE_S, wait_for


def read_pairs(state_dir: Path) -> list[dict[str, Any]]:
    """Return every record in the local log so far, in the order of its files.

    A frame may be half written by now, and its last line cut anywhere.
    """
    found: list[dict[str, Any]] = []
    for path in sorted((state_dir / "pairs").glob("*.ndjson.zst")):
        with (
            path.open("rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as reader,
        ):
            lines = reader.read().splitlines(keepends=True)
            found += [orjson.loads(line) for line in lines if line.endswith(b"\n")]
    return found


class PairIds:
    """The `pair_id` of every record in the local log, read on from where it was read to before.

    Attributes:
        found: each id once.
        twice: records whose id was there already: a recorder was killed before it had committed.
    """

    def __init__(self, state_dir: Path) -> None:
        self.found: set[str] = set()
        self.twice = 0
        self._directory = state_dir / "pairs"
        self._done: dict[Path, int] = {}

    def read(self) -> None:
        """Read what has come; the log must not be written to meanwhile."""
        for path in sorted(self._directory.glob("*.ndjson.zst")):
            done, size = self._done.get(path, 0), path.stat().st_size
            if size == done:
                continue
            with path.open("rb") as file:
                file.seek(done)
                with zstandard.ZstdDecompressor().stream_reader(
                    file, read_across_frames=True
                ) as reader:
                    lines = reader.read().splitlines()
            self._done[path] = size
            before = len(self.found)
            self.found |= {orjson.loads(line)["pair_id"] for line in lines}
            self.twice += before + len(lines) - len(self.found)


def wait_pairs(
    state_dir: Path, count: int, prefix: str = "", timeout_s: float = PATIENCE_S
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
