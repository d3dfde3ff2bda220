"""The ledger, checked to the last request by the product's own checker: see `proxy.control.ledger`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson

from proxy.config.resolved import loads
from proxy.control.ledger import Account, Verdict, imbalances, ledger, retained, verdict
from proxy.control.snapshot import Observer
from proxy.state.stats_page import Outcome
from tests.support.dataplane import Plane
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.instance import Instance

#: Lines that are open by one for each exchange under way.
_OPEN_LINES = ("requests routed", "pairs decided")


def check_ledger(plane: Plane, candidate: str = "v2", *, in_flight: int = 0) -> None:
    """Check that every request, mirror, leg and pair of the worker is accounted for.

    Args:
        plane: with its journal flushed (`plane.pairs` has seen what was due).
        candidate: the one whose legs are counted.
        in_flight: exchanges that are known to be under way.
    """
    observer = Observer(plane.worker.config)
    snapshot = observer.snapshot()
    observer.close()
    if in_flight:
        assert imbalances(snapshot, quiet=False) == []
        wanted = dict.fromkeys(_OPEN_LINES, in_flight)
        assert {a.name: a.open for a in ledger(snapshot) if a.open} == wanted
    else:
        found = imbalances(snapshot, quiet=True)
        assert found == [], found  # told: assertions here are not rewritten
    names = ("iris", candidate)
    ended = sum(plane.count("leg", *names, outcome) for outcome in Outcome)
    assert plane.count("pairs_decided", *names) == ended + in_flight


def wait_balanced(instance: Instance, timeout_s: float = PATIENCE_S) -> dict[str, dict[str, Any]]:
    """Wait until all that came is settled and shipped; return the ledger's lines by name.

    It looks at the state directory itself, as `understudy status --state-dir` does, so that control may
    be dead.

    Raises:
        AssertionError: it does not add up, or is not settled in time.
    """
    path = instance.state_dir / "config" / f"{instance.runtime['config_version']}.json"
    observer = Observer(loads(path.read_bytes()))

    def settled() -> list[Account] | None:
        snapshot = observer.snapshot()
        found = imbalances(snapshot)
        assert found == [], found
        is_settled = verdict(snapshot) is Verdict.BALANCED and not retained(snapshot)
        return ledger(snapshot) if is_settled else None

    try:
        # A look counts what waits in the journals, on the processor that the recorder needs.
        accounts = wait_for(settled, "the ledger to add up", timeout_s, every_s=0.1) or []
    except AssertionError as exc:
        exc.add_note(f"{ledger(observer.snapshot())}")
        raise
    finally:
        observer.close()
    return {account.name: asdict(account) for account in accounts}


def told_ledger(instance: Instance, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
    """Return the ledger and its verdict as `understudy status --json` gives them, once nothing is under way.

    A worker that was killed a moment ago may have books that balance, and no successor for two seconds.
    """

    def settled() -> dict[str, Any] | None:
        answer = instance.cli("status", "--json")
        assert answer.returncode == 0, answer.stderr
        found = orjson.loads(answer.stdout)
        told = {"ledger": found["ledger"], **found["ledger_verdict"]}
        return None if told["verdict"] == Verdict.UNDER_WAY else told

    return wait_for(settled, "nothing to be under way", timeout_s) or {}
