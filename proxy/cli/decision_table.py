"""Decisions as a table on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from proxy.config.resolved import FULL_BP


def decision_table(found: Iterable[Mapping[str, Any]], title: str = "") -> Table:
    """Return decisions as a table, in their order."""
    table = Table(title=title or None, title_justify="left")
    table.add_column("when", no_wrap=True)
    for name in ("what", "of", "from", "to", "who", "why"):
        table.add_column(name, overflow="fold")
    for each in found:
        is_refused = each["outcome"] == "refused"
        why = f"{each['refusal']} (asked: {each['reason']})" if is_refused else each["reason"]
        table.add_row(
            str(each["ts"]).replace("T", " ").removesuffix("Z"),
            Text(f"{each['action']}, refused" if is_refused else each["action"], _style(each)),
            Text(each["scope"]),
            Text(_told(each, "old")),
            Text(_told(each, "new")),
            Text(f"{each['who']} ({each['via']})"),
            Text(f"{why} [{each['note']}]" if each["note"] else why),
        )
    return table


def _style(each: Mapping[str, Any]) -> str:
    if each["outcome"] == "refused":
        return "yellow"
    return "bold red" if each["action"] in ("kill", "ramp_halt") else ""


def _told(each: Mapping[str, Any], key: str) -> str:
    value = each[key]
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value * 100 / FULL_BP:g}%"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
