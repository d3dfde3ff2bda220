"""A ramp of the demo, followed from its start to where it ends, by the admin API.

Decides when it has ended and what is kept of it; whether that is what it should be is `checks`'.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from proxy.demo.admin import Admin
from proxy.telemetry import monotonic_s

#: A ramp that has not ended by then does not end well. It takes 3 to 20 s on an idle machine.
PATIENCE_S: Final = 60.0
_POLL_S: Final = 0.2


@dataclass(slots=True)
class Ramping:
    """A ramp as the proxy tells it.

    Attributes:
        candidate: its name.
        decisions: the lines of the decisions log about it, the oldest first.
        told: what the status says of it, with its weight.
        seconds: from the order to the end, or to the end of the patience.
    """

    candidate: str
    decisions: list[dict[str, Any]] = field(default_factory=list)
    told: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def phase(self) -> str:
        """Return where it is; empty before it was looked at."""
        return str(self.told["ramp"]["phase"]) if self.told else ""

    @property
    def words(self) -> str:
        """Return where it is, to be read."""
        return str(self.told["ramp"]["words"]).replace("_", " ") if self.told else "not started"

    @property
    def events(self) -> list[str]:
        """Return what has happened to it, such as `start`, `pass`, `advance`."""
        return [str(each["action"]).removeprefix("ramp_") for each in self.decisions]


async def follow(
    admin: Admin, ramping: Ramping, ends: str, tell: Callable[[Mapping[str, Any]], None]
) -> None:
    """Follow a ramp until its phase is `ends`, or patience is.

    Args:
        admin: of the proxy.
        ramping: filled.
        ends: such as `promoted`.
        tell: called with each decision as it comes.

    Raises:
        AdminError: the proxy does not answer.
    """
    started_s = monotonic_s()
    place: object = None
    while True:
        ramping.told = await admin.candidate(ramping.candidate)
        now = ramping.told["ramp"]
        if place != (now["phase"], now["step"]):
            place = now["phase"], now["step"]
            found = await admin.ramp_decisions(ramping.candidate)
            known, ramping.decisions = len(ramping.decisions), found
            for decision in found[known:]:
                tell(decision)
        ramping.seconds = monotonic_s() - started_s
        if ramping.phase == ends or ramping.seconds > PATIENCE_S:
            return
        await asyncio.sleep(_POLL_S)


def place_of(words: str) -> str:
    """Return the place in a ramp's words: `shadow`, or the weight, such as `10%`."""
    return words.rpartition(" at ")[2] if " at " in words else "shadow"
