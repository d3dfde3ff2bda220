"""The section on streamed answers: first token, pauses, lengths, how they finished. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from proxy.analysis.reports import words
from proxy.analysis.reports.document import Object, count_of, number_of, object_of, text_of
from proxy.analysis.reports.page import Block, Section, Table
from proxy.analysis.wording import milliseconds, number

_SIDES = ("primary", "candidate")
_QUANTILES = ("p50", "p90", "p99")


def streams(candidate: Object) -> Iterator[Section]:
    """Yield quantiles of each measure in one table, and counts of each kind in another."""
    found = object_of(candidate.get("stream"))
    measures, counts = [], []
    for key, value in found.items():
        sides = [object_of(object_of(value).get(side)) for side in _SIDES]
        if any("p50" in side for side in sides):
            measures.append((_name(key), *(_quantiles(key, side) for side in sides)))
        elif any(sides):
            names = dict.fromkeys(chain.from_iterable(sides))
            counts += [
                (f"{words.named(key)}: {name}", *(f"{count_of(s.get(name)):,}" for s in sides))
                for name in names
            ]
        else:
            plain = [object_of(value).get(side) for side in _SIDES]
            if any(each is not None for each in plain):
                counts.append((words.named(key), *map(_plain, plain)))
    blocks: list[Block] = []
    if measures:
        head = ("p50 / p90 / p99", *_SIDES)
        blocks.append(Table("Streams", head, tuple(measures)))
    if counts:
        blocks.append(Table("Streams, counts", ("", *_SIDES), tuple(counts)))
    if blocks:
        yield Section("Streamed answers", tuple(blocks))


def _name(key: str) -> str:
    names = {
        "ttft_ms": "time to first token",
        "itl_p50_ms": "typical pause between chunks",
        "itl_max_ms": "longest pause",
        "output_tokens": "tokens",
    }
    return names.get(key, words.named(key))


def _quantiles(key: str, side: Object) -> str:
    show = milliseconds if key.endswith("_ms") else number
    return " / ".join(show(number_of(side.get(name))) for name in _QUANTILES)


def _plain(value: object) -> str:
    return number(number_of(value)) if number_of(value) is not None else text_of(value) or "-"
