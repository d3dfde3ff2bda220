"""What an operator is told: problems, hung workers, and a ledger that joins all the way."""

from __future__ import annotations

import json
import os

import pytest

from proxy.control import snapshot as observing
from proxy.control.metrics import DROP_REASONS
from proxy.control.problems import problems
from proxy.control.status import is_ready, routes
from proxy.recorder.sink import Drop
from proxy.telemetry import wall_ns
from tests.support.admin import Instance


def _now_ms() -> int:
    return wall_ns() // 1_000_000


def test_a_worker_that_stopped_beating_hangs_and_does_not_serve(instance: Instance) -> None:
    """It exists, so only its heartbeat tells; another one's beat says nothing about it."""
    instance.stats.beat(pid=os.getpid(), now_ms=_now_ms())
    assert problems(instance.observer.snapshot()) == []
    instance.stats.beat(pid=os.getpid(), now_ms=_now_ms() - 2_500)
    snapshot = instance.observer.snapshot()
    assert "worker 0 hangs" in problems(snapshot)[0]
    assert not is_ready(snapshot)
    assert snapshot.is_running
    instance.stats.beat(pid=os.getpid() + 1, now_ms=_now_ms() - 2_500)
    assert problems(instance.observer.snapshot()) == []


def test_a_worker_that_never_beats_does_not_come_up(instance: Instance) -> None:
    """A start is given ten seconds."""
    path = instance.state_dir / "runtime.json"
    assert problems(instance.observer.snapshot()) == []
    runtime = json.loads(path.read_text())
    runtime["processes"][0]["started_ms"] -= 6_000
    path.write_text(json.dumps(runtime))
    assert "worker 0 hangs" in problems(instance.observer.snapshot())[0]


def test_a_worker_that_beats_serves_whatever_the_process_table_shows(instance: Instance) -> None:
    """Seen from another container its process id means nothing."""
    instance.write_runtime(2**22 + 1)
    assert not instance.observer.snapshot().is_running
    instance.stats.beat(pid=2**22 + 1, now_ms=_now_ms())
    snapshot = instance.observer.snapshot()
    assert is_ready(snapshot)
    assert problems(snapshot) == []


def test_a_candidate_that_fails_now_is_a_problem(instance: Instance) -> None:
    """Until it has been good for a while."""
    instance.observer.sample()
    instance.stats.add(30, "leg", "iris", "v2", "connect_error")
    (problem,) = problems(instance.observer.snapshot())
    assert problem.startswith("iris/v2: 30 of 30 calls failed")
    instance.stats.add(60, "leg", "iris", "v2", "ok")
    assert problems(instance.observer.snapshot()) == []


def test_an_endpoint_that_gets_no_calls_is_a_problem(instance: Instance) -> None:
    """Named, with how many workers leave it alone."""
    endpoint = str(instance.config.backends["iris-v2"].endpoints[0])
    instance.stats.add(1, "endpoint_left_out", "iris-v2", endpoint)
    (problem,) = problems(instance.observer.snapshot())
    assert problem == f"backend iris-v2: 1 of 1 workers leave {endpoint} alone"


def test_an_open_breaker_is_a_problem_for_as_long_as_it_is_open(instance: Instance) -> None:
    """The copies that it holds back are no failures, so nothing else would tell."""
    (shown,) = routes(instance.observer.snapshot())[0]["candidates"][:1]
    assert shown["breaker"] == "closed"
    instance.stats.add(2, "breaker", "iris", "v2")
    snapshot = instance.observer.snapshot()
    (problem,) = problems(snapshot)
    assert problem.startswith("iris/v2: its breaker is open")
    assert routes(snapshot)[0]["candidates"][0]["breaker"] == "open"


def test_a_worker_that_makes_no_copies_is_a_problem_for_as_long_as_it_does(
    instance: Instance,
) -> None:
    """Users are served; what analysts get has a gap."""
    instance.stats.add(1, "workers_shedding")
    (problem,) = problems(instance.observer.snapshot())
    assert problem.startswith("1 of 1 workers are overloaded and make no copies")
    assert "limits.mirror_lag" in problem
    instance.stats.add(-1, "workers_shedding")
    assert problems(instance.observer.snapshot()) == []


@pytest.mark.parametrize(
    "loss", ["journal_error", "overload", "journal_full", "rejected", "damaged"]
)
def test_pairs_that_are_being_lost_are_a_problem(instance: Instance, loss: str) -> None:
    """The worker's own losses, and the recorder's; old ones are history."""
    instance.write_recorder(dropped={"journal_full": 3, "rejected": 4})
    instance.observer.sample()
    assert problems(instance.observer.snapshot()) == []
    if loss in ("journal_error", "overload"):
        instance.stats.add(7, "pairs_decided", "iris", "v2")
        instance.stats.add(7, "pairs_lost", "iris", "v2", loss)
    else:
        instance.write_recorder(dropped={"journal_full": 3, "rejected": 4, loss: 14})
    (problem,) = problems(instance.observer.snapshot())
    assert problem.endswith(f"({loss})")


def test_a_recorder_is_silent_for_want_of_a_processor(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It cannot say so itself; one that has waited for none hangs."""
    path = instance.state_dir / "runtime.json"
    runtime = json.loads(path.read_text())
    runtime["processes"].append({**runtime["processes"][0], "name": "recorder 0"})
    path.write_text(json.dumps(runtime))
    instance.write_recorder(updated_ms=_now_ms() - 27_000)
    told = "recorder 0: its statistics are 27 s old: it"
    monkeypatch.setattr(observing, "queued_s", lambda _: 1_000.0)
    instance.observer.sample()
    assert problems(instance.observer.snapshot()) == [f"{told} hangs or is down"]
    monkeypatch.setattr(observing, "queued_s", lambda _: 1_020.0)
    (problem,) = problems(instance.observer.snapshot())
    assert problem.startswith(f"{told} does not get a processor (in the last ")
    assert "it has waited 20 s for one); to mend it" in problem
    monkeypatch.setattr(observing, "queued_s", lambda _: None)
    assert problems(instance.observer.snapshot()) == [f"{told} hangs or is down"]


def test_a_closed_sink_is_explained(instance: Instance) -> None:
    """It says no more itself."""
    instance.write_recorder(state="closed")
    (problem,) = problems(instance.observer.snapshot())
    assert problem == "recorder 0: closed: it has stopped, or has just started"


def test_the_drop_reasons_are_the_recorders() -> None:
    """The list is written twice, because control does not import the recorder."""
    assert sorted(DROP_REASONS) == sorted(Drop)
