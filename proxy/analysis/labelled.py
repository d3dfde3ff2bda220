"""Who is right: pairs joined with their labels by request id, counted.

Decides what a labelled pair says about each side. What is right, `proxy.comparison.correctness`
decides; which label counts, `proxy.analysis.label_store`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from proxy.analysis.label_store import LabelStore
from proxy.analysis.sources import Record
from proxy.analysis.summary import Correctness, proportion
from proxy.comparison.correctness import TOLERANCE, is_right

_PAIRS_END: Final = ".pairs.v1"
_LABELS_END: Final = ".labels.v1"


class Asked(NamedTuple):
    """What of a pair is held against its label."""

    request_id: Any
    comparator: Any
    primary: Any
    candidate: Any


def asked(record: Record) -> Asked:
    """Return what of a pair is held against its label."""
    return Asked(
        record.get("request_id"),
        record.get("comparator"),
        record.get("primary_prediction"),
        record.get("candidate_prediction"),
    )


class LabelledTally:
    """The running counts of one candidate."""

    def __init__(self, store: LabelStore, tolerance: float = TOLERANCE) -> None:
        self._store = store
        self._tolerance = tolerance
        self._labelled = self._unanswered = 0
        self._counts = {(p, c): 0 for p in (True, False) for c in (True, False)}

    def add(self, pairs: Sequence[Asked]) -> None:
        """Count those of `pairs` that have a label."""
        labels = self._store.find([p.request_id for p in pairs if type(p.request_id) is str])
        if not labels:
            return
        for pair in pairs:
            if pair.request_id in labels:
                self._judge(pair, labels[pair.request_id])

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

    def _judge(self, pair: Asked, label: Any) -> None:
        self._labelled += 1
        if pair.primary is None or pair.candidate is None:
            self._unanswered += 1
            return
        sides = (
            is_right(prediction, label, str(pair.comparator), self._tolerance)
            for prediction in (pair.primary, pair.candidate)
        )
        self._counts[next(sides), next(sides)] += 1


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
