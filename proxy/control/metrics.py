"""`GET /metrics`: the workers' counters, the control page and the recorders, for Prometheus.

Counters live in the stats pages and outlive their workers, so they only grow; this module turns a
snapshot of them into metric families when somebody asks. Base units: seconds, bytes, ratios.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from proxy import __version__
from proxy.control.auth import REFUSALS
from proxy.control.candidate_facts import ejection_of, ramp_of
from proxy.control.decision_metrics import decision_metrics
from proxy.control.ledger import imbalances, ledger, retained
from proxy.control.reload import Result
from proxy.control.replica_metrics import replica_metrics
from proxy.control.snapshot import Observer, Snapshot
from proxy.control.status import is_ready
from proxy.control.worker_metrics import worker_metrics
from proxy.ramp.phases import Phase
from proxy.state.control_page import CandidateState, Part, RouteState
from proxy.state.kill import ALL_PARTS

PREFIX = "understudy_"
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
        yield from worker_metrics(self._snapshot)
        yield from _live_state(self._snapshot)
        yield from _ramps(self._snapshot)
        yield from _instance(self._snapshot)
        yield from _config(self._snapshot)
        yield from replica_metrics(self._snapshot)
        yield from _processes(self._snapshot)
        yield from _usage(self._snapshot)
        yield from _recorders(self._snapshot)
        yield from _labels(self._snapshot)
        yield from decision_metrics(self._snapshot)
        yield from _ledger(self._snapshot)


def _live_state(snapshot: Snapshot) -> Iterator[Metric]:
    names = ("route", "candidate")
    weight = GaugeMetricFamily(f"{PREFIX}weight_ratio", "Canary weight, 0 if killed.", labels=names)
    mirror = GaugeMetricFamily(f"{PREFIX}mirror_ratio", "Mirror share, 0 if killed.", labels=names)
    killed = GaugeMetricFamily(
        f"{PREFIX}killed", "1 where a part is killed, by any scope.", labels=(*names, "part")
    )
    ejected, latency = (
        GaugeMetricFamily(PREFIX + name, text, labels=names)
        for name, text in (
            ("guard_ejected", "1 while a guard keeps the candidate out of live traffic."),
            (
                "guard_latency_seconds",
                "Time to first byte above which a call is too slow; 0: none.",
            ),
        )
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
            ejected.add_metric(key, float(ejection_of(snapshot, *key) is not None))
            allowed_us = snapshot.counters.get(("guard_latency_us", *key), 0)
            latency.add_metric(key, allowed_us / 1e6)
    yield from (weight, mirror, killed, ejected, latency)
    yield GaugeMetricFamily(
        f"{PREFIX}control_page_readable",
        "0 when the control page is corrupt and only the primary serves.",
        value=float(snapshot.state is not None),
    )


#: `proxy.ramp.phases.Phase`, in its order.
PHASES = tuple(Phase)


def _ramps(snapshot: Snapshot) -> Iterator[Metric]:
    """Tell where each ramp of the config is."""
    names = ("route", "candidate")
    phase = GaugeMetricFamily(
        f"{PREFIX}ramp_phase", "1 for the phase of a ramp, else 0.", labels=(*names, "phase")
    )
    step, pairs, fresh = (
        GaugeMetricFamily(PREFIX + name, text, labels=names)
        for name, text in (
            ("ramp_step", "Step of a ramp, 0 before the first."),
            ("ramp_pairs", "Pairs that every gate has seen in this step."),
            ("ramp_evidence_fresh", "1 while the evidence of this step may raise the weight."),
        )
    )
    for route in snapshot.config.routes:
        for candidate in route.candidates if route.ramp is not None else ():
            key = (route.name, candidate.name)
            told = ramp_of(snapshot, *key)
            for each in PHASES:
                phase.add_metric((*key, each), float(told["phase"] == each))
            step.add_metric(key, told["step"])
            pairs.add_metric(key, told["pairs"])
            fresh.add_metric(key, float(bool(told.get("is_fresh"))))
    yield from (phase, step, pairs, fresh)


def _instance(snapshot: Snapshot) -> Iterator[Metric]:
    version = {"version": __version__, "config_version": snapshot.config.version}
    yield InfoMetricFamily(f"{PREFIX}build", "What runs: 1.", value=version)
    yield GaugeMetricFamily(
        f"{PREFIX}ready", "1 when at least one worker serves.", value=float(is_ready(snapshot))
    )
    refused = CounterMetricFamily(
        f"{PREFIX}admin_refused", "Admin requests refused.", labels=("reason",)
    )
    for reason in REFUSALS:
        refused.add_metric((reason,), snapshot.refused.get(reason, 0))
    yield refused


def _config(snapshot: Snapshot) -> Iterator[Metric]:
    """Tell of reloads as Prometheus does of its own."""
    reloads = snapshot.reloads
    counter = CounterMetricFamily(
        f"{PREFIX}config_reload", "Reloads since control's start.", labels=("result",)
    )
    for result in Result:
        counter.add_metric((result,), reloads.counts.get(result, 0))
    yield counter
    yield GaugeMetricFamily(
        f"{PREFIX}config_valid",
        "0 when the config file as it is now was refused, and the one of before stays.",
        value=float(not reloads.refused),
    )
    yield GaugeMetricFamily(
        f"{PREFIX}config_last_reload_success_timestamp_seconds",
        "When the config that runs was put in place, seconds since the epoch.",
        value=reloads.loaded_ms / 1000,
    )
    if snapshot.state is not None:
        revision = GaugeMetricFamily(
            f"{PREFIX}config_revision",
            "Revision of the config: of the instance, and that each worker runs.",
            labels=("process",),
        )
        revision.add_metric(("control",), snapshot.state.config_revision)
        for index, found in snapshot.revisions.items():
            revision.add_metric((f"worker {index}",), found)
        yield revision


def _processes(snapshot: Snapshot) -> Iterator[Metric]:
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


def _usage(snapshot: Snapshot) -> Iterator[Metric]:
    """Tell what each process uses, by the names that Prometheus' client libraries have for it."""
    label = ("process",)
    cpu = CounterMetricFamily(
        f"{PREFIX}process_cpu_seconds", "User and system time of the running process.", labels=label
    )
    resident = GaugeMetricFamily(
        f"{PREFIX}process_resident_memory_bytes", "Resident memory, shared pages included.",
        labels=label,
    )  # fmt: skip
    queued = CounterMetricFamily(
        f"{PREFIX}process_cpu_wait_seconds", "Time that its main thread has waited for a processor.",
        labels=label,
    )  # fmt: skip
    files = GaugeMetricFamily(f"{PREFIX}process_open_fds", "Open file descriptors.", labels=label)
    for name, used in snapshot.usage.items():
        cpu.add_metric((name,), used.cpu_s)
        resident.add_metric((name,), used.resident_bytes)
        if used.open_files is not None:
            files.add_metric((name,), used.open_files)
        if used.queued_s is not None:
            queued.add_metric((name,), used.queued_s)
    yield from (cpu, queued, resident, files)


