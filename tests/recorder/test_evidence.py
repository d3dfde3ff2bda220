"""What recorders count for ramps: every delivered pair once, whatever dies in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.comparison.evidence import Evidence, add_up, key_of, params_of
from proxy.comparison.verdict_json import counts_of
from proxy.config.resolved import Config, Gate, Ramp, Split, SplitKind, Step, digest
from proxy.control.ramp_files import EvidenceFiles
from proxy.pairs.expand import Expander
from proxy.recorder import loop
from proxy.recorder.evidence import Gates, JournalEvidence
from proxy.recorder.loop import Recorder
from proxy.recorder.sink import Delivery, Pair, SinkState, SinkStatus
from proxy.telemetry import wall_ns
from tests.recorder.support import config_for, journal_lines
from tests.support.deadline import PATIENCE_S
from tests.support.journal_lines import leg, line

RAMP = Ramp(
    (Step(2_500, 10, 0.0, 0.0, "auto"),),
    (Gate("agreement", 0.01, 0.0), Gate("availability", 0.01, 0.0)),
)


def _ramped(config: Config) -> Config:
    """Return the config with a ramp on its route, and one candidate that is mirrored."""
    config = _patient(config)
    route = config.routes[0]
    route = replace(route, ramp=RAMP, candidates=route.candidates[:1])
    config = replace(config, routes=(route,))
    return replace(config, version=digest(config))


def _patient(config: Config) -> Config:
    """Return the config with so much time to stop that all is shipped, on a busy machine as well."""
    return replace(config, limits=replace(config.limits, shutdown_s=100.0))


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Return a config with a ramp."""
    return _ramped(config_for(tmp_path))


def _line(config: Config, number: int, **changes: Any) -> dict[str, Any]:
    """Return a line; of every fifth pair the candidate differs, of every seventh it failed."""
    answer = b'{"y":2}' if number % 5 == 0 else b'{"y":1}'
    candidate = leg("candidate", answer)
    if number % 7 == 0:
        candidate = leg("candidate", None, status="reset", http_status=None)
    fields = {
        "seq": number, "request_id": f"r-{number}", "config_version": config.version,
        "sample_prob": 1.0, **changes,
    }  # fmt: skip
    return line(leg("primary", b'{"y":1}'), candidate, **fields)


def _expected(config: Config, lines: list[dict[str, Any]]) -> Any:
    """Return the counts as one process would have them that never died."""
    route = config.routes[0]
    expander = Expander(route, config.record, "0")
    evidence = Evidence(params_of(route, "v2"))
    records = [expander.expand(each) for each in lines]
    for record in records:
        evidence.note(record)
    return evidence.counts(key_of(records[0]))


class FaultySink:
    """Takes `good` batches and then dies with each one that it is given."""

    name = "faulty"
    status = SinkStatus(SinkState.OK)

    def __init__(self, good: int) -> None:
        self.good = good
        self.pairs = 0

    async def prepare(self) -> None:
        """Nothing."""

    async def write(self, pairs: Sequence[Pair]) -> Delivery:
        """Acknowledge, or die."""
        await asyncio.sleep(0)
        if not self.good:
            raise RuntimeError("the recorder dies here")
        self.good -= 1
        self.pairs += len(pairs)
        return Delivery(len(pairs))

    async def close(self) -> None:
        """Nothing."""

    def statistics(self) -> dict[str, int]:
        """Nothing to tell."""
        return {}


async def _until(condition: Callable[[], bool]) -> None:
    """Wait for a condition; `asyncio.timeout` around it is the deadline."""
    # What is waited for is a file of the recorder's.
    while not condition():  # noqa: ASYNC110 - see above
        await asyncio.sleep(0.01)


def _published(config: Config) -> dict[str, Any]:
    path = Path(config.state_dir) / "evidence-0.json"
    return orjson.loads(path.read_bytes()) if path.exists() else {"parts": [], "caught_up_ms": None}


async def _run(config: Config, sink: FaultySink, pairs: int) -> None:
    """Run a recorder until `pairs` are counted, or it dies."""
    stop = asyncio.Event()
    async with asyncio.timeout(PATIENCE_S):
        with suppress(BaseExceptionGroup):
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(Recorder(config, 0, sink).run(stop, asyncio.Event()))
                await _until(lambda: running.done() or _pairs(config) >= pairs)
                stop.set()


def _pairs(config: Config) -> int:
    parts = [counts_of(each["counts"]) for each in _published(config)["parts"]]
    return sum(gate.overall.pairs + gate.overall.missing for part in parts for gate in part.gates)


