"""Which of the recorders' counts speak for a step of a ramp, and what they say. Pure.

Recorders count for ever; a step is judged by its own pairs alone. So a step opens a `Window`: what
had been counted when it began is taken away from what is counted later, exactly, because counts are
whole numbers. The line is drawn at the first publication that covers every pair journaled before the
step (`caught_up_ms`); until then there is no evidence of the step, and a recorder that falls behind
makes it stale.

Several keys may be alive: while endpoints are updated one by one, two model versions answer in turns.
All that had pairs lately are judged, each alone, and the worst decides. A call that failed told no
model version; it counts with every key that it may have belonged to.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from proxy.comparison.counts import Counts
from proxy.comparison.evidence import (
    EvidenceCounts,
    EvidenceKey,
    GateCounts,
    Params,
    add_up,
)
from proxy.comparison.sample_ratio import ArmCounts
from proxy.comparison.verdict import WORST_FIRST, Outcome, Verdict, judge

#: Evidence that covers only what was journaled longer ago than this is stale. Recorders say each
#: second how far they are.
STALE_MS: Final = 15_000
#: From a step's start until what was under way before it is journaled; longer calls count as its own.
SETTLE_MS: Final = 250
#: A key without a pair for so long, while another had some, is of a model that is gone.
RECENT_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Part:
    """Counts of one key as a recorder tells them; `last_ms`: when its newest pair was made."""

    counts: EvidenceCounts
    last_ms: int


@dataclass(frozen=True, slots=True)
class Published:
    """What all recorders together have counted for one candidate.

    Attributes:
        parts: of one or more recorders; keys may come more than once.
        caught_up_ms: everything journaled before this is in them, wall clock; None when a recorder
            does not say.
        problem: why there is nothing to rely on; empty when there is.
        arms: how split keys were shared out under this config, in all steps together: at each weight
            a key counts once, so a step that goes up has keys of its own.
    """

    parts: tuple[Part, ...] = ()
    caught_up_ms: int | None = None
    problem: str = ""
    arms: tuple[ArmCounts, ...] = ()


@dataclass(frozen=True, slots=True)
class Window:
    """The evidence of one step.

    Attributes:
        opened_ms: when the step began, wall clock.
        before: what had been counted then, each key once; None until that is known.
    """

    opened_ms: int
    before: tuple[EvidenceCounts, ...] | None = None


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a window's evidence says.

    Attributes:
        outcome: of the worst key; None without a key to judge.
        pairs: the least that a gate of any key has seen.
        is_fresh: whether it may raise a weight.
        verdict: the worst one.
    """

    outcome: Outcome | None = None
    reason: str = ""
    pairs: int = 0
    is_fresh: bool = False
    verdict: Verdict | None = field(default=None, compare=False)


def settled(window: Window, published: Published) -> Window:
    """Return the window with its line drawn, if that can be done now.

    It is drawn anew where counts have shrunk, because a recorder has lost its state: what is counted
    by then is given up.
    """
    caught_up_ms = published.caught_up_ms
    if caught_up_ms is None or published.problem:
        return window
    totals = _totals(published.parts)
    if window.before is None:
        if caught_up_ms < window.opened_ms + SETTLE_MS:
            return window
        return replace(window, before=tuple(totals.values()))
    try:
        for earlier in window.before:
            since(totals.get(earlier.key, EvidenceCounts(earlier.key)), earlier)
    except ValueError:
        return replace(window, before=tuple(totals.values()))
    return window


def obstacle(window: Window, published: Published) -> str:
    """Return why there is nothing to judge yet; empty when there is."""
    if published.problem:
        return published.problem
    if window.before is None:
        return "the recorders have not reached the beginning of this step"
    return ""


def judged(window: Window, published: Published, params: Params) -> Judgement:
    """Return what the evidence of a window says, its age left aside; call `settled` before.

    Takes milliseconds, or seconds where there are many segments of continuous differences.
    """
    verdicts = [_verdict(counts, params) for counts in current(window, published)]
    if not verdicts:
        return Judgement(Outcome.NO_DATA, "no pairs in this step")
    worst = min(verdicts, key=lambda each: WORST_FIRST.index(each.outcome))
    pairs = min(gate.standing.pairs for each in verdicts for gate in each.gates)
    return Judgement(worst.outcome, worst.reason, pairs, verdict=worst)


def aged(found: Judgement, published: Published, now_ms: int) -> Judgement:
    """Return a judgement on `published` as it is to be taken now: fresh or not."""
    age_ms = now_ms - (published.caught_up_ms or 0)
    is_fresh = found.verdict is not None and abs(age_ms) <= STALE_MS  # nor from a time to come
    if is_fresh or found.verdict is None or found.outcome is Outcome.HALT:
        return replace(found, is_fresh=is_fresh)
    return replace(found, reason=f"the evidence is {age_ms / 1000:.0f} s old")


def judgement(window: Window, published: Published, params: Params, now_ms: int) -> Judgement:
    """Return what the evidence of a window says now, all in one."""
    reason = obstacle(window, published)
    if reason:
        return Judgement(reason=reason)
    return aged(judged(window, published, params), published, now_ms)


