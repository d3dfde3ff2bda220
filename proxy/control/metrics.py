"""`GET /metrics`: the workers' counters, the control page and the recorders, for Prometheus.

Counters live in the stats pages and outlive their workers, so they only grow; this module turns a
snapshot of them into metric families when somebody asks. Base units: seconds, bytes, ratios.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.control.auth import REFUSALS
from proxy.control.snapshot import Observer, Snapshot
from proxy.control.status import is_ready
from proxy.state.control_page import CandidateState, Part, RouteState
from proxy.state.kill import ALL_PARTS
from proxy.state.stats_page import LATENCY_BOUNDS_US, families

PREFIX = "understudy_"
#: Families that are told in another form, or that mean nothing summed over workers.
_OTHERWISE = frozenset({"latency_us", "latency_sum_us", "journal_next_seq"})
_FULL_BP = 10_000


def exposition(observer: Observer, accept: str) -> tuple[bytes, str]:
    """Return the metrics in the format that an `Accept` header asks for, and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(observer.snapshot()))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


class _Collected(Collector):
    """A snapshot as a collector."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        """Return every metric family."""
        yield from _workers(self._snapshot)
        yield _latency(self._snapshot)
        yield from _live_state(self._snapshot)
        yield from _processes(self._snapshot)
        yield from _recorders(self._snapshot)


def _workers(snapshot: Snapshot) -> Iterator[Metric]:
    for family in families(snapshot.config):
        if family.name in _OTHERWISE:
            continue
        kind = GaugeMetricFamily if family.is_gauge else CounterMetricFamily
        metric = kind(PREFIX + family.name, family.help, labels=family.labels)
        for values in family.values:
            metric.add_metric(values, snapshot.counters.get((family.name, *values), 0))
        yield metric


def _latency(snapshot: Snapshot) -> Metric:
    metric = HistogramMetricFamily(
        f"{PREFIX}leg_latency_seconds",
        "Latency of a leg from its dispatch to its last byte.",
        labels=("route", "leg"),
    )
    for route in snapshot.config.routes:
        for leg in ("primary", *(candidate.name for candidate in route.candidates)):
            total, buckets = 0, []
            for bound_us in (*LATENCY_BOUNDS_US, None):
                cell = "+Inf" if bound_us is None else str(bound_us)
                total += snapshot.counters.get(("latency_us", route.name, leg, cell), 0)
                bound = "+Inf" if bound_us is None else str(bound_us / 1e6)
                buckets.append((bound, float(total)))
            sum_us = snapshot.counters.get(("latency_sum_us", route.name, leg), 0)
            metric.add_metric((route.name, leg), buckets, sum_us / 1e6)
    return metric


def _live_state(snapshot: Snapshot) -> Iterator[Metric]:
    names = ("route", "candidate")
    weight = GaugeMetricFamily(f"{PREFIX}weight_ratio", "Canary weight, 0 if killed.", labels=names)
    mirror = GaugeMetricFamily(f"{PREFIX}mirror_ratio", "Mirror share, 0 if killed.", labels=names)
    killed = GaugeMetricFamily(
        f"{PREFIX}killed", "1 where a part is killed, by any scope.", labels=(*names, "part")
    )
    for route in snapshot.config.routes:
        for candidate in route.candidates:
            key = (route.name, candidate.name)
            parts, live = ALL_PARTS, CandidateState()  # an unreadable page: primary only
            if snapshot.state is not None:
                parts = snapshot.state.killed_parts(*key)
                states = snapshot.state.routes.get(route.name, RouteState()).candidates
                live = states.get(candidate.name, live)
            weight.add_metric(key, 0 if parts & Part.CANARY else live.weight_bp / _FULL_BP)
            mirror.add_metric(key, 0 if parts & Part.MIRROR else live.mirror_bp / _FULL_BP)
            for part in ALL_PARTS:
                killed.add_metric((*key, str(part.name).lower()), float(bool(parts & part)))
    yield from (weight, mirror, killed)
    yield GaugeMetricFamily(
        f"{PREFIX}control_page_readable",
        "0 when the control page is corrupt and only the primary serves.",
        value=float(snapshot.state is not None),
    )


def _processes(snapshot: Snapshot) -> Iterator[Metric]:
    info = GaugeMetricFamily(f"{PREFIX}build_info", "1.", labels=("version", "config_version"))
    info.add_metric((__version__, snapshot.config.version), 1)
    yield info
    yield GaugeMetricFamily(
        f"{PREFIX}ready", "1 when at least one worker serves.", value=float(is_ready(snapshot))
    )
    refused = CounterMetricFamily(
        f"{PREFIX}admin_refused", "Admin requests refused.", labels=("reason",)
    )
    for reason in REFUSALS:
        refused.add_metric((reason,), snapshot.refused.get(reason, 0))
    yield refused
    up = GaugeMetricFamily(
        f"{PREFIX}process_up", "1 while it runs and does not hang.", labels=("process",)
    )
    restarts = CounterMetricFamily(
        f"{PREFIX}process_restarts", "Restarts since the launcher's start.", labels=("process",)
    )
    started = GaugeMetricFamily(
        f"{PREFIX}process_start_time_seconds",
        "Start, seconds since the epoch.",
        labels=("process",),
    )
    for process in snapshot.processes:
        up.add_metric((process.name,), float(process.is_alive and not process.is_hung))
        restarts.add_metric((process.name,), process.restarts)
        started.add_metric((process.name,), process.started_ms / 1000)
    yield from (up, restarts, started)


#: Key in a recorder's statistics -> metric name and help.
_RECORDER_COUNTERS = {
    "journaled_read": ("recorder_read_pairs", "Pairs read from the journals."),
    "acknowledged": ("recorder_acknowledged_pairs", "Pairs that the sink acknowledged."),
    "unknown_config": ("recorder_unknown_config_pairs", "Pairs expanded by another revision."),
    "skipped_bytes": ("recorder_skipped_bytes", "Corrupt journal bytes skipped."),
    "journal_errors": ("recorder_journal_errors", "Failures to read or commit a journal."),
}
#: `proxy.recorder.sink.Drop`, written again because control does not import the recorder: a rate
#: needs the zero before the first drop.
DROP_REASONS = ("rejected", "too_large", "journal_full")


def _recorders(snapshot: Snapshot) -> Iterator[Metric]:
    label = ("recorder",)
    counters = {
        key: CounterMetricFamily(PREFIX + name, text, labels=label)
        for key, (name, text) in _RECORDER_COUNTERS.items()
    }
    dropped = CounterMetricFamily(
        f"{PREFIX}recorder_dropped_pairs", "Pairs given up.", labels=("recorder", "reason")
    )
    state = GaugeMetricFamily(
        f"{PREFIX}recorder_state", "1 for the state of the sink.", labels=("recorder", "state")
    )
    gauges: dict[str, GaugeMetricFamily] = {}
    for name, text in (
        ("recorder_backlog_bytes", "Journaled bytes not acknowledged yet."),
        ("recorder_statistics_age_seconds", "How old the recorder's numbers are."),
    ):
        gauges[name] = GaugeMetricFamily(PREFIX + name, text, labels=label)
    for number, recorder in enumerate(snapshot.recorders):
        index, known = (str(number),), recorder or {}
        for key, counter in counters.items():
            counter.add_metric(index, known.get(key, 0))
        drops = {**dict.fromkeys(DROP_REASONS, 0), **known.get("dropped", {})}
        for reason, count in drops.items():
            dropped.add_metric((*index, reason), count)
        if recorder is None:
            continue
        state.add_metric((*index, str(recorder.get("state", "unknown"))), 1)
        age_s = (snapshot.now_ms - recorder.get("updated_ms", 0)) / 1000
        gauges["recorder_statistics_age_seconds"].add_metric(index, age_s)
        gauges["recorder_backlog_bytes"].add_metric(index, recorder.get("backlog_bytes", 0))
    yield from (*counters.values(), dropped, state, *gauges.values())
