"""Whether scores mean what they say: of the predictions with score 0.8, are 80% right?

A score is the greatest of a vector of scores, held against the label it stands for; or one number in
[0, 1] where the label is 0 or 1 (or false or true), held against that. Tenths are counted, and the
Brier score (G. W. Brier, 1950): the mean of (score - outcome) squared. Vectors that are no
probabilities (logits) have none. Pure.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.analysis.findings import Calibration, CalibrationBin, SideCalibration
from proxy.analysis.predictions import greatest, single

BINS: Final = 10
_NUMBERS: Final = frozenset({int, float})


class ScoreTally:
    """Scores of one side and what became of them, in tenths."""

    def __init__(self) -> None:
        self._counts = [0] * BINS
        self._scores = [0.0] * BINS
        self._right = [0] * BINS
        self._brier = 0.0

    def add(self, prediction: Any, label: Any, pairs: int = 1) -> None:
        """Count a labelled prediction, of `pairs` alike, if it is a score."""
        found = scored(prediction, label)
        if found is None:
            return
        score, is_right = found
        place = min(int(score * BINS), BINS - 1)
        self._counts[place] += pairs
        self._scores[place] += score * pairs
        self._right[place] += is_right * pairs
        self._brier += (score - is_right) ** 2 * pairs

    def merge(self, other: ScoreTally) -> None:
        """Count everything that `other` has counted."""
        for place in range(BINS):
            self._counts[place] += other._counts[place]
            self._scores[place] += other._scores[place]
            self._right[place] += other._right[place]
        self._brier += other._brier

    def calibration(self) -> SideCalibration:
        """Return what has been counted so far."""
        total = sum(self._counts)
        gaps = (abs(s - r) for s, r in zip(self._scores, self._right, strict=True))
        return SideCalibration(
            n=total,
            brier=self._brier / total if total else None,
            ece=sum(gaps) / total if total else None,
            bins=tuple(self._bin(place) for place in range(BINS)),
        )

    def _bin(self, place: int) -> CalibrationBin:
        count = self._counts[place]
        return CalibrationBin(
            low=place / BINS,
            high=(place + 1) / BINS,
            n=count,
            mean_score=self._scores[place] / count if count else None,
            right=self._right[place] / count if count else None,
        )


def calibration_of(primary: ScoreTally, candidate: ScoreTally) -> Calibration | None:
    """Return both sides; None where neither has scores."""
    found = Calibration(primary.calibration(), candidate.calibration())
    return found if found.primary.n or found.candidate.n else None


def scored(prediction: Any, label: Any) -> tuple[float, bool] | None:
    """Return the score that a prediction gives and whether it came true; None without a score."""
    prediction, label = single(prediction), single(label)
    if type(prediction) is list:
        place = greatest(prediction)
        if place is None or type(label) is not int or not min(prediction) >= 0.0:
            return None
        score = prediction[place]
        return (float(score), label == place) if 0.0 <= score <= 1.0 else None
    if type(prediction) is not float or type(label) not in (int, bool) or label not in (0, 1):
        return None
    return (prediction, label == 1) if 0.0 <= prediction <= 1.0 else None
