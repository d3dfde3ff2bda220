"""An operator's words to a ramp: which they are, what they mean, and when they are refused.

`pause` and `abort` hold whenever they arrive, like a kill. The others may lead up, so they are
refused while part of the candidate is killed, and when a kill came after they were given.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.control.bodies import ApiError
from proxy.control.ramp_driver import RampDriver, other_active
from proxy.control.ramp_entry import Entry
from proxy.errors import StateError
from proxy.ramp.phases import Event, IllegalEventError
from proxy.ramp.policy import Sight
from proxy.ramp.state import Cause, changed, resume_event
from proxy.state.orders import Source

#: What may be said, and what it is for the table of transitions.
WORDS: Final = {
    "start": Event.START,
    "pause": Event.PAUSE,
    "resume": Event.RESUME,
    "promote": Event.APPROVE,
    "abort": Event.ABORT,
}
#: Words that hold whenever they arrive.
ALWAYS: Final = frozenset({"pause", "abort"})


def find(driver: RampDriver | None, route: str, candidate: str | None) -> Entry:
    """Return the ramp that is meant.

    Raises:
        ApiError: there is none, or there are several.
    """
    known = list(driver.entries.values()) if driver is not None else []
    of_route = [entry for entry in known if entry.route.name == route]
    if not of_route:
        names = ", ".join(dict.fromkeys(entry.route.name for entry in known)) or "none"
        raise ApiError(404, f"no route {route!r} with a ramp in the config; there are: {names}")
    found = [entry for entry in of_route if candidate in (None, entry.candidate.name)]
    names = ", ".join(entry.candidate.name for entry in of_route)
    if not found:
        raise ApiError(404, f"no candidate {candidate!r} in {route!r}; there are: {names}")
    if len(found) > 1:
        raise ApiError(422, f"{route!r} has several candidates; name one of them: {names}")
    return found[0]


def carry_out(
    driver: RampDriver, entry: Entry, word: str, source: Source, *, dry_run: bool
) -> dict[str, Any]:
    """Give a word to a ramp; return what it was, what it is, and what it waits for.

    Raises:
        ApiError: it is refused; nothing was changed.
    """
    sight = driver.look(entry)
    if sight.live_bp is None:
        raise ApiError(503, "the control page cannot be read; only the primary serves")
    if word not in ALWAYS:
        _refuse_if_killed(entry, sight)
        if refusal := driver.refusal():
            raise ApiError(503, f"nothing was changed: {refusal}")
    if word == "start" and (other := other_active(driver, entry)) is not None:
        raise ApiError(
            409, f"the ramp of {other.name} is under way on the same route; abort it first"
        )
    event = resume_event(entry.plan, sight.live_bp) if word == "resume" else WORDS[word]
    before = entry.kept.state
    cause = Cause(source.who, source.reason, sight.now_ms, sight.live_bp)
    try:
        after = changed(before, event, entry.plan, cause)
        if not dry_run:
            driver.give(entry, event, source)
            after = entry.kept.state
    except IllegalEventError as exc:
        waits = f"; it waits: {entry.waits}" if entry.waits else ""
        raise ApiError(409, f"nothing was changed: {exc}{waits}") from exc
    except StateError as exc:
        raise ApiError(503, str(exc)) from exc
    return {
        "action": word,
        "scope": entry.name,
        "dry_run": dry_run,
        "old": before.words,
        "new": after.words,
        "old_weight_bp": sight.live_bp,
        "new_weight_bp": after.weight_bp,
        "waits": "" if dry_run else entry.waits,
        "warnings": [entry.trouble] if entry.trouble and not dry_run else [],
    }


async def settle(driver: RampDriver, entry: Entry, answer: dict[str, Any]) -> None:
    """Wait until a word that was carried out holds everywhere, and say in the answer what is now.

    Raises:
        ApiError: it does not hold, or it is not known yet whether it does.
    """
    if refusal := await driver.settle(entry):
        raise ApiError(409, refusal)
    state = entry.kept.state
    answer |= {"new": state.words, "new_weight_bp": state.weight_bp, "waits": entry.waits}
    answer["warnings"] = [entry.trouble] if entry.trouble else []


def _refuse_if_killed(entry: Entry, sight: Sight) -> None:
    if sight.killed:
        raise ApiError(
            409,
            f"nothing was changed: {', '.join(sight.killed)} of {entry.name} is killed; "
            "revive it first",
        )
