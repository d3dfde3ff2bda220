"""The demo's checks: all pass on a sound demo, and each fault fails the one that is about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from proxy.comparison.counts import three_counts
from proxy.comparison.evidence import EvidenceCounts, EvidenceKey, GateCounts, GateParams, Params
from proxy.comparison.gates import Metric
from proxy.comparison.verdict import judge
from proxy.comparison.verdict_json import dumps
from proxy.demo.checks import Kill, Measured, checks
from proxy.demo.models import HELD_OUT
from proxy.demo.pair_log import PairLog
from proxy.demo.ramping import Ramping
from proxy.demo.traffic import USERS, Tally, request_id, user_of

SENT = 1_000
#: Requests during the good candidate's ramp, by the weight that was decided for each.
WEIGHTS = {
    0: [*range(100)],
    1_000: [*range(100, 300)],
    10_000: [*range(300, 490), *range(700, 1_000)],  # the last ones by users of before
}
KILLED = range(500, 700)
#: Under way while the kill was ordered: either way is right.
UNCERTAIN = range(490, 500)
#: Requests below it, of each hundred, are mirrored to the bad candidate.
MIRRORED = 50

LABELS = {
    "1": np.arange(HELD_OUT) % 10,
    "2": np.where(np.arange(HELD_OUT) % 20 == 0, 9, np.arange(HELD_OUT) % 10),
    "3": np.zeros(HELD_OUT, dtype=np.int64),
}
KEY = EvidenceKey("demo", "digits", "v2", "c", "1", "2")
PARAMS = Params((GateParams(Metric.AVAILABILITY, 0.02),))


def _tally(is_on_candidate: bool) -> Tally:
    tally = Tally(answered=SENT // 5)
    for user in range(USERS):
        version = "2" if is_on_candidate else "1"
        tally.users[user].add(version)
        tally.served[version] += 1
    return tally


def _promoted() -> Tally:
    """Return the ramp's tally: a tenth of the users on the candidate at 10%, all at 100%."""
    tally = _tally(is_on_candidate=True)
    for weight_bp, numbers in WEIGHTS.items():
        for number in numbers:
            is_on = user_of(number) % 10 < weight_bp // 1_000
            tally.versions[number] = "2" if is_on else "1"
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
            weight_bp = next((bp for bp, numbers in WEIGHTS.items() if number in numbers), 0)
            pairs.weights_bp[request_id(number)] = weight_bp
    return log


def _decision(event: str, ts_ms: int, *, same: int = 0, worse: int = 0) -> dict[str, Any]:
    """Return a line of the decisions log, with a verdict of the ramp's on so many pairs."""
    counts = three_counts(better=0, same=same, worse=worse)
    verdict = judge(EvidenceCounts(KEY, (GateCounts(Metric.AVAILABILITY, counts),)), PARAMS)
    decision = {"action": f"ramp_{event}", "ts_ms": ts_ms, "who": "ramp", "reason": verdict.reason}
    return {**decision, "evidence": orjson.loads(dumps(verdict))}


def _ramping(candidate: str, phase: str, *decisions: dict[str, Any]) -> Ramping:
    start = {"action": "ramp_start", "ts_ms": 0, "who": "ada", "reason": "demo"}
    told = {"ramp": {"phase": phase, "words": phase}}
    return Ramping(candidate, [start, *decisions], told, 3.0)


def _ramps() -> dict[str, Ramping]:
    events = ("pass", "advance", "pass", "advance", "pass", "finish")
    moves = [_decision(event, 1_500 * (n + 1), same=500) for n, event in enumerate(events)]
    return {
        "v3": _ramping("v3", "rolled_back", _decision("halt", 2_000, same=90, worse=60)),
        "v2": _ramping("v2", "promoted", *moves),
    }


@pytest.fixture
def measured(tmp_path: Path) -> Measured:
    """Return what a demo without a fault would have measured."""
    log = _log(tmp_path)
    status = {
        "routes": [
            {"candidates": [{"pairs_decided": pairs.pairs, "pairs_lost": {"journal_error": 0},
                             "rescued": 7} for pairs in log.candidates.values()]}
        ],
        "ledger": [{"name": "pairs decided", "total": log.pairs, "open": 0}],
        "totals": {"received": SENT},
    }  # fmt: skip
    tallies = {
        "shadow": _tally(is_on_candidate=False), "halted": _tally(is_on_candidate=False),
        "promoted": _promoted(), "kill": _tally(is_on_candidate=True),
        "revive": _tally(is_on_candidate=True), "crash": _tally(is_on_candidate=True),
    }  # fmt: skip
    kill = Kill(frozenset(range(UNCERTAIN.start)), KILLED.start, 0.004, 0.003, 0)
    crash = _ramping("v2", "rolled_back", _decision("halt", 30_000, same=900, worse=60))
    return Measured(
        log, LABELS, tallies, SENT, kill, KILLED, status,
        exit_code=0, ramps=_ramps(), crash=crash, weights=(10, 100),
    )  # fmt: skip


