"""What an operator is told: the status document and the readiness. Pure.

Ready means that users are served. What is wrong beside that (a corrupt page, a recorder that cannot
reach its sink) is told as problems and does not take the instance out of rotation: the primary
still answers, and a probe that failed for Kafka's sake would turn a harmless fault into an outage.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from proxy import __version__
from proxy.config.resolved import Candidate, Config, Ramp, Route
from proxy.control.candidate_facts import breaker_word, ejection_of, ramp_of
from proxy.control.ledger import imbalances, ledger, verdict
from proxy.control.problems import problems
from proxy.control.ramp_progress import progress
from proxy.control.replica_status import standing as among_replicas
from proxy.control.snapshot import Snapshot
from proxy.state.control_page import CandidateState, Part, RouteState
from proxy.state.kill import ALL_PARTS, part_names
from proxy.state.orders import still_killed
from proxy.state.stats_page import LATENCY_BOUNDS_US


def _config(snapshot: Snapshot) -> dict[str, Any]:
    reloads = snapshot.reloads
    return {
        "file": reloads.file,
        "version": snapshot.config.version,
        "revision": snapshot.state.config_revision if snapshot.state else None,
        "valid": not reloads.refused,
        "loaded_ms": reloads.loaded_ms,
        "refused": reloads.refused,
        "refused_ms": reloads.refused_ms,
        "reloads": dict(reloads.counts),
        "workers": {str(index): revision for index, revision in snapshot.revisions.items()},
    }


def is_ready(snapshot: Snapshot) -> bool:
    """Return whether users are served: at least one worker lives and moves.

    While the state directory cannot be written, nobody can say that of workers that were restarted; the
    launcher goes on restarting them, and an instance that serves must not be taken out of rotation.
    """
    if not snapshot.is_writable and snapshot.is_running:
        return True
    return bool(snapshot.beating) or any(
        p.is_alive and not p.is_hung for p in snapshot.processes if p.name.startswith("worker ")
    )


def status(snapshot: Snapshot) -> dict[str, Any]:
    """Return the whole status document of `GET /api/v1/status`."""
    config, state = snapshot.config, snapshot.state
    return {
        "version": __version__,
        "instance": config.instance,
        "config_version": config.version,
        "state_dir": config.state_dir,
        "scheme": config.scheme,
        "listen": snapshot.runtime.get("listen", ""),
        "admin": snapshot.runtime.get("admin", ""),
        "now_ms": snapshot.now_ms,
        "running": snapshot.is_running,
        "ready": is_ready(snapshot),
        "problems": problems(snapshot),
        "control_page": {"generation": snapshot.generation, "error": snapshot.page_error},
        "killed": still_killed(state) if state else {},
        "notes": state.notes if state else {},
        "replicas": among_replicas(snapshot),
        "config": _config(snapshot),
        "processes": [asdict(process) for process in snapshot.processes],
        "routes": routes(snapshot),
        "totals": _totals(snapshot),
        "ledger": [asdict(account) for account in ledger(snapshot)],
        "ledger_verdict": {
            "verdict": verdict(snapshot),
            "unbalanced": [asdict(line) for line in imbalances(snapshot)],
        },
        "recorders": list(snapshot.recorders),
        "labels": snapshot.labels,
        "decisions": snapshot.decisions,
    }


def routes(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Return each route with its live state and counters."""
    return [_route(snapshot, route) for route in snapshot.config.routes]


def quantile_ms(cells: list[int], q: float) -> float | None:
    """Return the `q` quantile of a latency histogram in milliseconds, interpolated; None if empty.

    Args:
        cells: counts by bucket (not cumulative), one more than `LATENCY_BOUNDS_US`; in the last,
            which has no upper bound, the answer is its lower one.
        q: from 0 to 1.
    """
    rank = q * sum(cells)
    if not rank:
        return None
    lower_us = 0
    for count, upper_us in zip(cells, LATENCY_BOUNDS_US, strict=False):
        if count and rank <= count:
            return (lower_us + (upper_us - lower_us) * rank / count) / 1000
        rank -= count
        lower_us = upper_us
    return lower_us / 1000


