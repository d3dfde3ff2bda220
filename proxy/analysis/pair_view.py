"""Pairs for a person: one in a line, or one as a page with its answers side by side. Pure.

Decides what differs between two answers as they are written, path by path. Whether that matters is
the comparator's word, which stands at the top: numbers within its tolerance differ here and are
equal there. Everything that came from requests and models is text, never markup.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from proxy.analysis.pair_filter import has_failed
from proxy.analysis.source import Record
from proxy.analysis.wording import milliseconds, number, printable
from proxy.pairs.record import FIELDS, SIDES

#: Paths shown of each answer: those that differ, and those that do not.
MAX_DIFFERING: Final = 40
MAX_SAME: Final = 10
#: Characters shown of one value.
MAX_VALUE: Final = 200
#: Digits shown of a SHA-256: enough to see whether two are the same.
SHORT_DIGEST: Final = 12
#: Values looked at in one answer; those behind are not compared.
MAX_LEAVES: Final = 50_000

_BAD, _DIFFERENT, _LABEL = "red", "yellow", "dim"
_MARK: Final = "≠ "

#: Fields of the record that belong to no leg, in groups; the comparison's are in the headline.
GROUPS: Final = {
    "identity": (
        "pair_id", "request_id", "trace_id", "span_id", "parent_span_id", "trace_sampled",
        "experiment_id", "instance", "seq", "proxy_version", "config_version", "schema_version",
    ),
    "decision": (
        "mode", "served_by", "rescued", "ramp_step", "ramp_weight_bp", "assign_prob",
        "sample_prob", "sample_weight", "unit_hash", "segments",
    ),
    "request": (
        "method", "path", "protocol", "content_type", "request_bytes", "request_sha256",
        "request_body", "request_body_encoding",
    ),
}  # fmt: skip
HEADLINE: Final = (
    "ts", "ts_ms", "route", "candidate", "comparator", "comparable", "not_comparable_reason",
    "equal", "replicate_equal", "loss_diff", "abs_diff", "rel_diff", "first_diff_path",
)  # fmt: skip

_LEG_FIELDS: Final = tuple(
    field.name.removeprefix("primary_") for field in FIELDS if field.name.startswith("primary_")
)
#: What is shown as an answer, path by path, and not as a row of its own.
_ANSWER_FIELDS: Final = ("prediction", "body")
#: Rows in which a difference says something of the answers, not of the moment.
_TOLD_APART: Final = ("status", "http_status", "error", "model_version", "finish_reason")


def line(pair: Record) -> Text:
    """Return a pair in one line: when, what, how both legs ended, whether they agree, its id."""
    verdict = _verdict(pair)
    if has_failed(pair):
        verdict.stylize(_BAD)
    elif pair.get("equal") is False:
        verdict.stylize(_DIFFERENT)
    legs = ", ".join(f"{side} {_ending(pair, side)}" for side in ("primary", "candidate"))
    parts = (
        _plain(pair["ts"].replace("T", " ")[:23]),
        _plain(f"{pair['route']}/{pair['candidate']}"),
        _plain(legs),
        verdict,
        Text(printable(pair["pair_id"]), style=_LABEL),
    )
    return Text("  ").join(parts)


def page(pair: Record, *, is_whole: bool = False) -> RenderableType:
    """Return everything in a pair: headline, both answers side by side, then the rest in groups.

    Args:
        pair: for which `is_pair` holds.
        is_whole: show all paths and values, however many and long.
    """
    sides = [side for side in SIDES if pair.get(f"{side}_backend") is not None]
    head = Text("  ").join((_plain(f"{pair['route']}/{pair['candidate']}"), _verdict(pair)))
    head.stylize("bold")
    return Group(
        head,
        _plain(f"{pair['ts']}  {_measures(pair)}".rstrip()),
        Text(),
        _legs(pair, sides, is_whole=is_whole),
        *(_group(title, pair, names, is_whole=is_whole) for title, names in GROUPS.items()),
    )


def _verdict(pair: Record) -> Text:
    if pair.get("equal") is True:
        return Text("equal")
    if pair.get("equal") is False:
        path = pair.get("first_diff_path")
        return _plain(f"differs at {path}" if path else "differs")
    return _plain(f"not comparable: {pair.get('not_comparable_reason') or 'nobody says why'}")


def _measures(pair: Record) -> str:
    """Return what the comparator measured, such as `numeric, abs_diff 0.300`."""
    measured = [
        f"{name} {number(pair[name])}"
        for name in ("abs_diff", "rel_diff", "loss_diff")
        if pair.get(name) is not None
    ]
    if pair.get("replicate_equal") is not None:
        measured.append(f"replicate_equal {_shown(pair['replicate_equal'])}")
    return ", ".join([str(pair.get("comparator") or ""), *measured])


def _ending(pair: Record, side: str) -> str:
    status, http_status = pair.get(f"{side}_status"), pair.get(f"{side}_http_status")
    how = str(http_status) if status in ("ok", "http_error") and http_status else str(status)
    latency_ms = pair.get(f"{side}_latency_ms")
    return how if latency_ms is None else f"{how} in {milliseconds(latency_ms)}"


def _legs(pair: Record, sides: list[str], *, is_whole: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("", style=_LABEL, no_wrap=True)
    for side in sides:
        table.add_column(side, overflow="fold", ratio=1)
    for name in _LEG_FIELDS:
        values = [pair.get(f"{side}_{name}") for side in sides]
        if name not in _ANSWER_FIELDS and any(value is not None for value in values):
            is_marked = name in _TOLD_APART and _first_two_differ(values)
            shown = [_shown(value) for value in values]
            if name == "response_sha256" and not is_whole:
                shown = [digest[:SHORT_DIGEST] for digest in shown]
            _add_row(table, name, shown, is_marked=is_marked, is_whole=is_whole)
    for name in _ANSWER_FIELDS:
        _add_answers(table, name, [_answer(pair, side, name) for side in sides], is_whole=is_whole)
    return table


def _add_answers(table: Table, name: str, answers: list[Any], *, is_whole: bool) -> None:
    """Add a row for each path of the answers: in their order, the same ones only as context."""
    if all(answer is None for answer in answers):
        return
    columns = [dict(leaves(answer, name)) for answer in answers]
    left = {True: 2**63, False: 2**63} if is_whole else {True: MAX_DIFFERING, False: MAX_SAME}
    hidden = {True: 0, False: 0}
    table.add_section()
    for path in dict.fromkeys(path for column in columns for path in column):
        values = [column.get(path, "") for column in columns]
        differs = _first_two_differ(values)
        if left[differs]:
            left[differs] -= 1
            _add_row(table, path, values, is_marked=differs, is_whole=is_whole)
        else:
            hidden[differs] += 1
    for differs, word in ((True, "that differ"), (False, "that are the same")):
        if hidden[differs]:
            table.add_row(Text(f"  … {hidden[differs]:,} more {word}"))


def leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield the path and the JSON text of every plain value in `value`, `MAX_LEAVES` at most.

    An empty object or list counts as one.
    """
    stack = [(path, value)]
    for _ in range(MAX_LEAVES):
        if not stack:
            return
        path, value = stack.pop()
        while isinstance(value, dict | list) and value:
            items = (
                [(f"{path}.{key}", item) for key, item in value.items()]
                if isinstance(value, dict)
                else [(f"{path}[{place}]", item) for place, item in enumerate(value)]
            )
            (path, value), rest = items[0], items[1:]
            stack.extend(reversed(rest))
        yield path, orjson.dumps(value).decode()


