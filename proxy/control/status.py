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
from proxy.control.ejections import Ejection, standing
from proxy.control.ledger import imbalances, ledger, verdict
from proxy.control.ramp_progress import progress
from proxy.control.recent import failing_legs
from proxy.control.replica_status import replica_troubles, standing as among_replicas
from proxy.control.snapshot import HUNG_MS, Snapshot
from proxy.routing.breaker import State
from proxy.state.control_page import CandidateState, Part, RouteState
from proxy.state.kill import ALL_PARTS, part_names
from proxy.state.orders import still_killed
from proxy.state.stats_page import LATENCY_BOUNDS_US
from proxy.telemetry import rfc3339

#: A recorder writes its statistics each second; older than this, it hangs or is gone.
RECORDER_STALE_MS = 5_000
#: How long workers may take to follow a new config before somebody is told.
FOLLOW_MS = 3_000
#: States of a recorder's sink that need nobody.
QUIET_STATES = frozenset({"ok"})
#: What a state means where the recorder says no more.
STATE_WORDS = {
    "connecting": "it has not reached its sink yet",
    "closed": "it has stopped, or has just started",
}
#: Losses that go on unless somebody does something: counter, its last label, what it means.
LOSSES = (
    ("pairs_lost", "journal_error", "could not be written: is the disk full or read-only"),
    ("pairs_lost", "journal_full", "were refused: limits.journal_disk is used up (drop: newest)"),
    ("recorder_dropped", "journal_full", "were dropped unshipped: limits.journal_disk is used up"),
    ("recorder_dropped", "rejected", "could not be read out of the journal"),
    ("recorder_dropped", "damaged", "were in a damaged part of the journal: is the disk well"),
    ("recorder_dropped", "too_large", "are above the topic's max.message.bytes: raise it"),
    (
        "recorder_dropped",
        "refused",
        "were refused for good: look at the topic's message.timestamp.*",
    ),
)


def problems(snapshot: Snapshot) -> list[str]:
    """Return what is wrong, one sentence each, the worst first."""
    found = []
    if not snapshot.runtime:
        found.append("no runtime.json: the launcher is gone, or cannot write the state directory")
    if not snapshot.is_writable:
        found.append(
            f"the state directory {snapshot.config.state_dir} cannot be written: kills and weights hold in "
            "memory, and may not survive a restart of the instance; pairs are lost; processes that were "
            "restarted since are not counted"
        )
    if snapshot.page_error:
        found.append(f"{snapshot.page_error}; until then only the primary serves")
    found += _config_troubles(snapshot)
    found += _process_troubles(snapshot)
    for route in snapshot.config.routes:
        found += _taken_out(snapshot, route)
        found += failing_legs(route, snapshot.recent)
        found += _open_breakers(snapshot, route)
        found += _ramp_troubles(snapshot, route)
    found += _endpoints_left_out(snapshot) + replica_troubles(snapshot)
    for index, recorder in enumerate(snapshot.recorders):
        if (trouble := _recorder_trouble(snapshot, recorder)) is not None:
            found.append(f"recorder {index}: {trouble}")
    found += _label_troubles(snapshot) + _decision_troubles(snapshot) + _losses(snapshot)
    return found + [
        f"the ledger does not add up: {line.account} {line.scope}: {line.total} in all, "
        f"{line.settled} accounted for"
        for line in imbalances(snapshot)
    ]


def _process_troubles(snapshot: Snapshot) -> list[str]:
    """Return the processes that are down or hang, as far as can be known."""
    found = []
    for process in snapshot.processes:
        if process.is_hung:
            found.append(f"{process.name} hangs: it has not moved for {HUNG_MS // 1000} s or more")
        elif not process.is_alive and not snapshot.is_writable:
            found.append(
                f"{process.name} was restarted, or is down: runtime.json cannot be written"
            )
        elif not process.is_alive:
            found.append(f"{process.name} is down ({process.last_end or 'not started yet'})")
    return found


def _config_troubles(snapshot: Snapshot) -> list[str]:
    """Return that the config file was refused, and the workers that do not run the present one."""
    reloads, found = snapshot.reloads, []
    if reloads.refused:
        found.append(
            f"{reloads.file} was refused at {rfc3339(reloads.refused_ms)}, and the config of before "
            f"stays ({snapshot.config.version}): {'; '.join(reloads.refused)}"
        )
    is_settled = snapshot.now_ms - reloads.loaded_ms > FOLLOW_MS
    if snapshot.state is not None and reloads.loaded_ms and is_settled:
        found += [
            f"worker {index} runs an older config (revision {revision}, not "
            f"{snapshot.state.config_revision}); its log says why"
            for index, revision in snapshot.revisions.items()
            if 0 < revision < snapshot.state.config_revision
        ]
    return found


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


def _endpoints_left_out(snapshot: Snapshot) -> list[str]:
    """Return the endpoints that workers leave alone, because calls or checks of them failed."""
    return [
        f"backend {name}: {count} of {snapshot.config.workers} workers leave {endpoint} alone"
        for name, backend in snapshot.config.backends.items()
        for endpoint in backend.endpoints
        if (count := snapshot.count("endpoint_left_out", name, str(endpoint)))
    ]


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


