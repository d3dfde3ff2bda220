"""What must hold at the end of the demo, checked on what was measured. Pure.

Each check says in words what it looked at, so that a failed one needs no debugger. None of them
takes the proxy's word where something else can be counted: the users' answers, the candidates' own
counters and the pairs in the log are held against each other and against the models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import orjson

from proxy.comparison.verdict_json import loads_verdict
from proxy.demo.classifiers import Integers
from proxy.demo.folder import MIN_DURATION_S, MIN_PAIRS
from proxy.demo.pair_log import PairLog
from proxy.demo.ramping import Ramping
from proxy.demo.traffic import PRIMARY, Tally, request_id, row_of, user_of

#: The candidate that is as good: its name in the config, and its model version.
GOOD, GOOD_VERSION = "v2", "2"
#: The bad candidate, and the share of users that are mirrored to it.
BAD, BAD_VERSION, BAD_SHARE = "v3", "3", 0.50
#: How far a share may be from what was asked for: 500 users, so four standard deviations.
SHARE_TOLERANCE: Final = 0.09
#: What begins and ends a step of a ramp that goes well.
_MOVES: Final = frozenset({"ramp_start", "ramp_advance", "ramp_finish"})
#: From the kill order to the last request at a candidate, on a machine that does all at once.
KILL_EFFECT_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold."""

    name: str
    is_passed: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Kill:
    """What was seen of the kill.

    Attributes:
        certain: requests answered before the order was given.
        first_after: number of the first request begun after it was confirmed.
        confirmed_s: how long the admin API took.
        effect_s: from the order to the last request that arrived at a candidate; 0 if none did.
        arrived_late: requests at the candidates after everything had settled.
    """

    certain: frozenset[int]
    first_after: int
    confirmed_s: float
    effect_s: float
    arrived_late: int


@dataclass(slots=True)
class Measured:
    """Everything the demo measured.

    Attributes:
        tallies: by phase: shadow, halted, promoted, kill, revive, crash.
        sent: requests in all.
        after_kill: numbers of the requests sent between kill and revive, for certain.
        labels: each version's label for each row, by the models themselves.
        status: the proxy's status document, when all was settled.
        exit_code: the proxy's, or None while it is kept running.
        ramps: by candidate, until the good one was promoted.
        crash: the good candidate's ramp once more, until it was rolled back.
        crashed_ms: when its server was ended, wall clock, milliseconds.
        bad_live: requests at the bad candidate's server that were no copies.
        weights: of the ramp's steps, percent.
    """

    log: PairLog
    labels: Mapping[str, Integers]
    tallies: dict[str, Tally] = field(default_factory=dict)
    sent: int = 0
    kill: Kill | None = None
    after_kill: range = range(0)
    status: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None
    ramps: dict[str, Ramping] = field(default_factory=dict)
    crash: Ramping | None = None
    crashed_ms: int = 0
    bad_live: int = 0
    weights: tuple[int, ...] = ()


def checks(measured: Measured) -> list[Check]:
    """Return every check, in the order of the story."""
    return [
        _answers(measured),
        _halted(measured),
        _promoted(measured),
        _split(measured),
        _kill(measured),
        _revive(measured),
        _crash(measured),
        _one_pair_each(measured),
        _sampled(measured),
        _agreement(measured),
        _ledger(measured),
        *_end(measured),
    ]


def _answers(measured: Measured) -> Check:
    tallies = measured.tallies.values()
    failed = sum(tally.failed for tally in tallies)
    wrong = sum(tally.wrong for tally in tallies)
    examples = "; ".join(example for tally in tallies for example in tally.examples[:1])
    detail = (
        f"{failed} failed, {wrong} wrong: {examples}"
        if failed or wrong
        else f"{measured.sent:,}, byte for byte what the server says when asked directly"
    )
    return Check("answers", not failed and not wrong, detail)


