"""Journal lines in numbers, made from one that a running worker wrote.

Each has ids, times and answers of its own; the layout is the worker's.
"""

from __future__ import annotations

import base64
import random
from enum import StrEnum
from pathlib import Path
from typing import Any

import orjson

from benchmarks.fleet import Fleet
from benchmarks.origin import start_origin
from benchmarks.peers import Mode, Setup, Understudy, Upstreams
from benchmarks.stage import Stage
from proxy.config.resolved import Config, loads
from proxy.journal.reader import JournalReader

_SPACING_US = 100
_NUMBER_BYTES = 19
_FRAME_BYTES = 110


class Content(StrEnum):
    """What is in the answers.

    `NUMBERS` are JSON with random floats; `BINARY` random bytes, as they are journaled: base64.
    """

    NUMBERS = "JSON of random numbers"
    BINARY = "random bytes"


class Lines:
    """Makes lines of one size of answers.

    Args:
        line: the real one.
        config_version: that the lines name.
        answer_bytes: size of each answer.
        differing: share of the candidates that answer otherwise than their primary.
        content: what is in the answers.
    """

    def __init__(
        self,
        line: dict[str, Any],
        config_version: str,
        answer_bytes: int,
        differing: float,
        content: Content = Content.NUMBERS,
    ) -> None:
        self._line = line
        self._config_version = config_version
        self._answer_bytes = answer_bytes
        self._differing = differing
        self._content = content
        self._random = random.Random(answer_bytes)
        self._made = 0

    def make(self) -> bytes:
        """Return the next line."""
        made = self._random
        self._made += 1
        changes: dict[str, Any] = {
            "seq": self._made,
            "ts_us": 1_700_000_000_000_000 + self._made * _SPACING_US,
            "config_version": self._config_version,
            "request_id": f"{made.getrandbits(128):032x}",
            "trace_id": f"{made.getrandbits(128):032x}",
            "unit_hash": f"{made.getrandbits(64):016x}",
            "request_sha256": f"{made.getrandbits(256):064x}",
        }
        for side, body in zip(("primary", "candidate"), self._answers(), strict=True):
            changes[f"{side}_body"] = body
            changes[f"{side}_response_bytes"] = len(body)
            changes[f"{side}_ttfb_us"] = made.randrange(500, 5_000)
            changes[f"{side}_latency_us"] = made.randrange(5_000, 9_000)
        return orjson.dumps(self._line | changes)

    def _answers(self) -> tuple[str, str]:
        made = self._random
        is_other = made.random() < self._differing
        if self._content is Content.BINARY:
            primary = base64.b64encode(made.randbytes(self._answer_bytes)).decode()
            other = base64.b64encode(made.randbytes(self._answer_bytes)).decode()
            return primary, other if is_other else primary
        count = max(1, (self._answer_bytes - _FRAME_BYTES) // _NUMBER_BYTES)
        data = [made.random() for _ in range(count)]
        primary = _answer(data)
        return primary, _answer([value * (1 + 1e-6) for value in data]) if is_other else primary


def _answer(data: list[float]) -> str:
    """Return an answer in the form of the origin's."""
    output = {"name": "probabilities", "datatype": "FP64", "shape": [1, len(data)], "data": data}
    answer = {"model_name": "digits", "model_version": "3", "outputs": [output]}
    return orjson.dumps(answer).decode()


def real_line(folder: Path, *, is_pinned: bool) -> tuple[dict[str, Any], Config]:
    """Return a line that a running worker has journaled, and its config."""
    folder.mkdir()
    with Fleet(folder, is_pinned) as fleet:
        upstreams = Upstreams(start_origin(fleet, "primary"), start_origin(fleet, "candidate"))
        target = Understudy().start(fleet, Mode.MIRROR, upstreams, Setup())
        assert target.pairs is not None
        Stage(fleet, upstreams, [target]).probe(target)
        state = target.pairs.parent
    # Ended, it has flushed; the newest segment is never removed.
    (state / "journal" / "worker-0" / "shipped.json").unlink(missing_ok=True)
    reader = JournalReader(state / "journal" / "worker-0")
    line: dict[str, Any] = orjson.loads(reader.read(1).lines[0])
    reader.close()
    return line, loads((state / "config" / f"{line['config_version']}.json").read_bytes())
