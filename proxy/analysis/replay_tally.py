"""What a replay has done so far, counted; and how that is said. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from proxy.analysis.replay_request import WORDS, Skip
from proxy.analysis.source import Record
from proxy.analysis.wording import percent

#: Less is a hiccup.
_TOLD_HELD_S: Final = 0.1


@dataclass(slots=True)
class ReplayTally:
    """Counts over a whole replay, earlier runs of it included.

    Attributes:
        statuses: pairs, by how the asked backend's leg ended; all of them are `sent`.
        equal, different: pairs that could be compared.
        not_comparable: those that could not, by reason.
        skipped: records that were not sent, by reason.
        resumed: pairs that earlier runs made.
        again: requests that were under way when an earlier run ended, and were sent again.
        held_s: for how long the cap on requests in flight kept the rate down.
        is_complete: the source, or the limit, was reached.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    equal: int = 0
    different: int = 0
    not_comparable: Counter[str] = field(default_factory=Counter)
    skipped: Counter[Skip] = field(default_factory=Counter)
    resumed: int = 0
    again: int = 0
    held_s: float = 0.0
    is_complete: bool = False

    @property
    def sent(self) -> int:
        """Return how many requests were sent and have a pair."""
        return self.statuses.total()

    def note(self, pair: Record) -> None:
        """Count a pair."""
        self.statuses[pair["candidate_status"]] += 1
        if not pair["comparable"]:
            self.not_comparable[pair["not_comparable_reason"] or ""] += 1
        elif pair["equal"]:
            self.equal += 1
        else:
            self.different += 1


def progress_words(tally: ReplayTally) -> str:
    """Return what stands before the bar."""
    slow = ", slowed down by --max-in-flight" if tally.held_s >= _TOLD_HELD_S else ""
    return f"{tally.sent:,} sent{slow}"


def document(tally: ReplayTally, out: str, instance: str) -> dict[str, Any]:
    """Return the summary as a value for JSON."""
    comparable = tally.equal + tally.different
    return {
        "file": out,
        "instance": instance,
        "is_complete": tally.is_complete,
        "sent": tally.sent,
        "ok": tally.statuses["ok"],
        "errors": {name: n for name, n in sorted(tally.statuses.items()) if name != "ok"},
        "comparable": comparable,
        "equal": tally.equal,
        "different": tally.different,
        "agreement": tally.equal / comparable if comparable else None,
        "not_comparable": dict(tally.not_comparable.most_common()),
        "skipped": {str(name): n for name, n in sorted(tally.skipped.items()) if n},
        "resumed": tally.resumed,
        "sent_again": tally.again,
        "held_s": round(tally.held_s, 3),
    }


def lines(tally: ReplayTally, out: str) -> Iterator[str]:
    """Yield the summary in sentences."""
    failed = tally.sent - tally.statuses["ok"]
    words = f"{tally.sent:,} requests sent, {tally.statuses['ok']:,} ok, {failed:,} errors"
    kinds = [f"{n:,} {name}" for name, n in tally.statuses.most_common() if name != "ok"]
    yield f"{words} ({', '.join(kinds)})" if kinds else words
    comparable = tally.equal + tally.different
    if comparable:
        yield (
            f"{percent(tally.equal, comparable)} of {comparable:,} comparable answers agree with the "
            f"recorded ones; {tally.different:,} differ"
        )
    for reason, count in tally.not_comparable.most_common():
        yield f"{count:,} not comparable: {reason}"
    for skip, count in sorted(tally.skipped.items()):
        if count:
            yield f"{count:,} records {WORDS[skip]}"
    if tally.resumed:
        yield f"{tally.resumed:,} of them were sent by an earlier run"
    if tally.again:
        yield (
            f"{tally.again:,} requests were under way when that was stopped: those were sent again, so "
            "the backend may have seen them twice"
        )
    if tally.held_s >= _TOLD_HELD_S:
        yield (
            f"the rate was not held for {tally.held_s:,.1f} s, because as many requests were in flight "
            "as --max-in-flight allows"
        )
    if tally.sent:
        yield f"the pairs: understudy compare --from {out}"
