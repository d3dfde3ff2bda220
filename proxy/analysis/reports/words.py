"""How verdicts, shares and names of the document are said. Pure.

A loss difference is said in per cent of all requests: how many more of them speak against the
candidate than against the primary. Without labels a candidate differs more or less; it is never said
to be better or worse.
"""

from __future__ import annotations

from typing import Any, Final

from proxy.analysis.reports.document import Object, count_of, number_of, object_of, text_of
from proxy.analysis.reports.page import Tone
from proxy.analysis.wording import milliseconds, percent

#: What anybody understands, and how it looks, by verdict.
VERDICTS: Final = {
    "promote": ("May be shipped", Tone.GOOD),
    "halt": ("Stop", Tone.BAD),
    "continue": ("Not enough yet", Tone.OPEN),
    "no_data": ("No data to judge by", Tone.OPEN),
}
#: Why to stop, by the metric of the gate that says so.
STOPS: Final = {
    "agreement": "its answers differ more than allowed",
    "correctness": "it is wrong more often than allowed",
    "availability": "it fails more often than allowed",
    "latency": "it is slow more often than allowed",
}
#: Where nothing was judged.
NO_VERDICT: Final = ("No verdict", Tone.OPEN)

#: Intervals of shares narrower than this are told with another digit: not as 100.0-100.0%.
_NARROW: Final = 0.001

#: What a gate's difference counts, by metric.
METRICS: Final = {
    "agreement": "answers that differ from the primary's",
    "correctness": "wrong answers",
    "availability": "failed requests",
    "latency": "requests over the latency budget",
}


def verdict_of(candidate: Object) -> tuple[str, Tone]:
    """Return what a candidate's verdict is called, and how it looks."""
    found = object_of(candidate.get("verdict"))
    said, reason = found.get("verdict"), text_of(found.get("reason"))
    name, tone = VERDICTS.get(said, NO_VERDICT) if isinstance(said, str) else NO_VERDICT
    why = STOPS.get(reason.partition(":")[0]) if said == "halt" else None
    if reason == "sample_ratio":
        why = "traffic is not split as declared"
    return f"{name}: {why}" if why else name, tone


def gate(metric: str, budget_ms: float | None) -> str:
    """Return a gate's name and what its difference counts."""
    counted = METRICS.get(metric)
    budget = "" if budget_ms is None else f" of {milliseconds(budget_ms)}"
    return f"{metric}, {counted}{budget}" if counted else metric


def outcome(value: Any) -> str:
    """Return a gate's outcome for people, what is unknown as it is."""
    words = {
        "promote": "within margin",
        "halt": "over margin",
        "continue": "undecided",
        "no_data": "no data",
    }
    return words.get(value, str(value)) if isinstance(value, str) else "-"


def points(value: Any) -> str:
    """Return a signed difference of shares in per cent of all requests, such as `+0.31%`."""
    found = number_of(value)
    if found is None:
        return "-"
    shown = f"{100 * found:+.2f}"
    return "0.00%" if float(shown) == 0 else f"{shown}%"


def bounds(low: Any, high: Any) -> str:
    """Return an interval of signed differences."""
    if number_of(low) is None or number_of(high) is None:
        return "-"
    return f"{points(low)} to {points(high)}"


def margin(value: Any) -> str:
    """Return how much worse is allowed, such as `1%`."""
    found = number_of(value)
    return "-" if found is None else f"{100 * found:.4g}%"


def share(value: Any) -> str:
    """Return a share, given as a number or as an object of counts, in per cent."""
    found = number_of(value)
    if found is not None:
        return f"{100 * found:.4g}%"
    counts = object_of(value)
    if count_of(counts.get("total")):
        return percent(count_of(counts.get("count")), count_of(counts.get("total")))
    return share(counts["rate"]) if number_of(counts.get("rate")) is not None else "-"


def share_bounds(value: Any) -> str:
    """Return the interval of a share, `-` without any."""
    low, high = (number_of(object_of(value).get(end)) for end in ("low", "high"))
    if low is None or high is None:
        return "-"
    digits = 1 if high - low >= _NARROW else 2
    return f"{100 * low:.{digits}f}-{100 * high:.{digits}f}%"


def evidence(value: Any) -> str:
    """Return an e-value with what one needs of it."""
    found = number_of(value)
    if found is None:
        return "-"
    if found >= 1e6:
        return f"{found:.0e}".replace("e+0", "e").replace("e+", "e")
    return f"{found:,.0f}" if found >= 100 else f"{found:.3g}" if found >= 0.01 else "<0.01"


def named(key: str) -> str:
    """Return a key of the document as words."""
    return key.replace("_", " ")
