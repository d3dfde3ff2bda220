"""The demo's checks: all pass on a sound demo, and each fault fails the one that is about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from proxy.demo.checks import Kill, Measured, checks
from proxy.demo.models import HELD_OUT
from proxy.demo.pair_log import PairLog
from proxy.demo.traffic import USERS, Tally, request_id

SENT = 1_000
KILLED = range(500, 700)
#: Under way while the kill was ordered: either way is right.
UNCERTAIN = range(490, 500)
#: Users below it are on the candidate at 10%, and at 50%.
TEN, HALF = USERS // 10, USERS // 2
#: Requests below it, of each hundred, are mirrored to the bad candidate.
MIRRORED = 30

LABELS = {
    "1": np.arange(HELD_OUT) % 10,
    "2": np.where(np.arange(HELD_OUT) % 20 == 0, 9, np.arange(HELD_OUT) % 10),
    "3": np.zeros(HELD_OUT, dtype=np.int64),
}


def _tally(users_on_candidate: int) -> Tally:
    tally = Tally(answered=SENT // 5)
    for user in range(USERS):
        version = "2" if user < users_on_candidate else "1"
        tally.users[user].add(version)
        tally.served[version] += 1
    return tally


def _log(directory: Path) -> PairLog:
    log = PairLog(directory)
    for number in range(SENT):
        if number in KILLED or number in UNCERTAIN:
            continue
        for name, version in (("v2", "2"), ("v3", "3")):
            if name == "v3" and number % 100 >= MIRRORED:
                continue
            pairs, row = log.candidates[name], number % HELD_OUT
            is_equal = bool(LABELS["1"][row] == LABELS[version][row])
            log.pair_ids.add(f"{name}-{number}")
            pairs.pairs += 1
            pairs.equal += is_equal
            pairs.requests[request_id(number)] += 1
            pairs.verdicts[request_id(number)] = is_equal
    return log


@pytest.fixture
def measured(tmp_path: Path) -> Measured:
    """Return what a demo without a fault would have measured."""
    log = _log(tmp_path)
    status = {
        "routes": [
            {"candidates": [{"pairs_decided": pairs.pairs, "pairs_lost": {"journal_error": 0}}
                            for pairs in log.candidates.values()]}
        ],
        "ledger": [{"name": "pairs decided", "total": log.pairs, "open": 0}],
        "totals": {"received": SENT},
    }  # fmt: skip
    tallies = {
        "shadow": _tally(0), "ten": _tally(TEN), "half": _tally(HALF),
        "kill": _tally(HALF), "revive": _tally(HALF),
    }  # fmt: skip
    kill = Kill(frozenset(range(UNCERTAIN.start)), KILLED.start, 0.004, 0.003, 0)
    return Measured(log, LABELS, tallies, SENT, kill, KILLED, status, exit_code=0)


def _failed(measured: Measured) -> list[str]:
    return [check.name for check in checks(measured) if not check.is_passed]


def test_a_sound_demo_passes_everything(measured: Measured) -> None:
    """Nine checks, none of them vacuous: the tests below fail each."""
    assert _failed(measured) == []
    assert len(checks(measured)) == 9


def _kill(measured: Measured, **changes: object) -> None:
    assert measured.kill is not None
    measured.kill = replace(measured.kill, **changes)  # type: ignore[arg-type] # names vary


def _lose(measured: Measured, number: int) -> None:
    del measured.log.candidates["v2"].requests[request_id(number)]


def _flip(measured: Measured) -> None:
    verdicts = measured.log.candidates["v3"].verdicts
    verdicts[request_id(3)] = not verdicts[request_id(3)]


FAULTS: list[tuple[str, Callable[[Measured], object]]] = [
    ("answers", lambda m: setattr(m.tallies["kill"], "wrong", 1)),
    ("answers", lambda m: setattr(m.tallies["shadow"], "failed", 1)),
    ("sticky split", lambda m: m.tallies["half"].users[0].add("1")),
    ("sticky split", lambda m: m.tallies.update(ten=_tally(USERS // 4))),
    ("sticky split", lambda m: m.tallies["ten"].users.update({USERS - 1: {"2"}})),
    ("kill switch", lambda m: _kill(m, effect_s=0.8)),
    ("kill switch", lambda m: _kill(m, arrived_late=1)),
    ("revive", lambda m: m.tallies.update(revive=_tally(0))),
    ("revive", lambda m: m.tallies.update(revive=_tally(HALF + 1))),
    ("pairs", lambda m: _lose(m, 0)),
    ("pairs", lambda m: _lose(m, SENT - 1)),
    ("pairs", lambda m: m.log.candidates["v2"].requests.update([request_id(0)])),
    ("pairs", lambda m: m.log.candidates["v2"].requests.update([request_id(KILLED[0])])),
    ("mirror share", lambda m: setattr(m.log.candidates["v3"], "pairs", 10)),
    ("comparison", _flip),
    ("ledger", lambda m: m.log.pair_ids.pop()),
    ("ledger", lambda m: setattr(m.log, "duplicates", 1)),
    ("ledger", lambda m: m.status["ledger"][0].update(open=1)),
    ("ledger", lambda m: m.status["totals"].update(received=SENT - 1)),
    ("ledger", lambda m: m.status["routes"][0]["candidates"][0]["pairs_lost"].update(killed=1)),
    ("clean stop", lambda m: setattr(m, "exit_code", 1)),
]


@pytest.mark.parametrize(("name", "fault"), FAULTS)
def test_a_fault_fails_its_check_alone(
    measured: Measured, name: str, fault: Callable[[Measured], object]
) -> None:
    """One lost pair in a thousand is enough."""
    fault(measured)
    assert _failed(measured) == [name]


def test_a_kill_that_was_never_ordered_is_no_kill(measured: Measured) -> None:
    """And every request is due a pair then."""
    measured.kill, measured.after_kill = None, range(0)
    assert "kill switch" in _failed(measured)
    assert "pairs" in _failed(measured)


def test_a_demo_that_is_kept_has_no_exit_code(measured: Measured) -> None:
    """So nothing is said about it."""
    measured.exit_code = None
    assert [check.name for check in checks(measured)][-1] == "ledger"