def _answer(pair: Record, side: str, name: str) -> Any:
    """Return a prediction, or a body as the JSON document that it is; else its text."""
    value = pair.get(f"{side}_{name}")
    if name != "body" or not isinstance(value, str) or pair.get(f"{side}_body_encoding") != "utf-8":
        return value
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        return value


def _first_two_differ(values: list[Any]) -> bool:
    return len(values) > 1 and values[0] != values[1]


def _add_row(
    table: Table, name: str, values: list[str], *, is_marked: bool, is_whole: bool
) -> None:
    style = _DIFFERENT if is_marked else ""
    cells = [Text(_cut(value, is_whole=is_whole), style=style) for value in values]
    table.add_row(Text(printable((_MARK if is_marked else "  ") + name), style=style), *cells)


def _group(title: str, pair: Record, names: tuple[str, ...], *, is_whole: bool) -> Table:
    table = Table(box=None, padding=(0, 1), title=Text(title, style="bold"), title_justify="left")
    table.show_header = False
    table.add_column(style=_LABEL)
    table.add_column(overflow="fold")
    for name in names:
        if pair.get(name) not in (None, {}):
            table.add_row(f"  {name}", Text(_cut(_shown(pair[name]), is_whole=is_whole)))
    return table


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def _cut(value: str, *, is_whole: bool) -> str:
    cut = value if is_whole or len(value) <= MAX_VALUE else f"{value[:MAX_VALUE]}…"
    return printable(cut)


def _plain(value: str) -> Text:
    return Text(printable(value))
