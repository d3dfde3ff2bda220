"""A kill on the page before anything slow is imported: the first 50 ms of `understudy kill`.

Building the classes of a `ControlState` and importing orjson take longer than all else in a kill
together (60 of 100 ms). This changes the page's JSON as it is: the one place beside
`proxy.state.kill` that knows what a kill does to a state. A test holds the two equal for every scope
and part, and the command compares them on every run, after the effect. Whatever it does not
understand it leaves to the long way.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from proxy.errors import StateError
from proxy.state.page_file import PageFile, change_page, map_page

#: The parts by name, as `proxy.state.control_page.Part` counts them; nothing named: the default.
PARTS = {"": 3, "mirror": 1, "canary": 2, "record": 4}


def kill_now(state_dir: Path, scope: str, only: str, note: str) -> tuple[bytes, bytes] | None:
    """Latch a part of a scope; return the page's payload before and after, None if not done.

    Args:
        state_dir: the folder of the page.
        scope: as notes name it: `*`, `route` or `route/candidate`.
        only: the name of a part, or empty.
        note: what the page keeps beside the latch.
    """
    try:
        page = PageFile(*map_page(state_dir))
    except StateError:
        return None
    try:
        return change_page(
            page, lambda payload, generation: killed(payload, scope, only, note, generation)
        )
    except (StateError, ValueError, KeyError, TypeError):
        return None
    finally:
        page.close()


def killed(payload: bytes, scope: str, only: str, note: str, generation: int) -> bytes:
    """Return `payload` with a part of a scope latched.

    Raises:
        ValueError, KeyError, TypeError: the payload is no state, or has no such scope.
    """
    state: dict[str, Any] = json.loads(payload)
    where = state
    if scope != "*":
        route, _, candidate = scope.partition("/")
        where = state["routes"][route]
        if candidate:
            where = where["candidates"][candidate]
    where["killed"] |= PARTS[only]
    state["notes"][scope] = note
    state["kill_generation"] = generation
    return json.dumps(state, ensure_ascii=False, separators=(",", ":")).encode()
