"""What the workers have counted, all together and a few things for each, as metrics."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.metrics_core import Metric

from proxy.control.snapshot import Snapshot
from proxy.control.worker_pages import OPEN_BY_WORKER, PER_WORKER
from proxy.state.stats_page import GUARD_NOTE, JOURNALED_BEFORE, LATENCY_BOUNDS_US, families

PREFIX = "understudy_"
#: Notes of a worker to its successor, and to the ledger.
_UNTOLD = frozenset({"pairs_flushing", JOURNALED_BEFORE, GUARD_NOTE})
#: Families of histograms, which are told in another form.
_CELLS = "_us"


def worker_metrics(snapshot: Snapshot) -> Iterator[Metric]:
    """Tell every counter, gauge and histogram of the stats pages."""
    yield from _families(snapshot)
    yield _open_by_worker(snapshot)
    yield from _histograms(snapshot)


def _families(snapshot: Snapshot) -> Iterator[Metric]:
    for family in families(snapshot.config):
        if family.name in _UNTOLD or family.name.endswith(_CELLS):
            continue
        kind = GaugeMetricFamily if family.is_gauge else CounterMetricFamily
        metric = kind(PREFIX + family.name, family.help, labels=family.labels)
        for values in family.values:
            metric.add_metric(values, snapshot.counters.get((family.name, *values), 0))
        yield metric


def _open_by_worker(snapshot: Snapshot) -> Metric:
    by_worker = GaugeMetricFamily(
        PREFIX + OPEN_BY_WORKER,
        "Client connections that a worker has open now.",
        labels=("worker",),
    )
    for index in range(snapshot.config.workers):
        by_worker.add_metric((str(index),), snapshot.counters.get((OPEN_BY_WORKER, str(index)), 0))
    return by_worker


def _histograms(snapshot: Snapshot) -> Iterator[Metric]:
    legs = [
        (route.name, leg)
        for route in snapshot.config.routes
        for leg in ("primary", *(candidate.name for candidate in route.candidates))
    ]
    workers = [(str(index),) for index in range(snapshot.config.workers)]
    for name, family, text, labels, keys in (
        ("leg_latency", "latency", "A leg from its dispatch to its last byte.", ("route", "leg"), legs),
        ("leg_first_byte", "ttfb", "A leg from its dispatch to the head of its answer.",
         ("route", "leg"), legs),
        ("event_loop_lag", "loop_lag", "How late a worker's event loop was, looked at 20 times a second.",
         ("worker",), workers),
    ):  # fmt: skip
        metric = HistogramMetricFamily(f"{PREFIX}{name}_seconds", text, labels=labels)
        for key in keys:
            buckets, sum_s = _histogram(snapshot, family, key)
            metric.add_metric(key, buckets, sum_s)
        yield metric


def _histogram(
    snapshot: Snapshot, family: str, key: tuple[str, ...]
) -> tuple[list[tuple[str, float]], float]:
    """Return the cumulative buckets and the sum, in seconds, of one histogram."""
    # A worker's number comes last in its keys: `proxy.control.worker_pages.PER_WORKER`.
    before, after = ((), key) if f"{family}_us" in PER_WORKER else (key, ())
    total, buckets = 0, []
    for bound_us in (*LATENCY_BOUNDS_US, None):
        cell, bound = ("+Inf",) * 2 if bound_us is None else (str(bound_us), str(bound_us / 1e6))
        total += snapshot.counters.get((f"{family}_us", *before, cell, *after), 0)
        buckets.append((bound, float(total)))
    return buckets, snapshot.counters.get((f"{family}_sum_us", *key), 0) / 1e6