def _route(snapshot: Snapshot, route: Route) -> dict[str, Any]:
    state = snapshot.state.routes.get(route.name, RouteState()) if snapshot.state else None
    return {
        "name": route.name,
        "match": asdict(route.match) | {"headers": _headers(snapshot.config, route)},
        "protocol": route.protocol,
        "primary": route.primary,
        "split_by": {"kind": route.split.kind, "name": route.split.name},
        "replicate_bp": route.replicate_bp,
        "experiment_id": route.experiment_id,
        "killed": part_names(state.killed) if state else None,
        "routed": snapshot.count("routed", route.name),
        "in_flight": snapshot.count("in_flight", route.name),
        "served": snapshot.by_last_label("served", route.name),
        "latency": _latency(snapshot, route.name, "primary"),
        "candidates": [_candidate(snapshot, route, candidate) for candidate in route.candidates],
    }


def _headers(config: Config, route: Route) -> dict[str, str]:
    """Return the fields that a route looks at, without the values of those that are secret."""
    hidden = config.record.redact.headers
    return {name: "***" if name in hidden else value for name, value in route.match.headers.items()}


def _candidate(snapshot: Snapshot, route: Route, candidate: Candidate) -> dict[str, Any]:
    names = (route.name, candidate.name)
    live, killed = CandidateState(), ALL_PARTS  # an unreadable page: primary only
    if snapshot.state is not None:
        killed = snapshot.state.killed_parts(*names)
        live = snapshot.state.routes.get(route.name, RouteState()).candidates.get(
            candidate.name, live
        )
    return {
        "name": candidate.name,
        "backend": candidate.backend,
        "weight_bp": live.weight_bp,
        "mirror_bp": live.mirror_bp,
        "effective_weight_bp": 0 if killed & Part.CANARY else live.weight_bp,
        "effective_mirror_bp": 0 if killed & Part.MIRROR else live.mirror_bp,
        "config_weight_bp": candidate.weight_bp,
        "config_mirror_bp": candidate.mirror_bp,
        "ramp_step": live.ramp_step,
        "ramp": None if route.ramp is None else _ramp(snapshot, route.ramp, *names),
        "killed": part_names(killed),
        "canary": snapshot.count("canary", *names),
        "rescued": snapshot.count("rescued", *names),
        "served": snapshot.count("canary", *names) - snapshot.count("rescued", *names),
        "mirror_decided": snapshot.count("mirror_decided", *names),
        "mirror_sent": snapshot.count("mirror_sent", *names),
        "mirror_skipped": snapshot.by_last_label("mirror_skipped", *names),
        "breaker": breaker_word(snapshot, *names),
        "guard": _guard(snapshot, *names),
        "model_kept": snapshot.by_last_label("model_kept", *names),
        "legs": snapshot.by_last_label("leg", *names),
        "pairs_decided": snapshot.count("pairs_decided", *names),
        "pairs_journaled": snapshot.count("pairs_journaled", *names),
        "pairs_lost": snapshot.by_last_label("pairs_lost", *names),
        "latency": _latency(snapshot, *names),
    }


def _ramp(snapshot: Snapshot, plan: Ramp, route: str, candidate: str) -> dict[str, Any]:
    """Return where a ramp is, and what its plan asks of the step that it is in."""
    told = ramp_of(snapshot, route, candidate)
    return told | progress(plan, told, snapshot.now_ms)


def _guard(snapshot: Snapshot, *names: str) -> dict[str, Any]:
    ejection = ejection_of(snapshot, *names)
    return {
        "ejected": ejection is not None,
        "why": "" if ejection is None else ejection.words,
        "at_ms": None if ejection is None else ejection.at_ms,
        "ejections": snapshot.count("guard_ejections", *names),
        "failed": snapshot.count("guard_failed", *names),
        "slow": snapshot.count("guard_slow", *names),
        "latency_ms": snapshot.counters.get(("guard_latency_us", *names), 0) / 1000 or None,
    }


def _latency(snapshot: Snapshot, route: str, leg: str) -> dict[str, float | int | None]:
    bounds = [*map(str, LATENCY_BOUNDS_US), "+Inf"]
    cells = [snapshot.counters.get(("latency_us", route, leg, bound), 0) for bound in bounds]
    return {
        "count": sum(cells),
        "p50_ms": quantile_ms(cells, 0.5),
        "p99_ms": quantile_ms(cells, 0.99),
    }


def _totals(snapshot: Snapshot) -> dict[str, Any]:
    plain = ("connections", "connections_open", "received", "journal_bytes", "captured_bytes")
    return {
        **{name: snapshot.count(name) for name in plain},
        "rejected": snapshot.by_last_label("rejected"),
        "backend_in_flight": snapshot.by_last_label("backend_in_flight"),
    }