async def test_a_recorder_that_dies_again_and_again_counts_every_pair_once(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies while a window is under way, before and after commits; the counts are exact."""
    monkeypatch.setattr(loop, "WINDOW_BYTES", 1)
    lines = [_line(config, number) for number in range(120)]
    for start in range(0, len(lines), 10):  # a segment each, and a window
        journal_lines(config, [orjson.dumps(each) for each in lines[start : start + 10]])
    for good in (0, 1, 0, 2, 1):
        await _run(config, FaultySink(good), 10**9)
    await _run(config, FaultySink(10**6), 240)
    said = _published(config)
    (part,) = [counts_of(each["counts"]) for each in said["parts"]]
    assert replace(part, arms=()) == _expected(config, lines)
    assert part.arms[0].name == "canary v2"
    assert said["caught_up_ms"] > 0
    assert said["config_version"] == config.version


async def test_a_recorder_that_is_behind_says_how_far_it_has_come(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that was journaled before the newest pair it delivered in order; caught up, until now."""
    monkeypatch.setattr(loop, "WINDOW_BYTES", 1)
    start_ms = wall_ns() // 1_000_000 - 60_000
    for start in range(0, 60, 10):  # the newest of them are read beside the oldest
        lines = [_line(config, n, ts_us=(start_ms + n) * 1000) for n in range(start, start + 10)]
        journal_lines(config, [orjson.dumps(each) for each in lines])
    await _run(config, FaultySink(3), 10**9)  # the first, the last, the second
    said = _published(config)
    assert (_pairs(config), said["caught_up_ms"]) == (60, start_ms + 19)
    before_ms = wall_ns() // 1_000_000
    await _run(config, FaultySink(10**6), 120)
    await _run(config, FaultySink(10**6), 120)
    assert _published(config)["caught_up_ms"] >= before_ms


async def test_pairs_of_another_config_or_route_count_for_nobody(config: Config) -> None:
    """A changed config begins its evidence afresh, and leaves the old one's behind."""
    old = [_line(config, number) for number in range(20)]
    journal_lines(config, [orjson.dumps(each) for each in old])
    await _run(config, FaultySink(10**6), 40)
    route = replace(config.routes[0], experiment_id="another")
    newer = replace(config, routes=(route,))
    newer = replace(newer, version=digest(newer))
    fresh = [_line(newer, number) for number in range(20, 30)]
    journal_lines(newer, [orjson.dumps(each) for each in (*old, *fresh)])
    await _run(newer, FaultySink(10**6), 20)
    await _until(lambda: len(_published(newer)["parts"]) == 1)
    (part,) = [counts_of(each["counts"]) for each in _published(newer)["parts"]]
    assert replace(part, arms=()) == _expected(newer, fresh)


async def test_who_has_no_ramp_pays_nothing(tmp_path: Path) -> None:
    """No counts, no file, nothing beside the journal's position."""
    config = _patient(config_for(tmp_path))
    journal_lines(config, [orjson.dumps(_line(config, number)) for number in range(10)])
    sink = FaultySink(10**6)
    stop = asyncio.Event()
    stop.set()
    await Recorder(config, 0, sink).run(stop, asyncio.Event())
    assert sink.pairs == 10
    assert not (tmp_path / "evidence-0.json").exists()
    shipped = orjson.loads((tmp_path / "journal" / "worker-0" / "shipped.json").read_bytes())
    assert "notes" not in shipped


@pytest.mark.parametrize("damaged", [None, 7, [{}], [{"counts": {}, "last_ms": 1}], "x"])
def test_counts_that_cannot_be_read_are_gathered_again(config: Config, damaged: Any) -> None:
    """They are worth less than a recorder that runs."""
    assert JournalEvidence(Gates(config), damaged).as_notes() == []


def test_the_split_is_counted_where_every_request_is_seen(config: Config) -> None:
    """Hits and misses at their declared probability; a request for one backend alone says nothing."""
    gates = Gates(config)
    batch = gates.batch()
    expander = Expander(config.routes[0], config.record, "0")
    for number, (served_by, rescued, assigned) in enumerate(
        [("primary", False, 0.75), ("candidate", False, 0.25), ("primary", True, 0.25)]
    ):
        changes = {"served_by": served_by, "rescued": rescued, "assign_prob": assigned}
        batch.note(expander.expand(_line(config, number, **changes)))
    alone = _line(config, 9, served_by="candidate", assign_prob=0.25, primary_status="not_sent")
    batch.note(expander.expand(alone))
    arms = add_up(counts for counts, _ in batch.parts()).arms
    assert [(arm.name, arm.cells) for arm in arms] == [("canary v2", ((2_500, 2, 1),))]
    sampled = replace(config.routes[0].candidates[0], mirror_bp=5_000)
    halved = replace(config, routes=(replace(config.routes[0], candidates=(sampled,)),))
    assert Gates(halved).split == set()


async def test_users_are_counted_once_and_are_known_to_the_next_recorder(config: Config) -> None:
    """Where the split is by user: of five users one is served by the candidate, at 20%."""
    route = replace(config.routes[0], split=Split(SplitKind.HEADER, "x-user-id"))
    config = replace(config, routes=(route,))
    config = replace(config, version=digest(config))
    for start in (0, 40):  # a recorder each
        lines = [
            _line(
                config, number, ramp_weight_bp=2_000, unit_hash=f"{number % 5:016x}",
                served_by="primary" if number % 5 else "candidate",
                assign_prob=0.8 if number % 5 else 0.2,
            )
            for number in range(start, start + 20)
        ]  # fmt: skip
        journal_lines(config, [orjson.dumps(each) for each in lines])
        await _run(config, FaultySink(10**6), start + 40)
        found = EvidenceFiles(Path(config.state_dir), 1, config.version).read()["iris/v2"]
        assert [(arm.name, arm.cells) for arm in found.arms] == [
            ("canary v2 at 20%", ((2_000, 1, 4),))
        ]
        assert all(not part.counts.arms for part in found.parts)


def test_a_call_that_failed_is_charged_to_the_model_that_answered_last(config: Config) -> None:
    """It names no version, and neither begins evidence of its own nor divides that of others."""
    gates = Gates(config)
    expander = Expander(config.routes[0], config.record, "0")
    kept = JournalEvidence(gates)
    for version in ("1", "2"):
        for start in (0, 20):  # windows of the journal
            batch = gates.batch()
            for number in range(start, start + 20):
                record = expander.expand(_line(config, number))
                is_ok = record["candidate_status"] == "ok"
                batch.note(record | {"candidate_model_version": version if is_ok else None})
            kept.add(batch.parts())
    parts = [counts_of(each["counts"]) for each in kept.as_notes()]
    found = [(part.key.candidate_version, part.gates[1].overall.three()) for part in parts]
    # The very first came before anything had answered; that of version 2, before it had.
    assert found == [(None, (0, 0, 1)), ("1", (0, 34, 6)), ("2", (0, 34, 5))]
