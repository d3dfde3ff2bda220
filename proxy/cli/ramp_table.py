"""Ramps on a terminal: where each is, what its gates say and how sure they are, what it waits for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

_STYLES = {"promoted": "green", "rolled_back": "bold red", "paused": "yellow"}
_OUTCOMES = {"promote": "green", "halt": "bold red"}
#: Evidence beyond it, or below one in so many, is said to be more than this, or less.
_MUCH = 1_000.0
#: From here on its decimals say nothing.
_WHOLE = 10.0
#: A unit and its seconds, and the next smaller one and its.
_UNITS = (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1))
#: Below it, tenths of a second matter.
_SHORT_S = 10


def ramp_table(ramps: Mapping[str, Mapping[str, Any]]) -> RenderableType:
    """Return the ramps by name, one below the other; what the status document says of each."""
    parts: list[RenderableType] = [Text("ramps", "italic")]
    for name, told in ramps.items():
        parts += [_headline(name, told), *_notes(told)]
        if told.get("gates"):
            parts.append(_gates(told))
        if told.get("judged_by"):
            since = f"unchanged for {span(told['judged_s'])}"
            parts.append(Text(f"  as {told['judged_by']} judges, which leads; {since}", "dim"))
    return Group(*parts)


def _headline(name: str, told: Mapping[str, Any]) -> Text:
    """Return the name, the words, and the way with the place in it."""
    words = Text(str(told["words"]).replace("_", " "), _STYLES.get(told["phase"], "bold"))
    line = Text.assemble((name, "bold"), "  ", words)
    way = ["shadow", *(f"{weight_bp / 100:g}%" for weight_bp in told.get("weights_bp", ()))]
    if told["phase"] not in ("idle", "rolled_back"):
        line.append("  ")
        for number, place in enumerate(way):
            line.append(" → " if number else "", "dim")
            here = number == told["step"]
            line.append(f"[{place}]" if here else place, "bold" if here else "dim")
    return line


def _notes(told: Mapping[str, Any]) -> Iterator[Text]:
    """Return what it waits for and how long, or why it is where it is, and its trouble."""
    if told.get("elapsed_s") is not None:
        yield from (Text(f"  {line}") for line in _times(told))
    if told["waits"] and told["waits"] != told.get("why"):
        yield Text(f"  waits: {told['waits']}")
    elif told.get("why"):
        yield Text(f"  because: {told['why']}" + (f", by {told['who']}" if told["who"] else ""))
    if told.get("trouble"):
        yield Text(f"  trouble: {told['trouble']}", "bold red")


def _times(told: Mapping[str, Any]) -> Iterator[str]:
    left = f", {span(told['wait_s'])} to wait" if told["wait_s"] else ""
    yield (
        f"{told['pairs']:,} pairs (at least {told['min_pairs']:,}), "
        f"{span(told['elapsed_s'])} in this step{left}"
    )
    if told["expires_s"] is not None:
        yield f"rolled back in {span(told['expires_s'])} unless it passes"
    if told["approval"] == "manual":
        yield "when it passes, an operator must promote it"


def _gates(told: Mapping[str, Any]) -> Table:
    """Return a line for each gate; the bounds hold at every look. It fits 80 columns."""
    table = Table(box=None, padding=(0, 0, 0, 2), pad_edge=True, header_style="dim")
    for name in ("gate", "says"):
        table.add_column(name)
    for name in ("pairs", "worse by", "may be", "to promote", "to halt"):
        table.add_column(name, justify="right")
    for gate in told["gates"]:
        style = _OUTCOMES.get(gate["outcome"], "")
        margin = "" if gate.get("margin") is None else f"{gate['margin'] * 100:g}%"
        table.add_row(
            gate["metric"], Text(gate["outcome"], style), f"{gate['pairs']:,}", _worse(gate),
            margin, _evidence(gate, "promote"), _evidence(gate, "halt"),
        )  # fmt: skip
    return table


def _worse(gate: Mapping[str, Any]) -> str:
    """Return the mean of the differences with the bounds that hold at every look, in percent."""
    if gate["mean"] is None:
        return ""
    return f"{gate['mean']:+.1%} ({gate['lower'] * 100:+.1f} to {gate['upper'] * 100:+.1f})"


def _evidence(gate: Mapping[str, Any], side: str) -> str:
    """Return the evidence for one side, and at how much the gate acts."""
    if "acts_at" not in gate:
        return ""
    log_e = gate[f"log_e_{side}"]
    if log_e > math.log(_MUCH):
        shown = f">{_MUCH:,.0f}"
    elif log_e < -math.log(_MUCH):
        shown = f"<{1 / _MUCH:g}"
    else:
        value = math.exp(log_e)
        shown = f"{value:.0f}" if value >= _WHOLE else f"{value:.2g}"
    return f"{shown}/{gate['acts_at']:g}"


def span(seconds: float) -> str:
    """Return a time as a person says it: `0.4 s`, `12 s`, `9 min 5 s`, `3 h 20 min`, `2 d 4 h`."""
    whole = round(seconds)
    for unit, size, smaller, part in _UNITS:
        if whole >= size:
            rest = whole % size // part
            return f"{whole // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds:.1f} s" if seconds < _SHORT_S else f"{whole} s"