def current(window: Window, published: Published) -> list[EvidenceCounts]:
    """Return the counts of the window for each key that is alive, with failed calls among them."""
    before = {each.key: each for each in window.before or ()}
    found = {
        key: since(counts, before.get(key, EvidenceCounts(key)))
        for key, counts in _totals(published.parts).items()
    }
    found = {key: counts for key, counts in found.items() if _has_pairs(counts)}
    last_ms = {key: _last_ms(published.parts, key) for key in found}
    whole = [key for key in found if not any(_may_be(key, other) for other in found)]
    if not whole:
        return []
    newest_ms = max(last_ms[key] for key in whole)
    alive = [key for key in whole if newest_ms - last_ms[key] <= RECENT_MS]
    return [
        _with_arms(
            add_up(
                replace(counts, key=key, offsets=())
                for other, counts in found.items()
                if other == key or _may_be(other, key)
            ),
            published.arms,
        )
        for key in alive
    ]


def since(counts: EvidenceCounts, earlier: EvidenceCounts) -> EvidenceCounts:
    """Return what has been counted after `earlier`; the offsets are those of `counts`.

    Raises:
        ValueError: `counts` does not hold all of `earlier`.
    """
    before = {gate.metric: gate for gate in earlier.gates}
    gates = tuple(
        _gate_since(gate, before.pop(gate.metric, GateCounts(gate.metric))) for gate in counts.gates
    )
    if any(_has_counts(gate) for gate in before.values()):
        raise ValueError("a gate was counted earlier and is not any more")
    arms_before = {arm.name: arm.cells for arm in earlier.arms}
    arms = tuple(
        ArmCounts(arm.name, _arm_since(arm.cells, arms_before.get(arm.name, ())))
        for arm in counts.arms
    )
    return replace(counts, gates=gates, arms=arms)


def _verdict(counts: EvidenceCounts, params: Params) -> Verdict:
    """Return the verdict; a broken split and pairs without a difference block a rise, and no fall.

    A candidate that fails gets no more copies (its breaker is open), so most of its pairs have no
    difference, and pairs of one that hangs come late, so that a true split looks broken: what is seen
    of it must halt it all the same. The verdict carries the parameters that it was made by.
    """
    verdict = judge(counts, params)
    if verdict.outcome is not Outcome.NO_DATA:
        return verdict
    gates = tuple(replace(gate, max_missing=1.0) for gate in params.gates)
    seen = judge(replace(counts, arms=()), replace(params, gates=gates))
    return seen if seen.outcome is Outcome.HALT else verdict


def _with_arms(counts: EvidenceCounts, arms: tuple[ArmCounts, ...]) -> EvidenceCounts:
    return replace(counts, arms=(*counts.arms, *arms)) if arms else counts


def _totals(parts: Iterable[Part]) -> dict[EvidenceKey, EvidenceCounts]:
    by_key: dict[EvidenceKey, list[EvidenceCounts]] = {}
    for part in parts:
        by_key.setdefault(part.counts.key, []).append(part.counts)
    return {key: add_up(counts) for key, counts in by_key.items()}


def _last_ms(parts: Sequence[Part], key: EvidenceKey) -> int:
    return max((part.last_ms for part in parts if part.counts.key == key), default=0)


def _may_be(key: EvidenceKey, other: EvidenceKey) -> bool:
    """Return whether pairs of `key`, which says less, may have been of `other`, which says more."""
    if key == other or replace(key, primary_version=None, candidate_version=None) != replace(
        other, primary_version=None, candidate_version=None
    ):
        return False
    return key.primary_version in (None, other.primary_version) and key.candidate_version in (
        None,
        other.candidate_version,
    )


def _has_pairs(counts: EvidenceCounts) -> bool:
    return any(map(_has_counts, counts.gates))


def _has_counts(gate: GateCounts) -> bool:
    return bool(gate.overall.cells or gate.overall.missing)


def _gate_since(gate: GateCounts, earlier: GateCounts) -> GateCounts:
    before = dict(earlier.segments)
    segments = (
        (name, _counts_since(counts, before.pop(name, Counts()))) for name, counts in gate.segments
    )
    kept = tuple((name, counts) for name, counts in segments if counts.cells or counts.missing)
    if before:
        raise ValueError("a segment was counted earlier and is not any more")
    return GateCounts(gate.metric, _counts_since(gate.overall, earlier.overall), kept)


def _counts_since(counts: Counts, earlier: Counts) -> Counts:
    cells = {(weight, difference): count for weight, difference, count in counts.cells}
    for weight, difference, count in earlier.cells:
        left = cells.get((weight, difference), 0) - count
        if left < 0:
            raise ValueError("counts have shrunk")
        cells[weight, difference] = left
    if counts.missing < earlier.missing:
        raise ValueError("counts have shrunk")
    kept = tuple((*cell, count) for cell, count in sorted(cells.items()) if count)
    return Counts(kept, counts.missing - earlier.missing)


def _arm_since(
    cells: tuple[tuple[int, int, int], ...], earlier: tuple[tuple[int, int, int], ...]
) -> tuple[tuple[int, int, int], ...]:
    before = {probability_bp: counts for probability_bp, *counts in earlier}
    found = []
    for probability_bp, hits, misses in cells:
        hits_before, misses_before = before.get(probability_bp, (0, 0))
        found.append((probability_bp, max(0, hits - hits_before), max(0, misses - misses_before)))
    return tuple(cell for cell in found if cell[1] or cell[2])