def ramp_of(snapshot: Snapshot, route: str, candidate: str) -> dict[str, Any]:
    """Return what the driver of ramps saw last of a candidate; idle before it has."""
    found: dict[str, Any] = snapshot.ramps.get(f"{route}/{candidate}", {})
    return {"phase": "idle", "words": "idle", "step": 0, "pairs": 0, "waits": "", **found}


def _ramp(snapshot: Snapshot, plan: Ramp, route: str, candidate: str) -> dict[str, Any]:
    """Return where a ramp is, and what its plan asks of the step that it is in."""
    told = ramp_of(snapshot, route, candidate)
    return told | progress(plan, told, snapshot.now_ms)


def breaker_word(snapshot: Snapshot, route: str, candidate: str) -> str:
    """Return the state of a candidate's breaker: closed, half_open or open, the worst worker's."""
    return State(snapshot.counters.get(("breaker", route, candidate), 0)).name.lower()


def _open_breakers(snapshot: Snapshot, route: Route) -> list[str]:
    return [
        f"{route.name}/{candidate.name}: its breaker is open; it does not answer, and gets no copies"
        for candidate in route.candidates
        if breaker_word(snapshot, route.name, candidate.name) == State.OPEN.name.lower()
    ]


def ejection_of(snapshot: Snapshot, route: str, candidate: str) -> Ejection | None:
    """Return what a guard has taken a candidate out for; None when it has not, or it was revived."""
    if snapshot.state is None:
        return None
    return standing(snapshot.ejections, snapshot.state).get(f"{route}/{candidate}")


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


def _taken_out(snapshot: Snapshot, route: Route) -> list[str]:
    found = ((c.name, ejection_of(snapshot, route.name, c.name)) for c in route.candidates)
    return [
        f"{route.name}/{name}: out of live traffic: {ejection.words}; once it is mended, "
        f"`understudy revive --route {route.name} --candidate {name} --reason TEXT`"
        for name, ejection in found
        if ejection is not None
    ]


def _ramp_troubles(snapshot: Snapshot, route: Route) -> list[str]:
    if route.ramp is None:
        return []
    told = (
        (c.name, ramp_of(snapshot, route.name, c.name).get("trouble")) for c in route.candidates
    )
    return [f"ramp of {route.name}/{name}: {trouble}" for name, trouble in told if trouble]


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


def _recorder_trouble(snapshot: Snapshot, recorder: dict[str, Any] | None) -> str | None:
    if recorder is None:
        return "it has written no statistics yet"
    age_ms = snapshot.now_ms - recorder.get("updated_ms", 0)
    if age_ms > RECORDER_STALE_MS:
        return f"its statistics are {age_ms / 1000:.0f} s old: it hangs or is down"
    if recorder.get("state") not in QUIET_STATES or recorder.get("message"):
        state = str(recorder.get("state"))
        remedy = f"; to mend it, {recorder['remedy']}" if recorder.get("remedy") else ""
        words = recorder.get("message") or STATE_WORDS.get(state, "it says no more")
        return f"{state}: {words}{remedy}"
    return None


def _label_troubles(snapshot: Snapshot) -> list[str]:
    """Return what keeps labels from their sink; nothing where nobody has sent any."""
    state = snapshot.labels.get("state")
    if state is None or state in (*QUIET_STATES, "connecting", "closed"):
        return []
    remedy = f"; to mend it, {snapshot.labels['remedy']}" if snapshot.labels.get("remedy") else ""
    return [f"labels: {state}: {snapshot.labels.get('message') or 'it says no more'}{remedy}"]


def _decision_troubles(snapshot: Snapshot) -> list[str]:
    """Return what keeps decisions from their log, and what is in it from its topic."""
    told, found = snapshot.decisions, []
    if told.get("error"):
        found.append(f"decisions: {told['error']}")
    if count := told.get("in_memory"):
        found.append(
            f"decisions: {count} wait in the memory of control, because the log cannot be written: is "
            "the disk full or read-only"
        )
    if snapshot.config.record.kafka is None:
        return found
    if count := sum(told.get("dropped", {}).values()):
        reasons = ", ".join(f"{reason} {n}" for reason, n in told["dropped"].items())
        found.append(f"decisions: {count} are not in their topic, and will not be ({reasons})")
    if told.get("state") in (None, *QUIET_STATES, "connecting", "closed") and not told.get(
        "message"
    ):
        return found
    remedy = f"; to mend it, {told['remedy']}" if told.get("remedy") else ""
    return [
        *found,
        f"decisions: {told['state']}: {told.get('message') or 'it says no more'}{remedy}",
    ]


def _losses(snapshot: Snapshot) -> list[str]:
    recent = snapshot.recent
    found = []
    for family, word, meaning in LOSSES:
        if count := recent.summed(family, word):
            found.append(f"{count} pairs of the last {recent.span_s:.0f} s {meaning} ({word})")
    return found
