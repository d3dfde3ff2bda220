"""The hold of a replica that has just joined: primary only, until it knows what the others have.

A fresh page would say the config's weights, and nothing of a kill that the others obey. So a replica
that has never agreed with others begins with mirror and canary held; control opens the hold when it
has read their state, and an operator may, with `understudy revive`, when nobody else is there.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from proxy.state.control_page import ControlState, Part

#: What page and replicas last agreed on; without it the replica has never agreed.
BASE_NAME: Final = "replica.json"
#: The note beside the hold, by which it is told from a kill.
HOLD_NOTE: Final = "held until the state of the other replicas is known"


def held(state: ControlState, state_dir: Path) -> ControlState:
    """Return `state` with the hold, if this is a replica that has never agreed with others."""
    if state.killed or (state_dir / BASE_NAME).exists():
        return state
    return replace(state, killed=Part.DEFAULT, notes={**state.notes, "*": HOLD_NOTE})


def is_held(state: ControlState) -> bool:
    """Return whether the hold is on the page; a kill in its place is a kill."""
    return state.notes.get("*") == HOLD_NOTE


def released(state: ControlState) -> ControlState:
    """Return `state` without the hold."""
    if not is_held(state):
        return state
    notes = {scope: note for scope, note in state.notes.items() if scope != "*"}
    return replace(state, killed=Part.NONE, notes=notes)
