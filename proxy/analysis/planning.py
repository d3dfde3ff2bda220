"""From a plan's numbers to pairs and hours: what is asked, what recorded pairs say, what comes of it.

Decides which true differences are tried and how pairs become hours. How long the evidence takes is
`proxy.comparison.plan`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from proxy.analysis.rows import fault_of
from proxy.analysis.source import Record
from proxy.comparison.gates import Metric, difference, is_offered
from proxy.comparison.plan import Forecast, Trial, forecast
from proxy.errors import SourceError, UnderstudyError

#: So that the same question gets the same answer.
SEED: Final = 20_260_101
#: Times the margin: candidates that should be halted, and how far they are off.
HARMS: Final = (2.0, 3.0)
#: Candidates that an error names.
_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class Assumed:
    """What the operator says; None: as recorded, or not known.

    Attributes:
        margin: of the gate.
        disagreement: share of pairs whose difference is not 0.
        rate: requests per second of the route.
        mirror: share of them that is mirrored.
        replicate: share of the pairs that the gate looks at.
        difference: true mean of the difference; None: 0, and the recorded one beside it.
        harms: further ones, that should be halted; empty: some times the margin.
        max_pairs: after which an experiment is given up.
    """

    margin: float
    disagreement: float | None
    rate: float | None
    mirror: float
    replicate: float
    difference: float | None
    harms: tuple[float, ...]
    max_pairs: int


@dataclass(frozen=True, slots=True)
class Question:
    """What a plan is made for.

    Attributes:
        margin: of the gate.
        disagreement: share of pairs whose difference is not 0, in [0, 1].
        pairs_per_s: that give a difference; 0: not known, so no hours are said.
        differences: true means of the difference that are tried.
        max_pairs: after which an experiment is given up.
    """

    margin: float
    disagreement: float
    pairs_per_s: float
    differences: tuple[float, ...]
    max_pairs: int


@dataclass(frozen=True, slots=True)
class Recorded:
    """What recorded pairs say about the agreement gate.

    Attributes:
        pairs: that give a difference.
        disagreement: share of them whose difference is not 0.
        difference: mean of their differences.
        pairs_per_s: that give a difference.
        has_noise_floor: differences are less the primary's own noise, from replicates.
    """

    pairs: int
    disagreement: float
    difference: float
    pairs_per_s: float
    has_noise_floor: bool


@dataclass(slots=True)
class _Sums:
    """Sums over the pairs that an agreement gate looks at."""

    pairs: int = 0
    different: int = 0
    total: float = 0.0

    def add(self, record: Record, *, has_noise_floor: bool) -> None:
        if not is_offered(Metric.AGREEMENT, record, has_noise_floor=has_noise_floor):
            return
        value = difference(Metric.AGREEMENT, record, has_noise_floor=has_noise_floor, budget_s=0.0)
        if value is not None:
            self.pairs += 1
            self.different += value != 0
            self.total += value


def measure(records: Iterable[Record]) -> Recorded:
    """Return what `records` say; where some have a replicate, by these alone, as the gate does.

    Raises:
        SourceError: no pair gives a difference, or they are of several candidates.
    """
    plain, less_noise = _Sums(), _Sums()
    names: set[str] = set()
    first_ms = last_ms = None
    for record in records:
        if fault_of(record) is not None or "replicate_status" not in record:
            continue
        if len(names) < _NAMED:
            names.add(f"{record['route']}/{record['candidate']}")
        ts_ms = record["ts_ms"]
        first_ms = ts_ms if first_ms is None else min(first_ms, ts_ms)
        last_ms = ts_ms if last_ms is None else max(last_ms, ts_ms)
        plain.add(record, has_noise_floor=False)
        less_noise.add(record, has_noise_floor=True)
    if len(names) > 1:
        raise SourceError(
            f"there are pairs of {', '.join(sorted(names))}: say which by --route and --candidate"
        )
    sums = less_noise if less_noise.pairs else plain
    if not sums.pairs or first_ms is None or last_ms is None:
        raise SourceError("no comparable pair to plan by: say --disagreement and --rate instead")
    span_s = (last_ms - first_ms) / 1000
    return Recorded(
        pairs=sums.pairs,
        disagreement=sums.different / sums.pairs,
        difference=sums.total / sums.pairs,
        pairs_per_s=sums.pairs / span_s if span_s else 0.0,
        has_noise_floor=bool(less_noise.pairs),
    )


def question_of(assumed: Assumed, recorded: Recorded | None) -> Question:
    """Return what to simulate: what is assumed, and else what is recorded.

    Raises:
        UnderstudyError: a number is out of range, or nobody says how many pairs differ.
    """
    disagreement, pairs_per_s = assumed.disagreement, None
    if assumed.rate is not None:
        pairs_per_s = assumed.rate * assumed.mirror * assumed.replicate
    differences = [assumed.difference or 0.0]
    if recorded is not None:
        disagreement = recorded.disagreement if disagreement is None else disagreement
        pairs_per_s = recorded.pairs_per_s if pairs_per_s is None else pairs_per_s
        if assumed.difference is None:
            differences.append(round(recorded.difference, 4))
    differences += assumed.harms or [assumed.margin * times for times in HARMS]
    if not 0.0 < assumed.margin < 1.0:
        raise UnderstudyError(f"--margin {assumed.margin:g}: a margin is between 0 and 1")
    if disagreement is None:
        raise UnderstudyError(
            "say --disagreement, such as 4%, or --from SOURCE with recorded pairs"
        )
    beyond = [each for each in (assumed.difference or 0.0, *assumed.harms) if not -1 <= each <= 1]
    if beyond:
        raise UnderstudyError(f"a difference of {beyond[0]:g} is outside -1 to 1")
    return Question(
        margin=assumed.margin,
        disagreement=disagreement,
        pairs_per_s=pairs_per_s or 0.0,
        differences=tuple(each for each in dict.fromkeys(differences) if -1 <= each <= 1),
        max_pairs=assumed.max_pairs,
    )


def answer(question: Question) -> tuple[Forecast, ...]:
    """Return a forecast for each difference of `question`, always the same.

    A difference takes at least as many pairs that differ, so where it is greater than the disagreement
    that is raised to it.
    """
    return tuple(
        forecast(
            Trial(
                difference=each,
                disagreement=max(question.disagreement, abs(each)),
                margin=question.margin,
                max_pairs=question.max_pairs,
            ),
            np.random.default_rng([SEED, number]),
        )
        for number, each in enumerate(question.differences)
    )
