"""Who serves a request, and who gets a copy. Pure: a plan and a key in, a `Decision` out.

A `Plan` is a route under one control state, with every kill and weight already applied; it is made
when the control page changes, not per request. `decide` then needs at most a few hashes, and
returns one of a few shared values: at 100% or 0% there is nothing to work out. No clock and no
randomness: the same key gives the same decision on every worker, replica and restart.

While a candidate serves a request, its copy goes to the primary, so that pairs keep coming at every
weight (DESIGN section 3).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from proxy.config.resolved import FULL_BP, Route
from proxy.routing.split import bucket, salt_of, threshold, unit_digest, unit_hash
from proxy.state.control_page import CandidateState, ControlState, Part

#: `Decision.serving` when the primary serves.
PRIMARY = -1


@dataclass(frozen=True, slots=True)
class Decision:
    """What happens to one request.

    Attributes:
        serving: index of the candidate that serves, or `PRIMARY`.
        mirrors: indexes of the candidates that get a copy.
        mirror_primary: the primary gets a copy, because a candidate serves.
        replicate: a second call to the primary is sampled.
        assign_prob: probability with which this key's backend was chosen to serve.
        sample_probs: for each candidate, the probability that a pair is recorded, given who serves.
        pairs: the candidates that get a record, the serving one first.
        alone: what is left of it where no copies can be made; None: it has none.
    """

    serving: int
    mirrors: tuple[int, ...]
    mirror_primary: bool
    replicate: bool
    assign_prob: float
    sample_probs: tuple[float, ...]
    pairs: tuple[int, ...]
    alone: Decision | None = None


@dataclass(frozen=True, slots=True)
class Share:
    """A candidate's part of the keys: canary buckets [low, high), mirror buckets below `mirror`."""

    weight_bp: int
    mirror_bp: int
    low: int
    high: int
    mirror: int
    mirror_salt: bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """A route under one control state.

    Attributes:
        shares: one per candidate, in the order of the config.
        has_canary: some candidate serves live traffic.
        everyone: the decision that every key gets; None where it depends on the key.
        is_recorded: pairs are recorded at all, per candidate.
        seen: the decisions made so far, by what they depend on.
    """

    route: Route
    salted: hashlib.blake2b
    shares: tuple[Share, ...]
    has_canary: bool
    primary_prob: float
    replicate: int
    everyone: Decision | None
    is_recorded: tuple[bool, ...]
    ramp: tuple[tuple[int, int], ...]
    seen: dict[tuple[int, tuple[int, ...] | None, bool], Decision]


def make_plan(
    route: Route, state: ControlState | None, ejected: frozenset[int] = frozenset()
) -> Plan:
    """Return the plan of `route`; without a state (an unreadable page) only the primary is used.

    `ejected` are the numbers of candidates that serve nobody, whatever the state says.

    Live weights are laid on the ring of buckets so that raising one only adds keys: the first
    candidate from the bottom up, the others from the top down, in the order of the config.
    """
    shares: list[Share] = []
    recorded: list[bool] = []
    ramp: list[tuple[int, int]] = []
    top = FULL_BP
    for number, candidate in enumerate(route.candidates):
        live = _live(state, route.name, candidate.name)
        dead = Part.DEFAULT if state is None else state.killed_parts(route.name, candidate.name)
        weight = 0 if dead & Part.CANARY or number in ejected else live.weight_bp
        mirror = 0 if dead & Part.MIRROR else live.mirror_bp
        low, high = (0, weight) if number == 0 else (max(0, top - weight), top)
        if number:
            top = low
        salt = salt_of("mirror", route.name, candidate.name)
        span = threshold(low), threshold(high)
        shares.append(Share(weight, mirror, *span, threshold(mirror), salt))
        recorded.append(not dead & Part.RECORD)
        ramp.append((live.ramp_step, live.weight_bp))
    weight_sum = sum(share.weight_bp for share in shares)
    primary_prob = 1 - weight_sum / FULL_BP
    is_fixed = not (weight_sum or route.replicate_bp) and all(
        share.mirror_bp in (0, FULL_BP) for share in shares
    )
    everybody = tuple(number for number, share in enumerate(shares) if share.mirror_bp)
    return Plan(
        route=route,
        salted=unit_hash(salt_of("split", route.name)),
        shares=tuple(shares),
        has_canary=weight_sum > 0,
        primary_prob=primary_prob,
        replicate=threshold(route.replicate_bp),
        everyone=_decision(tuple(shares), primary_prob, PRIMARY, everybody) if is_fixed else None,
        is_recorded=tuple(recorded),
        ramp=tuple(ramp),
        seen={},
    )


