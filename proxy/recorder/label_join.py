"""Pairs that wait for their labels, and labels for their pairs, so that a ramp may judge correctness.

It decides which pair a label says something about, and for how long either waits: as long as both
fit into a bounded memory, the oldest first out. A pair begins to wait when it is delivered, and what
its label says is added to the counts of the journal that it came from, which are committed with that
journal's position; so nothing counts twice, whatever dies. A recorder that dies forgets who waited:
these pairs are then without a label, as all are that are labelled too late. `understudy compare`
reads labels of any age.

Of several labels of one request the first one counts here: evidence is not taken back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from proxy.comparison.correctness import is_right
from proxy.comparison.evidence import (
    Evidence,
    EvidenceKey,
    KeyFields,
    Params,
    segment_names,
)
from proxy.comparison.gates import Metric, correctness
from proxy.pairs.label import Label

if TYPE_CHECKING:
    from proxy.recorder.evidence import JournalEvidence

#: Of predictions that wait, and of labels; some 60,000 small pairs, and 30,000 labels.
PAIR_BYTES: Final = 32 * 1024 * 1024
LABEL_BYTES: Final = 8 * 1024 * 1024
#: What a pair and a label take beside their JSON.
_PAIR_OVERHEAD: Final = 450
_LABEL_OVERHEAD: Final = 250
#: Labels on their way from the thread that ships them; taken twice a second.
_MAX_ARRIVING: Final = 100_000


class Waiting(NamedTuple):
    """What of a pair is held against its label.

    Attributes:
        predictions: of both sides, as JSON: [primary, candidate].
    """

    request_id: str
    fields: KeyFields
    ts_ms: int
    sample_prob: float
    segments: tuple[str, ...]
    comparator: str
    predictions: bytes


def waiting_of(record: Mapping[str, Any], fields: KeyFields) -> Waiting:
    """Return what of a pair waits, `fields` being those of its key."""
    predictions = record["primary_prediction"], record["candidate_prediction"]
    return Waiting(
        record["request_id"],
        fields,
        record["ts_ms"],
        record["sample_prob"],
        tuple(segment_names(record)),
        record["comparator"],
        orjson.dumps(predictions),
    )


def wants_labels(params: Params) -> bool:
    """Return whether a ramp judges who is right."""
    return any(gate.metric is Metric.CORRECTNESS for gate in params.gates)


class LabelJoin:
    """Joins the pairs of one recorder with their labels.

    Args:
        params: how each candidate is judged, by route and candidate.
        pair_bytes: for pairs that wait.
        label_bytes: for labels that have come.

    Attributes:
        joined: pairs that met their label.
        given_up: pairs that made room for newer ones.
    """

    def __init__(
        self,
        params: Mapping[tuple[str, str], Params],
        pair_bytes: int = PAIR_BYTES,
        label_bytes: int = LABEL_BYTES,
    ) -> None:
        self.joined = self.given_up = 0
        self._params = params
        self._arriving: deque[Label] = deque(maxlen=_MAX_ARRIVING)
        self._pairs: dict[str, list[tuple[Waiting, JournalEvidence]]] = {}
        self._labels: dict[str, bytes] = {}
        self._pair_bytes = self._label_bytes = 0
        self._limits = pair_bytes, label_bytes

    def arrive(self, labels: Iterable[Label]) -> None:
        """Take labels that are shipped; they count with the next `settle`. For any thread."""
        self._arriving.extend(labels)

    def offer(self, pairs: Iterable[Waiting], evidence: JournalEvidence) -> None:
        """Count the pairs whose label has come, and let the others wait.

        Args:
            pairs: that have been delivered, of one journal.
            evidence: of this journal.
        """
        found: list[tuple[Waiting, JournalEvidence, bytes]] = []
        for pair in pairs:
            label = self._labels.get(pair.request_id)
            if label is not None:
                found.append((pair, evidence, label))
                continue
            self._pairs.setdefault(pair.request_id, []).append((pair, evidence))
            self._pair_bytes += _size(pair)
        while self._pair_bytes > self._limits[0]:
            dropped = self._pairs.pop(next(iter(self._pairs)))
            self.given_up += len(dropped)
            self._pair_bytes -= sum(_size(pair) for pair, _ in dropped)
        self._count(found)

    def settle(self) -> None:
        """Count the pairs whose label has arrived since."""
        found: list[tuple[Waiting, JournalEvidence, bytes]] = []
        while self._arriving:
            label = self._arriving.popleft()
            for pair, evidence in self._pairs.pop(label.request_id, ()):
                self._pair_bytes -= _size(pair)
                found.append((pair, evidence, label.value))
            self._keep(label)
        self._count(found)

    def statistics(self) -> dict[str, int]:
        """Return how many pairs met their label, gave up, and wait."""
        return {"joined": self.joined, "given_up": self.given_up, "waiting": len(self._pairs)}

    def _keep(self, label: Label) -> None:
        """Keep a label for pairs that are yet to come; of the same request, the first."""
        if label.request_id in self._labels:
            return
        self._labels[label.request_id] = label.value
        self._label_bytes += len(label.value) + _LABEL_OVERHEAD
        while self._label_bytes > self._limits[1]:
            dropped = self._labels.pop(next(iter(self._labels)))
            self._label_bytes -= len(dropped) + _LABEL_OVERHEAD

    def _count(self, found: list[tuple[Waiting, JournalEvidence, bytes]]) -> None:
        """Add what labels say of pairs to the counts of their journals."""
        by_place: dict[tuple[int, KeyFields], list[tuple[Waiting, JournalEvidence, bytes]]] = {}
        for each in found:
            by_place.setdefault((id(each[1]), each[0].fields), []).append(each)
        for (_, fields), same in by_place.items():
            evidence = Evidence(self._params[fields[1], fields[2]])
            for pair, _, label in same:
                value = _difference(pair, orjson.loads(label)["label"])
                evidence.note_label(fields, value, pair.sample_prob, pair.segments)
            last_ms = max(pair.ts_ms for pair, *_ in same)
            same[0][1].add([(evidence.counts(EvidenceKey(*fields)), last_ms)])
        self.joined += len(found)


def _size(pair: Waiting) -> int:
    return len(pair.predictions) + _PAIR_OVERHEAD


def _difference(pair: Waiting, label: Any) -> float | None:
    """Return the loss difference of a labelled pair; None where a side did not answer."""
    primary, candidate = orjson.loads(pair.predictions)
    if primary is None or candidate is None:
        return None
    return correctness(
        candidate_wrong=not is_right(candidate, label, pair.comparator),
        primary_wrong=not is_right(primary, label, pair.comparator),
    )
