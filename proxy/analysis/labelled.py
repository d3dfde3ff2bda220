"""Who is right: pairs joined with their labels by request id, counted.

Decides what a labelled pair says about each side. What is right, `proxy.comparison.correctness`
decides; which label counts, `proxy.analysis.label_store`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from proxy.analysis.batch import Labelled
from proxy.analysis.calibration import ScoreTally, calibration_of
from proxy.analysis.findings import Calibration
from proxy.analysis.judged import JudgedTally
from proxy.analysis.label_store import LabelStore
from proxy.analysis.proportions import Correctness, proportion
from proxy.comparison.correctness import TOLERANCE, is_right
from proxy.comparison.gates import correctness as difference_of

_PAIRS_END: Final = ".pairs.v1"
_LABELS_END: Final = ".labels.v1"


class LabelledTally:
    """The running counts of one candidate."""

    def __init__(self) -> None:
        self._labelled = self._unanswered = 0
        self._counts = {(p, c): 0 for p in (True, False) for c in (True, False)}
        self._scores = ScoreTally(), ScoreTally()

    def add(
        self,
        pairs: Sequence[Labelled],
        judged: JudgedTally,
        store: LabelStore,
        tolerance: float = TOLERANCE,
    ) -> None:
        """Count those of `pairs` that have a label in `store`, also as evidence in `judged`."""
        labels = store.find([p.request_id for p in pairs if type(p.request_id) is str])
        if not labels:
            return
        for pair in pairs:
            if pair.request_id in labels:
                value = self._judge(pair, labels[pair.request_id], tolerance)
                judged.of(pair.version).add_label(value, pair.sample_prob, pair.segments)

    def merge(self, other: LabelledTally) -> None:
        """Count everything that `other` has counted."""
        self._labelled += other._labelled
        self._unanswered += other._unanswered
        for who, count in other._counts.items():
            self._counts[who] += count
        for mine, theirs in zip(self._scores, other._scores, strict=True):
            mine.merge(theirs)

    def calibration(self) -> Calibration | None:
        """Return whether the scores of both sides mean what they say; None without scores."""
        return calibration_of(*self._scores)

    def correctness(self) -> Correctness:
        """Return what has been counted so far."""
        counts = self._counts
        both, neither = counts[True, True], counts[False, False]
        only_primary, only_candidate = counts[True, False], counts[False, True]
        judged = both + neither + only_primary + only_candidate
        return Correctness(
            labelled=self._labelled,
            unanswered=self._unanswered,
            both=both,
            only_primary=only_primary,
            only_candidate=only_candidate,
            neither=neither,
            primary=proportion(both + only_primary, judged),
            candidate=proportion(both + only_candidate, judged),
        )

    def _judge(self, pair: Labelled, label: Any, tolerance: float) -> float | None:
        """Count a labelled pair; return its loss difference, None where a side did not answer."""
        self._labelled += 1
        if pair.primary is None or pair.candidate is None:
            self._unanswered += 1
            return None
        predictions = pair.primary, pair.candidate
        primary, candidate = (
            is_right(prediction, label, str(pair.comparator), tolerance)
            for prediction in predictions
        )
        self._counts[primary, candidate] += 1
        for scores, prediction in zip(self._scores, predictions, strict=True):
            scores.add(prediction, label)
        return difference_of(candidate_wrong=not candidate, primary_wrong=not primary)


def labels_beside(source: str) -> str | None:
    """Return where the labels of the pairs in `source` would be, None where that is not known.

    Beside `PREFIX.pairs.v1` in a topic that is called likewise, beside the folder `pairs` in
    `labels`. Whether there are any is for whoever opens it to see.
    """
    if source.startswith("kafka://"):
        is_ours = source.endswith(_PAIRS_END)
        return source.removesuffix(_PAIRS_END) + _LABELS_END if is_ours else None
    if "://" in source:
        return None
    path = Path(source)
    for folder in (path / "labels", path.parent / "labels" if path.name == "pairs" else None):
        if folder is not None and folder.is_dir():
            return str(folder)
    return None