def unit_of(plan: Plan, key: bytes) -> bytes:
    """Return the 24-byte hash of a split key under the route's salt; nothing of it is recorded."""
    return unit_digest(plan.salted, key)


def decide(plan: Plan, key: bytes, unit: bytes, *, may_repeat: bool = True) -> Decision:
    """Return what happens to the request with this split key.

    Args:
        plan: the route under the control state of now.
        key: the split key.
        unit: `unit_of(plan, key)`; of no matter where there is one decision for everyone.
        may_repeat: the route's guard lets the request be sent twice; else it goes to one backend.
    """
    if plan.everyone is not None and may_repeat:
        return plan.everyone
    serving = _serving(plan, unit) if plan.has_canary else PRIMARY
    if not may_repeat:
        return alone(plan, serving)
    mirrors = tuple(
        number
        for number, share in enumerate(plan.shares)
        if number != serving and share.mirror and _mirrored(share, key)
    )
    replicated = int.from_bytes(unit[16:24], "big") < plan.replicate
    return _remembered(plan, (serving, mirrors, replicated))


def alone(plan: Plan, serving: int) -> Decision:
    """Return the decision that `serving` (a candidate's number or `PRIMARY`) gets a request, and nobody a copy."""
    return _remembered(plan, (serving, None, False))


def _serving(plan: Plan, unit: bytes) -> int:
    bucket_ = int.from_bytes(unit[8:16], "big")
    for number, share in enumerate(plan.shares):
        if share.low <= bucket_ < share.high:
            return number
    return PRIMARY


def _remembered(plan: Plan, name: tuple[int, tuple[int, ...] | None, bool]) -> Decision:
    """Make a decision once; for n candidates there are at most 2 * (n + 1) * 2**n, and n + 1 alone."""
    found = plan.seen.get(name)
    if found is None:
        serving, mirrors, is_replicated = name
        found = _decision(
            plan.shares, plan.primary_prob, serving, mirrors, is_replicated=is_replicated
        )
        if len(plan.seen) < _MAX_SEEN:
            plan.seen[name] = found
    return found


def _decision(
    shares: tuple[Share, ...],
    primary_prob: float,
    serving: int,
    mirrors: tuple[int, ...] | None,
    *,
    is_replicated: bool = False,
) -> Decision:
    """Return a decision; without `mirrors` nobody may get a copy, whatever the key."""
    is_canary, is_alone = serving != PRIMARY, mirrors is None
    mirrors = mirrors or ()
    mirror_primary = is_canary and not is_alone and bool(mirrors or shares[serving].mirror_bp)
    has_copies = bool(mirrors) or mirror_primary
    return Decision(
        serving=serving,
        mirrors=mirrors,
        mirror_primary=mirror_primary,
        replicate=is_replicated and has_copies,
        assign_prob=shares[serving].weight_bp / FULL_BP if is_canary else primary_prob,
        sample_probs=tuple(
            1.0 if number == serving else 0.0 if is_alone else share.mirror_bp / FULL_BP
            for number, share in enumerate(shares)
        ),
        pairs=(serving, *mirrors) if is_canary else mirrors,
        alone=_decision(shares, primary_prob, serving, None) if has_copies else None,
    )


_MAX_SEEN = 1024


def _mirrored(share: Share, key: bytes) -> bool:
    return share.mirror_bp == FULL_BP or bucket(share.mirror_salt, key) < share.mirror


def _live(state: ControlState | None, route: str, candidate: str) -> CandidateState:
    if state is None or route not in state.routes:
        return CandidateState()
    return state.routes[route].candidates.get(candidate, CandidateState())