def _split(measured: Measured) -> Check:
    """Hold who was served by whom, as the answers say, against the weights in the records."""
    weights_bp = measured.log.candidates[GOOD].weights_bp
    sides: dict[int, dict[int, set[str]]] = {}
    for number, version in measured.tallies["promoted"].versions.items():
        if (weight_bp := weights_bp.get(request_id(number))) is not None:
            sides.setdefault(weight_bp, {}).setdefault(user_of(number), set()).add(version)
    fickle = sum(len(versions) > 1 for users in sides.values() for versions in users.values())
    rising = sorted(sides)
    lost = sum(
        len((_on_good(sides[low]) & sides[high].keys()) - _on_good(sides[high]))
        for low, high in pairwise(rising)
    )
    shares = {bp: len(_on_good(sides[bp])) / len(sides[bp]) for bp in rising}
    is_near = all(abs(share - bp / 10_000) <= SHARE_TOLERANCE for bp, share in shares.items())
    is_whole = {percent * 100 for percent in measured.weights} <= shares.keys()
    seen = ", ".join(f"{share:.1%} of the users at {bp / 100:g}%" for bp, share in shares.items())
    detail = f"{seen}; {fickle} changed sides, {lost} moved back"
    return Check("sticky split", is_near and is_whole and not fickle and not lost, detail)


def _on_good(users: Mapping[int, set[str]]) -> set[int]:
    """Return the users that the good candidate served."""
    return {user for user, versions in users.items() if GOOD_VERSION in versions}


def _halted(measured: Measured) -> Check:
    """The bad candidate was taken out by evidence, and nobody has had an answer of it."""
    ramp = measured.ramps[BAD]
    halts = [each for each in ramp.decisions if each["action"] == "ramp_halt"]
    is_right = (
        ramp.events == ["start", "halt"]
        and ramp.phase == "rolled_back"
        and not _unfounded(halts, "halt")
        and not measured.bad_live
    )
    why = f"{halts[-1]['reason']}, by {halts[-1]['who']}" if halts else "no halt"
    detail = f"{ramp.words}: {why}; {measured.bad_live} of its answers reached a user"
    return Check(f"halted {BAD}", is_right, detail)


def _promoted(measured: Measured) -> Check:
    """Each step up stands on evidence of its own, which gives the same verdict again."""
    ramp = measured.ramps[GOOD]
    due = ["start", *["pass", "advance"] * len(measured.weights), "pass", "finish"]
    rises = [each for each in ramp.decisions if each["action"] != "ramp_start"]
    unfounded = _unfounded(rises, "promote")
    moved_ms = [each["ts_ms"] for each in ramp.decisions if each["action"] in _MOVES]
    hurried = sum(b - a < MIN_DURATION_S * 1000 for a, b in pairwise(moved_ms))
    is_right = ramp.events == due and ramp.phase == "promoted" and not unfounded + hurried
    way = " -> ".join(f"{percent}%" for percent in measured.weights)
    detail = (
        f"{ramp.words} by {way}; {len(rises)} transitions, {unfounded} without evidence of their "
        f"step, {hurried} before its time"
    )
    return Check(f"promoted {GOOD}", is_right, detail)


def _unfounded(decisions: Sequence[Mapping[str, Any]], outcome: str) -> int:
    """Return how many decisions carry no verdict `outcome` that comes out of its own counts."""
    found = 0
    for decision in decisions:
        try:
            verdict = loads_verdict(orjson.dumps(decision["evidence"]))
        except (KeyError, ValueError):
            found += 1
            continue
        pairs = min(gate.standing.pairs for gate in verdict.gates)
        is_enough = outcome != "promote" or pairs >= MIN_PAIRS
        found += decision["who"] != "ramp" or verdict.outcome != outcome or not is_enough
    return found


def _crash(measured: Measured) -> Check:
    """The candidate's server was killed: its users were rescued, and it was rolled back.

    By the guard of a worker, after a burst of failures, or by the gate on availability, if that is first.
    """
    ramp, tally = measured.crash, measured.tallies["crash"]
    if ramp is None:
        return Check("crash", is_passed=False, detail="it never happened")
    falls = [each for each in ramp.decisions[-1:] if each["action"] in ("ramp_halt", "ramp_eject")]
    halts = [each for each in falls if each["action"] == "ramp_halt"]
    is_founded = not _unfounded(halts, "halt") and all(
        each["who"] == "guard" for each in falls if each not in halts
    )
    rescued = sum(
        candidate["rescued"]
        for route in measured.status["routes"]
        for candidate in route["candidates"]
    )
    bad = tally.failed + tally.wrong
    why = f"{falls[-1]['reason']}, by {falls[-1]['who']}" if falls else "no halt"
    detail = (
        f"{rescued} calls of users rescued, {bad} failed; {ramp.words} after "
        f"{ramp.seconds:.1f} s: {why}"
    )
    is_right = ramp.phase == "rolled_back" and bool(falls) and is_founded
    return Check("crash", is_right and rescued > 0 and not bad, detail)