def _ledger(snapshot: Snapshot) -> Iterator[Metric]:
    under_way = GaugeMetricFamily(
        f"{PREFIX}ledger_under_way",
        "What a line of the ledger has not settled.",
        labels=("account",),
    )
    for account in ledger(snapshot):
        under_way.add_metric((account.name,), account.open)
    yield under_way
    yield GaugeMetricFamily(
        f"{PREFIX}ledger_unbalanced_lines",
        "Lines of the ledger that do not add up.",
        value=len(imbalances(snapshot)),
    )
    if (waiting := retained(snapshot)) is not None:
        yield GaugeMetricFamily(
            f"{PREFIX}pairs_retained", "Pairs that wait in the journals.", value=waiting
        )


#: Key in a recorder's statistics -> metric name and help.
_RECORDER_COUNTERS = {
    "journaled_read": ("recorder_read_pairs", "Pairs read from the journals."),
    "acknowledged": ("recorder_acknowledged_pairs", "Pairs that the sink acknowledged."),
    "unknown_config": ("recorder_unknown_config_pairs", "Pairs expanded by another revision."),
    "skipped_bytes": ("recorder_skipped_bytes", "Corrupt journal bytes skipped."),
    "journal_errors": ("recorder_journal_errors", "Failures to read or commit a journal."),
    "exported_spans": ("recorder_exported_spans", "Spans that the collector took."),
}
#: `proxy.recorder.sink.Drop`, written again because control does not import the recorder: a rate
#: needs the zero before the first drop.
DROP_REASONS = ("rejected", "too_large", "refused", "journal_full", "damaged")
#: `proxy.recorder.spans.SpanDrop` and `proxy.recorder.sink.SinkState`, for the same reason; a test
#: holds them together.
SPAN_DROPS = ("queue_full", "not_taken", "not_made")
SINK_STATES = (
    "connecting", "ok", "broker_down", "stuck", "slow", "starved", "throttled", "topic_missing",
    "unauthenticated", "unauthorized", "tls_failed", "retrying", "misconfigured", "disk_error",
    "closed",
)  # fmt: skip


