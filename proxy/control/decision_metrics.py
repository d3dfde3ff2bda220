"""The decisions log as metrics: how many were written, and what became of them on their way to Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from proxy.control.snapshot import Snapshot

#: Why decisions are not in their topic: of `proxy.recorder.sink.Drop`, those that can happen.
DECISION_DROPS: Final = ("journal_full", "damaged", "too_large", "refused")


def decision_metrics(snapshot: Snapshot) -> Iterator[Metric]:
    """Tell what became of decisions; the counters outlive every process."""
    told = snapshot.decisions
    yield CounterMetricFamily(
        "understudy_decisions_written", "Decisions in the log.", value=told.get("written", 0)
    )
    yield CounterMetricFamily(
        "understudy_decisions_acknowledged",
        "Decisions that their topic has acknowledged.",
        value=told.get("acknowledged", 0),
    )
    dropped = CounterMetricFamily(
        "understudy_decisions_dropped",
        "Decisions that never reach their topic.",
        labels=("reason",),
    )
    for reason, count in {**dict.fromkeys(DECISION_DROPS, 0), **told.get("dropped", {})}.items():
        dropped.add_metric((reason,), count)
    yield dropped
    yield GaugeMetricFamily(
        "understudy_decisions_in_memory",
        "Decisions that wait in control's memory for the disk.",
        value=told.get("in_memory", 0),
    )
