"""Following the local log while it is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.demo.pair_log import PairLog
from proxy.errors import SourceError
from proxy.journal.frame_file import compressor


def _pair(number: int, **changes: Any) -> dict[str, Any]:
    pair = {
        "pair_id": f"p{number}", "request_id": f"demo-{number}", "candidate": "v2",
        "comparable": True, "equal": True, "candidate_status": "ok", "ramp_weight_bp": 100 * number,
    }  # fmt: skip
    return pair | changes


def _frame(*pairs: dict[str, Any]) -> bytes:
    return compressor().compress(b"".join(orjson.dumps(pair) + b"\n" for pair in pairs))


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    """A frame that is half written waits for its other half; a new file is found."""
    log = PairLog(tmp_path)
    log.read()
    assert log.pairs == 0
    second = _frame(_pair(2, equal=False))
    first = tmp_path / "pairs-1.ndjson.zst"
    first.write_bytes(_frame(_pair(0), _pair(1)) + second[:7])
    log.read()
    assert log.pairs == 2
    with first.open("ab") as stream:
        stream.write(second[7:])
    (tmp_path / "pairs-2.ndjson.zst").write_bytes(_frame(_pair(3, candidate="v3")))
    log.read()
    log.read()
    assert log.pairs == 4
    assert log.candidates["v2"].agreement == pytest.approx(2 / 3)
    assert log.candidates["v2"].verdicts == {"demo-0": True, "demo-1": True, "demo-2": False}
    assert log.candidates["v3"].pairs == 1
    assert log.candidates["v2"].weights_bp == {"demo-0": 0, "demo-1": 100, "demo-2": 200}


def test_duplicates_and_failures_are_counted(tmp_path: Path) -> None:
    """A pair that is there twice counts once; one that cannot be compared is in no agreement."""
    failed = _pair(1, comparable=False, equal=None, candidate_status="http_error")
    cut = _pair(2, comparable=False, equal=None, candidate_status="cancelled")
    (tmp_path / "a.ndjson.zst").write_bytes(_frame(_pair(0), _pair(0), failed, cut))
    log = PairLog(tmp_path)
    log.read()
    pairs = log.candidates["v2"]
    assert (log.pairs, log.duplicates, pairs.pairs, pairs.failed) == (3, 1, 3, 1)
    assert pairs.agreement == 1.0
    assert pairs.requests["demo-1"] == 1


def test_damage_is_an_error(tmp_path: Path) -> None:
    """The demo must not call a damaged log right."""
    (tmp_path / "a.ndjson.zst").write_bytes(b"no frame at all")
    with pytest.raises(SourceError, match="damaged"):
        PairLog(tmp_path).read()
