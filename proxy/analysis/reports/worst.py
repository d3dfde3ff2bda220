"""The pairs that differ most, both answers side by side, differing parts marked. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rapidfuzz.distance import Indel

from proxy.analysis.reports.document import Object, answer_of, number_of, objects_of, text_of
from proxy.analysis.reports.page import Block, Disagreement, Part, Section
from proxy.analysis.wording import number

#: Answers above this are folded.
LONG_CHARACTERS = 300
#: Words, numbers whole, and every other sign alone, each with the white space behind it, which would
#: else be found on both sides of any two texts.
_WORDS = re.compile(r"(?:[+-]?\d[\w.+-]*|\w+|[^\w\s])\s*|\s+")


def worst(candidate: Object) -> Iterator[Section]:
    """Yield the worst disagreements."""
    found = objects_of(candidate.get("worst"))
    if found:
        blocks: tuple[Block, ...] = tuple(_disagreement(each) for each in found)
        yield Section("Worst disagreements", blocks)


def marked(primary: str, candidate: str) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Return both texts in parts; those that the other does not have are marked."""
    first, second = _WORDS.findall(primary), _WORDS.findall(candidate)
    left: list[Part] = []
    right: list[Part] = []
    for step in Indel.opcodes(first, second):
        is_different = step.tag != "equal"
        left += _parts(first[step.src_start : step.src_end], is_different=is_different)
        right += _parts(second[step.dest_start : step.dest_end], is_different=is_different)
    return tuple(left), tuple(right)


def _parts(words: list[str], *, is_different: bool) -> Iterator[Part]:
    """Yield words as a part; white space behind those that differ is not worth a mark."""
    text = "".join(words)
    end = len(text.rstrip()) if is_different else len(text)
    if text[:end]:
        yield Part(text[:end], is_different)
    if text[end:]:
        yield Part(text[end:], is_different=not text[:end])


def _disagreement(each: Object) -> Disagreement:
    primary, candidate = (answer_of(each.get(side)) for side in ("primary", "candidate"))
    left, right = marked(primary, candidate)
    size = number_of(each.get("abs_diff"))
    facts = (
        text_of(each.get("ts")),
        f"at {text_of(each.get('first_diff_path'))}" if each.get("first_diff_path") else "",
        f"absolute difference {number(size)}" if size is not None else "",
        f"pair {text_of(each.get('pair_id'))}" if each.get("pair_id") else "",
    )
    whole = [answer_of(each.get(f"{side}_answer")) for side in ("primary", "candidate")]
    return Disagreement(
        title=f"Request {text_of(each.get('request_id')) or 'without an id'}",
        facts=", ".join(filter(None, facts)),
        primary=left,
        candidate=right,
        is_long=max(len(primary), len(candidate)) > LONG_CHARACTERS,
        answers=marked(*whole) if any(whole) and whole != [primary, candidate] else None,
    )
