"""Judging beside the loop: nobody waits for a verdict, and no verdict is of another window."""

from __future__ import annotations

import threading

import pytest

from proxy.comparison.evidence import Params
from proxy.comparison.verdict import Outcome
from proxy.control import judging as module
from proxy.control.judging import Judging
from proxy.ramp.window import STALE_MS, Judgement, Published, Window, judged
from tests.ramp.test_window import PARAMS, START_MS, counted, published
from tests.support.deadline import PATIENCE_S, wait_for

WINDOW = Window(START_MS, before=())


def test_a_verdict_comes_later_and_is_of_its_window_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then there is none; a new step's is not the old one's."""
    judging = Judging()
    may_end = threading.Event()

    def judged_when_it_may(window: Window, said: Published, params: Params) -> Judgement:
        assert may_end.wait(PATIENCE_S)
        return judged(window, said, params)

    monkeypatch.setattr(module, "judged", judged_when_it_may)

    def outcome(window: Window, said: Published) -> Outcome | None:
        return judging.latest("r", window, said, PARAMS, START_MS).outcome

    good = published(counted(600))
    assert outcome(WINDOW, good) is None
    may_end.set()
    wait_for(lambda: outcome(WINDOW, good) is Outcome.PROMOTE, "the verdict")
    following = Window(START_MS + 1, before=(counted(600),))
    bad = published(counted(600, worse=200))
    may_end.clear()
    assert outcome(following, bad) is None
    may_end.set()
    wait_for(lambda: outcome(following, bad) is Outcome.HALT, "the verdict of the next step")


def test_an_old_verdict_raises_nothing() -> None:
    """How fresh it is, is seen when it is used."""
    judging = Judging(is_threaded=False)
    said = published(counted(600))
    assert judging.latest("r", WINDOW, said, PARAMS, START_MS).is_fresh
    late = judging.latest("r", WINDOW, said, PARAMS, START_MS + STALE_MS + 1)
    assert (late.outcome, late.is_fresh) == (Outcome.PROMOTE, False)
    silent = judging.latest("r", WINDOW, Published(problem="silent"), PARAMS, START_MS)
    assert (silent.outcome, silent.reason) == (None, "silent")


def test_what_took_long_is_not_done_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of a processor at most."""
    judging = Judging()
    first = published(counted(600))
    monkeypatch.setattr(module, "_REST", 1e6)
    wait_for(lambda: judging.latest("r", WINDOW, first, PARAMS, START_MS).outcome, "a verdict")
    second = published(counted(600, worse=300))
    for _ in range(2):
        wait_for(lambda: not judging._running, "the end of any judgement")
        assert judging.latest("r", WINDOW, second, PARAMS, START_MS).outcome is Outcome.PROMOTE


def test_what_cannot_be_judged_is_told_and_raises_nothing() -> None:
    """A ramp without gates, say, which no config has."""
    found = Judging(is_threaded=False).latest(
        "r", WINDOW, published(counted(600)), Params(()), START_MS
    )
    assert (found.outcome, found.is_fresh) == (None, False)
    assert found.reason.startswith("the evidence cannot be judged: ValueError")
