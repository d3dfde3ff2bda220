"""Ramps as a table on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

_STYLES = {"promoted": "green", "rolled_back": "bold red", "paused": "yellow"}
_OUTCOMES = {"promote": "green", "halt": "bold red"}


def ramp_table(ramps: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return a line for each ramp and, below it, one for each of its gates."""
    table = Table(title="ramps", title_justify="left")
    for name in ("ramp", "phase", "gate", "says", "pairs", "difference", "why"):
        table.add_column(name)
    for name, told in ramps.items():
        why = told["waits"] or told.get("why", "")
        table.add_row(
            name, Text(told["words"], _STYLES.get(told["phase"], "")), "", "", "", "", why
        )
        for gate in told.get("gates", ()):
            table.add_row(
                "", "", gate["metric"], Text(gate["outcome"], _OUTCOMES.get(gate["outcome"], "")),
                str(gate["pairs"]), _difference(gate), gate["reason"],
            )  # fmt: skip
    return table


def _difference(gate: Mapping[str, Any]) -> str:
    """Return the mean of the differences with the bounds that hold at every look."""
    if gate["mean"] is None:
        return ""
    return f"{gate['mean']:+.4f} ({gate['lower']:+.4f} to {gate['upper']:+.4f})"
