"""What must hold at the end of the demo, checked on what was measured. Pure.

Each check says in words what it looked at, so that a failed one needs no debugger. None of them
takes the proxy's word where something else can be counted: the users' answers, the candidates' own
counters and the pairs in the log are held against each other and against the models.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from proxy.demo.models import Integers
from proxy.demo.pair_log import PairLog
from proxy.demo.traffic import PRIMARY, USERS, Tally, request_id, row_of

#: The better candidate: its name in the config, and its model version.
GOOD, GOOD_VERSION = "v2", "2"
#: The bad candidate, and the share of users that are mirrored to it.
BAD, BAD_VERSION, BAD_SHARE = "v3", "3", 0.30
#: How far a share may be from what was asked for: 250 users, so three standard deviations or so.
SHARE_TOLERANCE: Final = 0.09
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
        tallies: by phase: shadow, ten, half, kill, revive.
        sent: requests in all.
        after_kill: numbers of the requests sent between kill and revive, for certain.
        labels: each version's label for each row, by the models themselves.
        status: the proxy's status document, when all was settled.
        exit_code: the proxy's, or None while it is kept running.
    """

    log: PairLog
    labels: Mapping[str, Integers]
    tallies: dict[str, Tally] = field(default_factory=dict)
    sent: int = 0
    kill: Kill | None = None
    after_kill: range = range(0)
    status: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None


def checks(measured: Measured) -> list[Check]:
    """Return every check, in the order of the story."""
    return [
        _answers(measured),
        _split(measured),
        _kill(measured),
        _revive(measured),
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
    ten, half = measured.tallies["ten"], measured.tallies["half"]
    shares = {share: len(tally.users_of(GOOD_VERSION)) / USERS
              for share, tally in ((0.10, ten), (0.50, half))}  # fmt: skip
    fickle = sum(len(versions) > 1 for tally in (ten, half) for versions in tally.users.values())
    lost = len(ten.users_of(GOOD_VERSION) - half.users_of(GOOD_VERSION))
    is_near = all(abs(seen - asked) <= SHARE_TOLERANCE for asked, seen in shares.items())
    seen = ", ".join(f"{share:.1%} of users at {asked:.0%}" for asked, share in shares.items())
    detail = f"{seen}; {fickle} changed sides, {lost} moved back"
    return Check("sticky split", is_near and not fickle and not lost, detail)


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
    before = measured.tallies["half"].users_of(GOOD_VERSION)
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
