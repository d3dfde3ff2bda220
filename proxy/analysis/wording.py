"""How numbers and verdict-free findings are said, in the report and in JSON alike. Pure.

Rounding never turns "almost" into "all": 9,999 of 10,000 is not written as 100%. Without ground
truth a candidate agrees or differs; it is never said to be better or worse.
"""

from __future__ import annotations

from proxy.analysis.proportions import Correctness, Proportion
from proxy.analysis.summary import Leg

NO_VERDICT = "No verdict: counts of one look, not a test; without labels nobody knows who is right."

#: Where labels say who is right, this is left to say.
NO_TEST = "No verdict: counts of one look, not a test."


def percent(count: int, total: int) -> str:
    """Return the share in per cent, with one decimal or as many as tell it from 0% and 100%."""
    if not total:
        return "-"
    if count in (0, total):
        return "100%" if count else "0%"
    share = 100 * count / total
    for digits in (1, 2, 3):
        text = f"{share:.{digits}f}"
        if 0 < float(text) < 100:
            return f"{text}%"
    return "<0.001%" if count * 2 < total else ">99.999%"


def number(value: float | None) -> str:
    """Return `value` with three significant digits, or `-`."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 1e6 or size < 1e-3:
        return f"{value:.2e}"
    if size >= 99.95:
        return f"{value:,.0f}"
    return f"{value:.1f}" if size >= 9.995 else f"{value:.2f}" if size >= 0.9995 else f"{value:.3f}"


def milliseconds(value: float | None, *, is_signed: bool = False) -> str:
    """Return a duration such as `12.4 ms`; with `is_signed`, a difference such as `+3.10 ms`."""
    if value is None:
        return "-"
    sign = "+" if is_signed and value > 0 else ""
    return f"{sign}{number(value)} ms"


def share(proportion: Proportion) -> str:
    """Return the share in per cent, `-` without any."""
    return percent(proportion.count, proportion.total)


def printable(value: str) -> str:
    """Return `value` with control characters made visible: names and answers come from outside."""
    if value.isprintable():
        return value
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value)


def headline(
    name: str,
    pairs: int,
    agreement: Proportion,
    primary: Leg,
    candidate: Leg,
    correctness: Correctness | None = None,
) -> str:
    """Return the finding about one candidate in one or two sentences.

    Args:
        name: `route/candidate`.
        pairs: how many pairs there are.
        agreement: equal among comparable.
        primary: the side that is compared with.
        candidate: the side under trial.
        correctness: what labels say of both, where there are any.
    """
    agrees = f"{share(agreement)} agree" if agreement.total else "none comparable"
    parts = [
        f"{name}: {pairs:,} {'pair' if pairs == 1 else 'pairs'}, {agrees}",
        f"candidate errors {share(candidate.errors)} against {share(primary.errors)}"
        if candidate.errors.total
        else "the candidate was never asked",
    ]
    if candidate.latency_ms.count and primary.latency_ms.count:
        mine, theirs = candidate.latency_ms.p99, primary.latency_ms.p99
        parts.append(f"p99 {milliseconds(mine)} against {milliseconds(theirs)}")
    if correctness is None or not correctness.candidate.total:
        return f"{'; '.join(parts)}. {NO_VERDICT}"
    right = f"right {share(correctness.candidate)} against {share(correctness.primary)}"
    parts.append(f"{right} of {correctness.candidate.total:,} labelled")
    return f"{'; '.join(parts)}. {NO_TEST}"
