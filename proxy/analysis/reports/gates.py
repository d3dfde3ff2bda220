"""Sections that a verdict rests on: the gates and agreement, statuses and latency. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.analysis.reports import words
from proxy.analysis.reports.document import (
    Object,
    count_of,
    list_of,
    number_of,
    object_of,
    objects_of,
    text_of,
)
from proxy.analysis.reports.page import (
    Block,
    Curve,
    Forest,
    Interval,
    Note,
    QuantilePlot,
    Section,
    Table,
)
from proxy.analysis.wording import milliseconds, number, percent

_QUANTILES = ("p50", "p90", "p99")
_BOUNDS = "In brackets: bounds of the quantile that hold however often one looks."


def agreement(candidate: Object) -> Iterator[Section]:
    """Yield the gates with their intervals against the margins, then agreement and its noise."""
    blocks = [*_gates(candidate), *_agreement(object_of(candidate.get("agreement")))]
    if blocks:
        yield Section("Agreement, and what the gates say", tuple(blocks))


def statuses(candidate: Object) -> Iterator[Section]:
    """Yield how the calls of both sides ended."""
    found = object_of(candidate.get("statuses"))
    primary, other = (object_of(found.get(side)) for side in ("primary", "candidate"))
    names = dict.fromkeys((*primary, *other))
    if names:
        rows = tuple((words.named(name), *_counted(primary, other, name)) for name in names)
        table = Table("How calls ended", ("status", "primary", "candidate"), rows)
        yield Section("Errors", (table, *_error_texts(object_of(candidate.get("errors")))))


def latency(candidate: Object) -> Iterator[Section]:
    """Yield latency of both sides."""
    blocks = latency_blocks("Latency", object_of(candidate.get("latency_ms")))
    if blocks:
        yield Section("Latency", blocks)


def latency_blocks(title: str, found: Object) -> tuple[Block, ...]:
    """Return a table and, where there are quantiles, a plot; nothing without data."""
    primary, other = (object_of(found.get(side)) for side in ("primary", "candidate"))
    if not primary and not other:
        return ()
    rows = [(key, *(_bounded(side, key) for side in (primary, other))) for key in _QUANTILES]
    rows.append(("calls", *(f"{count_of(side.get('count')):,}" for side in (primary, other))))
    table = Table(title, ("", "primary", "candidate"), tuple(rows))
    plot = _quantile_plot(title, list_of(found.get("quantiles")))
    has_bounds = any("(" in cell for row in rows for cell in row)
    note = (_BOUNDS,) if has_bounds else ()
    return (*((plot,) if plot else ()), table, *note)


def _bounded(side: Object, key: str) -> str:
    """Return a quantile with its bounds, where both are known."""
    shown = milliseconds(number_of(side.get(key)))
    ends = [*map(number_of, list_of(object_of(side.get("bounds")).get(key)))]
    if len(ends) != 2 or None in ends:
        return shown
    return f"{shown} ({number(ends[0])} to {number(ends[1])})"


def interval_of(
    name: str, found: Object, margin: float | None, *, is_flagged: bool
) -> Interval | None:
    """Return the interval of a gate or segment; None where it has no bounds."""
    low, high = number_of(found.get("low")), number_of(found.get("high"))
    if low is None or high is None:
        return None
    return Interval(name, low, number_of(found.get("mean")), high, margin, is_flagged)


def margins_of(candidate: Object) -> dict[str, float | None]:
    """Return the margin of each gate, by metric."""
    gates = objects_of(object_of(candidate.get("verdict")).get("gates"))
    return {text_of(gate.get("metric")): number_of(gate.get("margin")) for gate in gates}


def _gates(candidate: Object) -> Iterator[Block]:
    gates = objects_of(object_of(candidate.get("verdict")).get("gates"))
    if not gates:
        return
    intervals = tuple(
        interval_of(
            text_of(gate.get("metric")),
            gate,
            number_of(gate.get("margin")),
            is_flagged=gate.get("verdict") == "halt",
        )
        for gate in gates
    )
    drawn = tuple(each for each in intervals if each is not None)
    counted = "; ".join(
        words.gate(text_of(gate.get("metric")), number_of(gate.get("budget_ms"))) for gate in gates
    )
    yield Note(
        "How many more of 100 requests count against the candidate than against the primary. A gate is "
        "passed when the whole interval is left of its margin, and says stop when all of it is right "
        f"of it. These bounds hold however often one looks. Counted are, for {counted}. The e-values "
        f"are the evidence for either{_acts_at(gates)}."
    )
    if drawn:
        yield Forest("Difference by gate, against its margin", drawn)
    head = ("gate", "finding", "difference", "bounds", "margin", "pairs", "e promote", "e halt")
    yield Table(
        "Gates",
        head,
        tuple(_gate_row(gate) for gate in gates),
        texts=frozenset({0, 1}),
        extra=frozenset({6, 7}),
        flagged=frozenset(n for n, gate in enumerate(gates) if gate.get("verdict") == "halt"),
    )
    if "correctness" not in {text_of(gate.get("metric")) for gate in gates}:
        yield (
            "Without labels nobody knows who is right: a candidate that mends the primary's mistakes "
            "differs, too."
        )
    if object_of(candidate.get("verdict")).get("gates_from") == "defaults":
        yield "No gates are declared for this candidate: these are the defaults."


def _acts_at(gates: list[Object]) -> str:
    """Return at which e-value the gates act, where all do at one."""
    alphas = {number_of(gate.get("alpha")) for gate in gates}
    alpha = alphas.pop() if len(alphas) == 1 else None
    return "" if not alpha else f"; a gate acts at {1 / alpha:.4g}"


def _gate_row(gate: Object) -> tuple[str, ...]:
    return (
        text_of(gate.get("metric")),
        words.outcome(gate.get("verdict")),
        words.points(gate.get("mean")),
        words.bounds(gate.get("low"), gate.get("high")),
        words.margin(gate.get("margin")),
        f"{count_of(gate.get('n')):,}",
        words.evidence(gate.get("e_promote")),
        words.evidence(gate.get("e_halt")),
    )


def _agreement(found: Object) -> Iterator[Block]:
    """Yield the plain shares; the floor is how often the primary differs from itself."""
    if not found:
        return
    floor = object_of(found.get("noise_floor"))
    compared, repeated = count_of(found.get("comparable")), count_of(floor.get("total"))
    equal = {"count": found.get("equal"), "total": found.get("comparable")}
    differ = {"count": compared - count_of(found.get("equal")), "total": compared}
    rows = [
        (
            "candidate agrees with primary",
            words.share(equal),
            words.share_bounds(found),
            f"{compared:,}",
        ),
        ("candidate differs from primary", words.share(differ), _rest(found), f"{compared:,}"),
    ]
    if repeated:
        name = "primary differs from itself (noise floor)"
        rows.append((name, words.share(floor), words.share_bounds(floor), f"{repeated:,}"))
    yield Table(
        "Agreement (95% intervals, one look)", ("", "share", "interval", "pairs"), tuple(rows)
    )
    if not repeated:
        yield "No request was repeated to the primary, so its own noise is taken as 0."
    reasons = object_of(found.get("not_comparable"))
    if reasons:
        listed = ", ".join(f"{words.named(name)} {count_of(n):,}" for name, n in reasons.items())
        yield f"Not comparable: {listed}."


def _rest(found: Object) -> str:
    """Return the interval of the share that is left to 1."""
    low, high = number_of(found.get("low")), number_of(found.get("high"))
    return words.share_bounds(
        {"low": None if high is None else 1.0 - high, "high": None if low is None else 1.0 - low}
    )


def _error_texts(found: Object) -> Iterator[Block]:
    primary, other = (object_of(found.get(side)) for side in ("primary", "candidate"))
    names = dict.fromkeys((*primary, *other))
    if names:
        rows = tuple(
            (name, *(f"{count_of(side.get(name)):,}" for side in (primary, other)))
            for name in names
        )
        yield Table("Most frequent errors", ("error", "primary", "candidate"), rows)


def _counted(primary: Object, other: Object, name: str) -> tuple[str, str]:
    totals = (sum(map(count_of, side.values())) for side in (primary, other))
    counts = (count_of(side.get(name)) for side in (primary, other))
    first, second = (
        f"{count:,} ({percent(count, total)})" if count else "0"
        for count, total in zip(counts, totals, strict=True)
    )
    return first, second


def _quantile_plot(title: str, quantiles: list[object]) -> QuantilePlot | None:
    rows = [[*map(number_of, list_of(each)[:3])] for each in quantiles]
    curves = []
    for place, name in ((1, "primary"), (2, "candidate")):
        found = [(row[0], row[place]) for row in rows if len(row) == 3]
        points = tuple((x, y) for x, y in found if x is not None and y is not None)
        curves.append(Curve(name, points))
    if min(len(curve.points) for curve in curves) < 2:
        return None
    return QuantilePlot(f"{title} by quantile", tuple(curves))
