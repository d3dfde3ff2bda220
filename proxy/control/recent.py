"""What the counters did in the last minute: who fails now, as against who ever failed.

Pure: control hands in the counters each second. Counters outlive their workers and only grow, so a
difference is what happened meanwhile; one that shrank (a new layout) counts as nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from proxy.config.resolved import Route
from proxy.state.stats_page import Outcome

#: A counter: its family, then its label values.
Key = tuple[str, ...]

SAMPLES = 60
#: Families that somebody asks about; the rest would only take memory.
FAMILIES = frozenset({"leg", "served", "canary", "pairs_lost", "recorder_dropped", "queued_ms"})
#: How a call fails that no answer ended. `cancelled`, `shed` and `not_sent` are the proxy's doing.
HARD_FAILURES = (Outcome.TIMEOUT, Outcome.CONNECT_ERROR, Outcome.RESET)
#: Copies that a bound of ours or an open breaker kept back: they say nothing about the candidate.
NEVER_MADE = frozenset({Outcome.SHED, Outcome.NOT_SENT})
#: Fewer calls say nothing about a share.
MIN_CALLS = 5
FAILING_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Recent:
    """What was counted in the last `span_s` seconds, by counter; zeros left out."""

    span_s: float = 0.0
    counts: Mapping[Key, int] = field(default_factory=dict)

    def by_last_label(self, *key: str) -> dict[str, int]:
        """Return the counts of a family, by the value of its last label."""
        return {k[-1]: n for k, n in self.counts.items() if k[:-1] == key}

    def summed(self, family: str, last_label: str) -> int:
        """Return the counts of a family whose last label has one value, added up."""
        return sum(n for k, n in self.counts.items() if k[0] == family and k[-1] == last_label)


class RecentWindow:
    """The last `SAMPLES` looks at the counters."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[Key, int]]] = deque(maxlen=SAMPLES + 1)

    def add(self, now_s: float, counters: Mapping[Key, int]) -> None:
        """Take a sample at `now_s` (monotonic)."""
        kept = {key: count for key, count in counters.items() if key[0] in FAMILIES and count}
        self._samples.append((now_s, kept))

    def recent(self, now_s: float, counters: Mapping[Key, int]) -> Recent:
        """Return what happened between the oldest sample and `counters`, read at `now_s`."""
        if not self._samples:
            return Recent()
        then_s, then = self._samples[0]
        moved = {
            key: count - then.get(key, 0)
            for key, count in counters.items()
            if key[0] in FAMILIES and count > then.get(key, 0)
        }
        return Recent(now_s - then_s, moved)


def failing_legs(route: Route, recent: Recent) -> list[str]:
    """Return a sentence for each leg of a route more than half of whose calls failed lately.

    An error answer (4xx, 5xx) of a candidate that is only mirrored counts as far as it is beyond
    the share of them that users got from the primary: a client that sends nonsense makes no
    candidate bad. What users get is judged by requests without an answer alone.
    """
    users = recent.by_last_label("served", route.name)
    found = []
    if (told := _judge(f"{route.name} for its users", users, 1.0, recent.span_s)) is not None:
        found.append(told)
    has_canary = any(recent.by_last_label("canary", route.name).values())
    excused = users.get(Outcome.HTTP_ERROR, 0) / max(1, sum(users.values()))
    excused = 0.0 if has_canary else excused
    for candidate in route.candidates:
        legs = recent.by_last_label("leg", route.name, candidate.name)
        legs = {word: count for word, count in legs.items() if word not in NEVER_MADE}
        name = f"{route.name}/{candidate.name}"
        if (told := _judge(name, legs, excused, recent.span_s)) is not None:
            found.append(told)
    return found


def _judge(name: str, ended: Mapping[str, int], excused: float, span_s: float) -> str | None:
    calls = sum(count for word, count in ended.items() if word != Outcome.CANCELLED)
    failed = sum(ended.get(word, 0) for word in HARD_FAILURES)
    failed += max(0, ended.get(Outcome.HTTP_ERROR, 0) - round(excused * calls))
    if calls < MIN_CALLS or failed <= FAILING_SHARE * calls:
        return None
    words = ", ".join(f"{word} {n}" for word, n in ended.items() if word != Outcome.OK)
    return f"{name}: {failed} of {calls} calls failed in the last {span_s:.0f} s ({words})"
