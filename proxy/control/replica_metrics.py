"""How an instance stands among its replicas, as metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import (
    GaugeMetricFamily,
)
from prometheus_client.metrics_core import Metric

from proxy.control.replica_status import STATES, standing
from proxy.control.snapshot import Snapshot


def replica_metrics(snapshot: Snapshot) -> Iterator[Metric]:
    """Tell the state, the lead, and how many live."""
    found = standing(snapshot)
    state = GaugeMetricFamily(
        "understudy_replica_state", "1 for how it stands among its replicas.", labels=("state",)
    )
    for word in STATES:
        state.add_metric((word,), float(found["state"] == word))
    yield state
    yield GaugeMetricFamily(
        "understudy_replica_leads",
        "1 while it decides the ramps of all.",
        float(found.get("leads", False)),
    )
    yield GaugeMetricFamily(
        "understudy_replicas_living", "Replicas that it hears, itself included.",
        float(sum(each["lives"] for each in found["replicas"])),
    )  # fmt: skip