def _kill(measured: Measured) -> Check:
    kill = measured.kill
    if kill is None:
        return Check("kill switch", is_passed=False, detail="it was never ordered")
    detail = (
        f"candidates got their last request {kill.effect_s * 1000:.1f} ms after the order, "
        f"{kill.arrived_late} while {len(measured.after_kill)} more were served"
    )
    is_passed = kill.effect_s <= KILL_EFFECT_S and not kill.arrived_late
    return Check("kill switch", is_passed and len(measured.after_kill) > 0, detail)


def _revive(measured: Measured) -> Check:
    before = measured.tallies["promoted"].users_of(GOOD_VERSION)
    tally = measured.tallies["revive"]
    after, seen = tally.users_of(GOOD_VERSION), set(tally.users)
    is_passed = bool(after) and after == before & seen
    detail = f"{len(after)} users are back on {GOOD}, {len(after - before)} that were not there"
    return Check("revive", is_passed, detail)


def _one_pair_each(measured: Measured) -> Check:
    """The good candidate is in every exchange, but for those that the kill kept from it."""
    requests = measured.log.candidates[GOOD].requests
    kill, killed = measured.kill, set(measured.after_kill)
    everything = range(measured.sent)
    # What was under way while the order was given may be on either side of it.
    due = set(everything) if kill is None else {*kill.certain, *everything[kill.first_after :]}
    due -= killed
    missing = [n for n in due if requests[request_id(n)] == 0]
    surplus = [name for name, count in requests.items() if count > 1]
    wrong = [n for n in killed if requests[request_id(n)]]
    detail = (
        f"{len(due):,} requests with {GOOD}: {len(missing)} without a pair, {len(surplus)} with two, "
        f"{len(wrong)} in spite of the kill"
    )
    is_passed = not missing and not surplus and not wrong and bool(due)
    return Check("pairs", is_passed, detail)


def _sampled(measured: Measured) -> Check:
    kept = measured.sent - len(measured.after_kill)
    share = measured.log.candidates[BAD].pairs / kept if kept else 0.0
    is_passed = abs(share - BAD_SHARE) <= SHARE_TOLERANCE
    detail = f"{share:.1%} of the requests to {BAD}, by {BAD_SHARE:.0%} of the users"
    return Check("mirror share", is_passed, detail)


def _agreement(measured: Measured) -> Check:
    """The verdict of each pair must be what the models say about the row."""
    labels, wrong, compared = measured.labels, 0, 0
    for name, version in ((GOOD, GOOD_VERSION), (BAD, BAD_VERSION)):
        is_equal = labels[PRIMARY] == labels[version]
        for request, verdict in measured.log.candidates[name].verdicts.items():
            wrong += verdict != bool(is_equal[row_of(request)])
            compared += 1
    good, bad = (measured.log.candidates[name].agreement or 0.0 for name in (GOOD, BAD))
    detail = (
        f"{compared:,} verdicts, {wrong} unlike the models' own; "
        f"{GOOD} agrees in {good:.1%}, {BAD} in {bad:.1%}"
    )
    return Check("comparison", compared > 0 and not wrong and good > bad, detail)


def _ledger(measured: Measured) -> Check:
    status, log = measured.status, measured.log
    candidates = [c for route in status["routes"] for c in route["candidates"]]
    decided = sum(c["pairs_decided"] for c in candidates)
    lost = sum(sum(c["pairs_lost"].values()) for c in candidates)
    still_open = sum(abs(account["open"]) for account in status["ledger"])
    received = status["totals"]["received"]
    detail = (
        f"{received:,} of {measured.sent:,} requests; {log.pairs:,} of {decided:,} pairs, "
        f"{lost} lost, {log.duplicates} twice, {still_open} open"
    )
    is_passed = (
        received == measured.sent
        and decided == log.pairs
        and not lost + log.duplicates + still_open
    )
    return Check("ledger", is_passed, detail)


def _end(measured: Measured) -> Iterator[Check]:
    if measured.exit_code is not None:
        detail = f"exit code {measured.exit_code}"
        yield Check("clean stop", measured.exit_code == 0, detail)
