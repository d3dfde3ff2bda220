"""Each line becomes a pair under its own config, or is counted; none stops the others."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from proxy.config.resolved import Protocol, digest
from proxy.recorder.expansion import Expansion, PairMaker
from tests.support.journal_lines import line
from tests.support.resolved_config import small_config, write_config


def test_a_line_becomes_the_record_and_what_the_sinks_need(tmp_path: Path) -> None:
    """The value is the whole record; the rest is taken from it."""
    config = small_config(tmp_path)
    into = Expansion()
    PairMaker(config).expand([orjson.dumps(line(config_version=config.version))], into)
    (pair,) = into.pairs
    record = orjson.loads(pair.value)
    assert (pair.pair_id, pair.request_id) == (record["pair_id"], "r-7")
    assert (pair.ts, pair.ts_ms) == (record["ts"], record["ts_ms"])
    assert (pair.span_id, pair.trace_sampled) == (record["span_id"], record["trace_sampled"])
    assert record["equal"] is True
    assert record["config_version"] == config.version


@pytest.mark.parametrize(
    ("comparator", "reason"),
    [("theirs:gone", "comparator_not_loaded"), ("theirs:breaks", "comparator_raised")],
)
def test_a_comparator_of_the_operators_never_costs_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comparator: str, reason: str
) -> None:
    """Not there or broken: the pair is shipped as not comparable, with the reason."""
    (tmp_path / "theirs.py").write_text("def breaks(primary, candidate):\n    return 1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    config = small_config(tmp_path)
    route = config.routes[0]
    route = replace(route, compare=replace(route.compare, comparator=comparator))
    config = replace(config, routes=(route,))
    into = Expansion()
    PairMaker(config).expand([orjson.dumps(line(config_version=config.version))], into)
    record = orjson.loads(into.pairs[0].value)
    assert (record["comparator"], record["comparable"]) == (comparator, False)
    assert record["not_comparable_reason"] == reason
    assert not into.rejected


def test_a_line_of_an_older_config_is_expanded_by_it(tmp_path: Path) -> None:
    """A reload between the request and the recorder changes no record."""
    old = small_config(tmp_path)
    write_config(old)
    route = replace(old.routes[0], protocol=Protocol.RAW, experiment_id="other")
    new = replace(old, routes=(route,))
    new = replace(new, version=digest(new))
    into = Expansion()
    PairMaker(new).expand(
        [orjson.dumps(line(config_version=version)) for version in (old.version, new.version)],
        into,
    )
    records = [orjson.loads(pair.value) for pair in into.pairs]
    assert [record["experiment_id"] for record in records] == ["iris", "other"]
    assert into.unknown_config == 0


def test_a_line_of_an_unknown_config_is_expanded_by_the_current_one(tmp_path: Path) -> None:
    """And counted; a version that is no version never becomes a path."""
    config = small_config(tmp_path)
    into = Expansion()
    lines = [line(config_version=version) for version in ("feedfeedfeedfeed", "../../etc/passwd")]
    PairMaker(config).expand([orjson.dumps(each) for each in lines], into)
    assert len(into.pairs) == 2
    assert into.unknown_config == 2


def test_lines_that_cannot_be_expanded_are_counted_by_reason(tmp_path: Path) -> None:
    """The good one behind them is still expanded."""
    config = small_config(tmp_path)
    good = line(config_version=config.version)
    lines = [
        b"{half",
        b"[]",
        b"7",
        orjson.dumps({"config_version": config.version}),
        orjson.dumps(good | {"config_version": None}),
        orjson.dumps(good | {"route": "gone"}),
        orjson.dumps(good | {"ts_us": "yesterday"}),
        orjson.dumps(good),
    ]
    into = Expansion()
    PairMaker(config).expand(lines, into)
    assert len(into.pairs) == 1
    assert into.rejected == {"not_json": 1, "not_expandable": 5, "unknown_route": 1}
    assert into.error