def _recorders(snapshot: Snapshot) -> Iterator[Metric]:
    label = ("recorder",)
    counters = {
        key: CounterMetricFamily(PREFIX + name, text, labels=label)
        for key, (name, text) in _RECORDER_COUNTERS.items()
    }
    dropped = _by_reason("recorder_dropped_pairs", "Pairs given up.")
    spans = _by_reason("recorder_dropped_spans", "Spans given up.")
    state = GaugeMetricFamily(
        f"{PREFIX}recorder_state", "1 for the state of the sink, else 0.", labels=(*label, "state")
    )
    lag, backlog, age = (
        GaugeMetricFamily(PREFIX + name, text, labels=label)
        for name, text in (
            ("recorder_lag_seconds", "All that was journaled longer ago is with the sink."),
            ("recorder_backlog_bytes", "Journaled bytes not acknowledged yet."),
            ("recorder_statistics_age_seconds", "How old the recorder's numbers are."),
        )
    )
    for number, recorder in enumerate(snapshot.recorders):
        index, known = (str(number),), recorder or {}
        for key, counter in counters.items():
            counter.add_metric(index, known.get(key, 0))
        _add_reasons(dropped, index, DROP_REASONS, known.get("dropped", {}))
        _add_reasons(spans, index, SPAN_DROPS, known.get("dropped_spans", {}))
        if recorder is None:
            continue
        for each in SINK_STATES:
            state.add_metric((*index, each), float(recorder.get("state") == each))
        age.add_metric(index, (snapshot.now_ms - recorder.get("updated_ms", 0)) / 1000)
        backlog.add_metric(index, recorder.get("backlog_bytes", 0))
        if (lag_s := recorder.get("lag_s")) is not None:
            lag.add_metric(index, lag_s)
    yield from (*counters.values(), dropped, spans, state, lag, backlog, age)


#: Why labels that were taken are not in the sink: of `DROP_REASONS`, those that can happen.
LABEL_DROPS = ("rejected", "too_large", "refused")


def _labels(snapshot: Snapshot) -> Iterator[Metric]:
    """Tell what became of labels; zeros where nobody sends any."""
    known = snapshot.labels
    yield _total(
        "labels_accepted", "Labels taken by the admin API, since its start.", known, "accepted"
    )
    yield _total(
        "labels_refused", "Lines sent that are no labels, since its start.", known, "refused"
    )
    yield _total("labels_acknowledged", "Labels that the sink acknowledged.", known, "acknowledged")
    dropped = CounterMetricFamily(f"{PREFIX}labels_dropped", "Labels given up.", labels=("reason",))
    for reason, count in {**dict.fromkeys(LABEL_DROPS, 0), **known.get("dropped", {})}.items():
        dropped.add_metric((reason,), count)
    yield dropped
    yield GaugeMetricFamily(
        f"{PREFIX}labels_backlog_bytes",
        "Bytes of labels taken and not acknowledged yet.",
        value=known.get("backlog_bytes", 0),
    )


def _total(name: str, text: str, counts: Mapping[str, Any], key: str) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=counts.get(key, 0))


def _by_reason(name: str, text: str) -> CounterMetricFamily:
    return CounterMetricFamily(PREFIX + name, text, labels=("recorder", "reason"))


def _add_reasons(
    metric: CounterMetricFamily,
    index: tuple[str],
    reasons: tuple[str, ...],
    counts: Mapping[str, int],
) -> None:
    """Add a sample for every reason there is, zeros included: a rate needs the zero before the first."""
    for reason, count in {**dict.fromkeys(reasons, 0), **counts}.items():
        metric.add_metric((*index, reason), count)
