"""Whether something took long for want of a processor, and what is told of it then. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from proxy.recorder.sink import SinkState, SinkStatus


@dataclass(frozen=True, slots=True)
class Took:
    """How long something took, and how much of that the thread waited for a processor; seconds."""

    all_s: float
    queued_s: float

    @property
    def is_starved(self) -> bool:
        """Whether it would have been twice as quick with a processor of its own."""
        return self.queued_s > self.all_s / 2


def starved(took: Took) -> SinkStatus:
    """Return what is told of a recorder that gets no processor: it is no fault of its sink."""
    return SinkStatus(
        SinkState.STARVED,
        "this recorder does not get a processor: of the last "
        f"{took.all_s:.1f} s it has waited {took.queued_s:.1f} s for one",
        "give the machine, or the container, more CPU, or lower record.niceness",
    )
