"""Labels meet their pairs in the recorder, whichever comes first, once, and in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st

from proxy.analysis.aggregate import Aggregate, Labels, Reading, add_all
from proxy.analysis.judging import Judging
from proxy.analysis.label_store import LabelStore
from proxy.comparison.counts import three_counts
from proxy.comparison.evidence import EvidenceCounts, GateCounts, GateParams, Params, key_fields
from proxy.comparison.gates import Metric
from proxy.comparison.verdict_json import counts_of
from proxy.config.advice import advice
from proxy.config.resolved import Config, Gate, Ramp, Step, digest
from proxy.pairs.label import Label, read_line
from proxy.recorder.evidence import Gates, JournalEvidence
from proxy.recorder.label_join import LabelJoin, waiting_of
from tests.recorder.support import config_for, journal_lines, recorder, stop
from tests.recorder.test_labels import said, take
from tests.support.deadline import wait_for
from tests.support.journal_lines import leg, line
from tests.support.records import pair

PARAMS = Params((GateParams(Metric.CORRECTNESS, 0.01),))
NAME = ("iris", "v2")


class Joined:
    """A join, and the counts of the one journal that feeds it."""

    def __init__(self, config: Config, **limits: int) -> None:
        self.join = LabelJoin({NAME: PARAMS}, **limits)
        self.evidence = JournalEvidence(Gates(config))

    def deliver(self, *records: dict[str, Any]) -> None:
        """Let pairs be delivered."""
        self.join.offer([waiting_of(each, key_fields(each)) for each in records], self.evidence)

    def label(self, *found: tuple[int, Any]) -> None:
        """Let labels arrive, by the number of their request."""
        self.join.arrive([labelled(number, value) for number, value in found])
        self.join.settle()

    @property
    def gate(self) -> GateCounts | None:
        """What was counted."""
        notes = self.evidence.as_notes()
        return counts_of(notes[0]["counts"]).gates[0] if notes else None


def labelled(number: int, value: Any) -> Label:
    """Return the label of one request."""
    return read_line(orjson.dumps({"request_id": f"r-{number}", "label": value, "ts_ms": 1}), 0)


@pytest.fixture
def joined(tmp_path: Path) -> Joined:
    """Return a join without anything in it."""
    return Joined(config_for(tmp_path))


def test_a_label_counts_whichever_comes_first(joined: Joined) -> None:
    """And once, however often it is sent; what has no label counts for nothing."""
    joined.deliver(pair(1, 1, 2), pair(2, 1, 2))
    joined.label((1, 1), (3, 2), (1, 2), (1, 1))
    joined.deliver(pair(3, 1, 2))
    joined.label((1, 1), (3, 2))
    assert joined.gate is not None
    assert joined.gate.overall == three_counts(better=1, same=0, worse=1)
    assert joined.join.statistics() == {"joined": 2, "given_up": 0, "waiting": 1}


def test_all_candidates_of_a_request_meet_its_label(joined: Joined) -> None:
    """Also one whose pair comes later, with its segments."""
    joined.deliver(pair(1, 1, 1, segments={"tier": "gold"}))
    joined.label((1, 2))
    joined.deliver(pair(1, 1, 2, segments={"tier": "gold"}))
    assert joined.gate is not None
    assert joined.gate.segments == (("tier=gold", three_counts(better=1, same=1, worse=0)),)


def test_a_side_that_did_not_answer_is_missing(joined: Joined) -> None:
    """So a candidate cannot pass by failing on what is hard."""
    joined.deliver(pair(1, 1, 1, candidate_status="timeout", candidate_body=None))
    joined.label((1, 1))
    assert joined.gate is not None
    assert joined.gate.overall == three_counts(better=0, same=0, worse=0, missing=1)


def test_the_oldest_make_room(tmp_path: Path) -> None:
    """Pairs that wait, and labels, each within its bytes."""
    joined = Joined(config_for(tmp_path), pair_bytes=2_000, label_bytes=2_000)
    for number in range(50):
        joined.deliver(pair(number, 1, 2))
        joined.label((number + 1_000, 1))
    told = joined.join.statistics()
    assert told["given_up"] + told["waiting"] == 50
    assert 2 <= told["waiting"] <= 4
    joined.label((0, 1), (49, 1))
    joined.deliver(pair(1_000, 1, 2), pair(1_049, 1, 2))
    assert joined.join.joined == 2


outcomes = st.lists(
    st.tuples(
        st.sampled_from([1, 2]), st.sampled_from([1, 2, None]), st.sampled_from([1, 2, None])
    ),
    min_size=1,
    max_size=20,
)


@given(found=outcomes, order=st.randoms(use_true_random=False))
def test_the_recorder_counts_what_compare_counts(
    found: Sequence[tuple[int, int | None, int | None]], order: Any
) -> None:
    """Whatever the order in which pairs and labels come; None: no answer, no label."""
    joined = Joined(config_for(Path("nowhere")))
    records, store = [], LabelStore()
    events: list[tuple[str, int, Any]] = []
    for number, (primary, candidate, label) in enumerate(found):
        failed: dict[str, Any] = {"candidate_status": "reset", "candidate_body": None}
        record = pair(number, primary, candidate, **(failed if candidate is None else {}))
        record["segments"] = {"parity": str(number % 2)}
        records.append(record)
        events.append(("pair", number, record))
        if label is not None:
            store.load([{"request_id": f"r-{number}", "label": label}])
            events.append(("label", number, label))
    order.shuffle(events)
    for kind, number, value in events:
        joined.deliver(value) if kind == "pair" else joined.label((number, value))
    reading = Reading(judging=Judging(metrics=(Metric.CORRECTNESS,)), labels=Labels(store, "here"))
    aggregate = Aggregate(reading)
    add_all(aggregate, records)
    store.close()
    judged = aggregate.groups[NAME].tally.judged
    (expected,) = reading.judging.verdict(*NAME, judged, ()).counts.gates
    assert (joined.gate or GateCounts(Metric.CORRECTNESS)).overall == expected.overall
    named = dict(joined.gate.segments) if joined.gate else {}
    assert named == {
        name: counts for name, counts in expected.segments if counts.cells or counts.missing
    }


def _judging(config: Config, recorders: int = 1) -> Config:
    """Return the config with a ramp that judges who is right."""
    ramp = Ramp((Step(2_500, 10, 0.0, 0.0, "auto"),), (Gate("correctness", 0.01, 0.0),))
    route = replace(config.routes[0], ramp=ramp, candidates=config.routes[0].candidates[:1])
    config = replace(config, routes=(route,), recorders=recorders)
    return replace(config, version=digest(config))


def _published(config: Config) -> EvidenceCounts | None:
    path = Path(config.state_dir) / "evidence-0.json"
    parts = orjson.loads(path.read_bytes())["parts"] if path.exists() else []
    return counts_of(parts[0]["counts"]) if parts else None


def test_a_recorder_joins_what_control_has_journaled(tmp_path: Path) -> None:
    """The whole way: labels by control's journal, pairs by a worker's; and a restart doubles none."""
    config = _judging(config_for(tmp_path))

    def deliver(*numbers: int) -> None:
        journal_lines(
            config,
            [
                orjson.dumps(
                    line(
                        leg("primary", b"1"), leg("candidate", b"%d" % n), seq=n,
                        request_id=f"request-{n}", config_version=config.version, sample_prob=1.0,
                    )
                )
                for n in numbers
            ],
        )  # fmt: skip

    def counted() -> tuple[int, int, int] | None:
        counts = _published(config)
        return counts.gates[0].overall.three() if counts and counts.gates else None

    take(config, range(1, 3))  # one label is the primary's answer, too; the other is not
    with recorder(config) as process:
        wait_for(lambda: said(config).get("acknowledged"), "labels before their pairs")
        deliver(1, 2, 3, 4)
        wait_for(lambda: counted() == (1, 1, 0), "two pairs with labels")
        take(config, range(3, 4))
        wait_for(lambda: counted() == (2, 1, 0), "a label after its pair")
        stop(process)
    with recorder(config) as process:
        take(config, range(1, 6))
        wait_for(lambda: said(config).get("acknowledged") == 8, "labels that were sent again")
        deliver(5)
        wait_for(lambda: counted() == (3, 1, 0), "only what is new")
        joined = {"joined": 1, "given_up": 0, "waiting": 0}
        wait_for(lambda: said(config)["join"] == joined, "its account of them")
        stop(process)


def test_the_check_says_where_labels_cannot_be_joined(tmp_path: Path) -> None:
    """One recorder of several gets the labels."""
    config = _judging(config_for(tmp_path), recorders=2)
    (sentence,) = advice(config)
    assert "set recorders: 1" in sentence
    assert advice(_judging(config_for(tmp_path))) == []


def test_who_judges_no_labels_keeps_none(tmp_path: Path) -> None:
    """Neither pairs nor labels wait then."""
    config = config_for(tmp_path)
    ramp = Ramp((Step(2_500, 10, 0.0, 0.0, "auto"),), (Gate("agreement", 0.01, 0.0),))
    config = replace(config, routes=(replace(config.routes[0], ramp=ramp),))
    gates = Gates(config)
    batch = gates.batch()
    batch.note(pair(1) | {"config_version": config.version})
    assert (gates.join, batch.waiting) == (None, [])