def _eject(measured: Measured, who: str) -> None:
    """Let the last decision on the crash be an ejection."""
    assert measured.crash is not None
    measured.crash.decisions[-1] = {
        "action": "ramp_eject", "ts_ms": 30_000, "who": who, "reason": "5 of 5 live calls were bad",
    }  # fmt: skip


def _failed(measured: Measured) -> list[str]:
    return [check.name for check in checks(measured) if not check.is_passed]


def test_a_guard_may_be_first_to_see_a_crash(measured: Measured) -> None:
    """It needs no verdict, and says what it has counted."""
    _eject(measured, "guard")
    assert _failed(measured) == []
    (crash,) = (check for check in checks(measured) if check.name == "crash")
    assert "5 of 5 live calls were bad, by guard" in crash.detail


def test_a_sound_demo_passes_everything(measured: Measured) -> None:
    """Twelve checks, none of them vacuous: the tests below fail each."""
    assert _failed(measured) == []
    assert {name for name, _ in FAULTS} == {check.name for check in checks(measured)}


def _kill(measured: Measured, **changes: object) -> None:
    assert measured.kill is not None
    measured.kill = replace(measured.kill, **changes)  # type: ignore[arg-type] # names vary


def _lose(measured: Measured, number: int) -> None:
    del measured.log.candidates["v2"].requests[request_id(number)]


def _flip(measured: Measured) -> None:
    verdicts = measured.log.candidates["v3"].verdicts
    verdicts[request_id(3)] = not verdicts[request_id(3)]


def _put(measured: Measured, number: int, version: str) -> None:
    """Let another version have answered a request of the ramp."""
    measured.tallies["promoted"].versions[number] = version


def _repeat(measured: Measured, event: int, **changes: Any) -> None:
    """Change a decision of the good candidate's ramp."""
    measured.ramps["v2"].decisions[event] |= changes


def _change_sides(measured: Measured) -> None:
    """Let a user whom the candidate serves at 10% come again at 10%, and get the primary."""
    measured.log.candidates["v2"].weights_bp[request_id(700)] = 1_000
    _put(measured, 700, "1")


def _never_at(measured: Measured, weight_bp: int) -> None:
    for number in WEIGHTS[weight_bp]:
        del measured.tallies["promoted"].versions[number]


def _all_on_the_primary_at(measured: Measured, weight_bp: int) -> None:
    for number in WEIGHTS[weight_bp]:
        _put(measured, number, "1")


FAULTS: list[tuple[str, Callable[[Measured], object]]] = [
    ("answers", lambda m: setattr(m.tallies["kill"], "wrong", 1)),
    ("answers", lambda m: setattr(m.tallies["shadow"], "failed", 1)),
    ("halted v3", lambda m: setattr(m, "bad_live", 1)),
    ("halted v3", lambda m: m.ramps.update(v3=_ramping("v3", "shadow"))),
    ("halted v3", lambda m: m.ramps["v3"].decisions[1].update(who="ada")),
    ("halted v3", lambda m: m.ramps["v3"].decisions[1]["evidence"].update(outcome="promote")),
    ("promoted v2", lambda m: m.ramps["v2"].decisions.pop()),
    ("promoted v2", lambda m: setattr(m.ramps["v2"], "told", _ramping("v2", "holding").told)),
    ("promoted v2", lambda m: _repeat(m, 3, evidence=_decision("pass", 0, same=9)["evidence"])),
    ("promoted v2", lambda m: _repeat(m, 3, evidence=None)),
    ("promoted v2", lambda m: _repeat(m, 4, ts_ms=3_100)),
    ("sticky split", _change_sides),
    ("sticky split", lambda m: _put(m, 700, "1")),
    ("sticky split", lambda m: _never_at(m, 10_000)),
    ("sticky split", lambda m: _all_on_the_primary_at(m, 1_000)),
    ("kill switch", lambda m: _kill(m, effect_s=0.8)),
    ("kill switch", lambda m: _kill(m, arrived_late=1)),
    ("revive", lambda m: m.tallies.update(revive=_tally(is_on_candidate=False))),
    ("revive", lambda m: m.tallies["revive"].users[0].discard("2")),
    ("crash", lambda m: setattr(m.crash, "told", _ramping("v2", "paused").told)),
    ("crash", lambda m: m.crash and m.crash.decisions.pop()),
    ("crash", lambda m: setattr(m, "crash", None)),
    ("crash", lambda m: _eject(m, "ramp")),
    ("crash", lambda m: [c.update(rescued=0) for c in m.status["routes"][0]["candidates"]]),
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
