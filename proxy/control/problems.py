"""What is wrong with an instance, one sentence each, and how to mend it. Pure."""

from __future__ import annotations

from typing import Any

from proxy.config.resolved import Route
from proxy.control.candidate_facts import breaker_word, ejection_of, ramp_of
from proxy.control.ledger import imbalances
from proxy.control.recent import failing_legs
from proxy.control.replica_status import replica_troubles
from proxy.control.snapshot import HUNG_MS, Snapshot
from proxy.routing.breaker import State
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
    (
        "pairs_lost",
        "overload",
        "are of requests that were served and not mirrored, because a worker was overloaded (limits.mirror_lag)",
    ),
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
    if snapshot.hanging_s:
        found.append(
            f"the disk of {snapshot.config.state_dir} has not answered for {snapshot.hanging_s:.1f} s: kills and "
            "weights may wait for it, and decisions wait in memory; what is told here of other processes is "
            "of before"
        )
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
    if shedding := snapshot.count("workers_shedding"):
        found.append(
            f"{shedding} of {snapshot.config.workers} workers are overloaded and make no copies until they "
            "have caught up (limits.mirror_lag): sampling pauses"
        )
    for route in snapshot.config.routes:
        found += _taken_out(snapshot, route)
        found += failing_legs(route, snapshot.recent)
        found += _open_breakers(snapshot, route)
        found += _ramp_troubles(snapshot, route)
    found += _endpoints_left_out(snapshot) + replica_troubles(snapshot)
    for index, recorder in enumerate(snapshot.recorders):
        if (trouble := _recorder_trouble(snapshot, index, recorder)) is not None:
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


def _endpoints_left_out(snapshot: Snapshot) -> list[str]:
    """Return the endpoints that workers leave alone, because calls or checks of them failed."""
    return [
        f"backend {name}: {count} of {snapshot.config.workers} workers leave {endpoint} alone"
        for name, backend in snapshot.config.backends.items()
        for endpoint in backend.endpoints
        if (count := snapshot.count("endpoint_left_out", name, str(endpoint)))
    ]


def _open_breakers(snapshot: Snapshot, route: Route) -> list[str]:
    return [
        f"{route.name}/{candidate.name}: its breaker is open; it does not answer, and gets no copies"
        for candidate in route.candidates
        if breaker_word(snapshot, route.name, candidate.name) == State.OPEN.name.lower()
    ]


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


def _recorder_trouble(
    snapshot: Snapshot, index: int, recorder: dict[str, Any] | None
) -> str | None:
    if recorder is None:
        return "it has written no statistics yet"
    age_ms = snapshot.now_ms - recorder.get("updated_ms", 0)
    if age_ms > RECORDER_STALE_MS:
        return f"its statistics are {age_ms / 1000:.0f} s old: {_why_silent(snapshot, index)}"
    if recorder.get("state") not in QUIET_STATES or recorder.get("message"):
        state = str(recorder.get("state"))
        remedy = f"; to mend it, {recorder['remedy']}" if recorder.get("remedy") else ""
        words = recorder.get("message") or STATE_WORDS.get(state, "it says no more")
        return f"{state}: {words}{remedy}"
    return None


def _why_silent(snapshot: Snapshot, index: int) -> str:
    """Return why a recorder tells nothing: others have the processors, or it is its own fault."""
    recent = snapshot.recent
    waited_s = recent.counts.get(("queued_ms", f"recorder {index}"), 0) / 1000
    if waited_s <= recent.span_s / 2:
        return "it hangs or is down"
    return (
        f"it does not get a processor (in the last {recent.span_s:.0f} s it has waited "
        f"{waited_s:.0f} s for one); to mend it, give the machine, or the container, more CPU, or "
        "lower record.niceness"
    )


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
