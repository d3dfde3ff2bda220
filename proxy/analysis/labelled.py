"""Who is right: pairs joined with their labels by request id, counted.

Decides what a labelled pair says about each side. What is right, `proxy.comparison.correctness`
decides; which label counts, `proxy.analysis.label_store`.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from proxy.analysis.batch import COMPARATOR, SAMPLE_PROB, ToLabel, version_of
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
        pairs: ToLabel,
        judged: JudgedTally,
        store: LabelStore,
        tolerance: float = TOLERANCE,
    ) -> None:
        """Count those of `pairs` that have a label in `store`, also as evidence in `judged`."""
        texts = store.texts([each for each in pairs.request_ids if type(each) is str])
        if not texts:
            return
        for each, count in _alike(pairs, texts).items():
            counted = pairs.counted.values[each.counted]
            predictions = pairs.primary.values[each.primary], pairs.candidate.values[each.candidate]
            held = _Held(*predictions, orjson.loads(each.label), str(counted[COMPARATOR]))
            value = self._judge(held, tolerance, count)
            segments = pairs.segments.values[each.segments]
            evidence = judged.of(version_of(counted))
            evidence.add_label(value, counted[SAMPLE_PROB], segments, count)

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

    def _judge(self, held: _Held, tolerance: float, count: int) -> float | None:
        """Count pairs alike; return their loss difference, None where a side did not answer."""
        self._labelled += count
        if held.primary is None or held.candidate is None:
            self._unanswered += count
            return None
        predictions = held.primary, held.candidate
        primary, candidate = (
            is_right(prediction, held.label, held.comparator, tolerance)
            for prediction in predictions
        )
        self._counts[primary, candidate] += count
        for scores, prediction in zip(self._scores, predictions, strict=True):
            scores.add(prediction, held.label, count)
        return difference_of(candidate_wrong=not candidate, primary_wrong=not primary)


class _Alike(NamedTuple):
    """Codes of what pairs have in common, and the JSON of their label."""

    counted: int
    primary: int
    candidate: int
    segments: int
    label: bytes


class _Held(NamedTuple):
    """Two predictions, held against a label."""

    primary: Any
    candidate: Any
    label: Any
    comparator: str


def _alike(pairs: ToLabel, texts: dict[str, bytes]) -> Counter[_Alike]:
    """Return how many of `pairs` have a label, those alike together: each kind is judged once."""
    ids = pairs.request_ids
    rows = [row for row, each in enumerate(ids) if type(each) is str and each in texts]
    columns = pairs.counted, pairs.primary, pairs.candidate, pairs.segments
    codes = (column.codes[rows].tolist() for column in columns)
    found = Counter(zip(*codes, (texts[ids[row]] for row in rows), strict=True))
    return Counter({_Alike(*each): count for each, count in found.items()})


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
