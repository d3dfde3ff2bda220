"""The pairs as they appear in the local log: read while the recorder writes it.

Decides what of a pair the demo counts; the full comparison is `proxy.analysis`'s business. Only
whole frames are read, so a frame that is being written is taken the next time.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson
import zstandard

from proxy.errors import SourceError
from proxy.journal.frames import CorruptFrameError, frame_end

_FAILED: Final = frozenset({"http_error", "timeout", "connect_error", "reset"})


@dataclass(slots=True)
class CandidatePairs:
    """The pairs of one candidate.

    Attributes:
        failed: the candidate was asked and gave no good answer.
        requests: how many pairs each request has, by its id.
        verdicts: whether the answers were equal, for each comparable request.
        weights_bp: the candidate's weight when each request was decided, basis points.
    """

    pairs: int = 0
    equal: int = 0
    failed: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    verdicts: dict[str, bool] = field(default_factory=dict)
    weights_bp: dict[str, int] = field(default_factory=dict)

    @property
    def agreement(self) -> float | None:
        """Share of equal pairs among the comparable ones; None before the first."""
        return self.equal / len(self.verdicts) if self.verdicts else None


class PairLog:
    """Reads `directory/*.ndjson.zst` onwards from where it stopped."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._offsets: defaultdict[Path, int] = defaultdict(int)
        self._zstd = zstandard.ZstdDecompressor()
        self.candidates: defaultdict[str, CandidatePairs] = defaultdict(CandidatePairs)
        self.pair_ids: set[str] = set()
        #: Records whose `pair_id` was there already.
        self.duplicates = 0

    @property
    def pairs(self) -> int:
        """Return how many different pairs there are."""
        return len(self.pair_ids)

    def read(self) -> None:
        """Count what is new.

        Raises:
            SourceError: the log is damaged.
        """
        for path in sorted(self._directory.glob("*.ndjson.zst")):
            offset = self._offsets[path]
            with path.open("rb") as stream:
                stream.seek(offset)
                data = stream.read()
            try:
                self._offsets[path] = offset + self._take(data)
            except (CorruptFrameError, zstandard.ZstdError) as exc:
                raise SourceError(f"{path} is damaged: {exc}") from exc

    def _take(self, data: bytes) -> int:
        """Count the whole frames at the beginning of `data`; return where they end."""
        start = 0
        while start < len(data) and (end := frame_end(data, start)) is not None:
            self._count(self._zstd.decompress(data[start:end]))
            start = end
        return start

    def _count(self, content: bytes) -> None:
        for line in content.splitlines():
            pair = orjson.loads(line)
            if pair["pair_id"] in self.pair_ids:
                self.duplicates += 1
                continue
            self.pair_ids.add(pair["pair_id"])
            candidate = self.candidates[pair["candidate"]]
            candidate.pairs += 1
            if pair["comparable"]:
                candidate.verdicts[pair["request_id"]] = pair["equal"]
                candidate.equal += pair["equal"]
            candidate.failed += pair["candidate_status"] in _FAILED
            candidate.requests[pair["request_id"]] += 1
            candidate.weights_bp[pair["request_id"]] = pair["ramp_weight_bp"]
