"""The pairs that differ most, both answers side by side, differing parts marked. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import SequenceMatcher

from proxy.analysis.reports.document import Object, answer_of, number_of, objects_of, text_of
from proxy.analysis.reports.page import Block, Disagreement, Part, Section
from proxy.analysis.wording import number

#: Answers above this are folded.
LONG_CHARACTERS = 300
#: Words beyond which answers are only compared at their ends: difflib's time grows as the square.
MAX_WORDS = 1_500

#: Words, numbers whole, white space, and every other sign alone.
_WORDS = re.compile(r"[+-]?\d[\w.+-]*|\w+|\s+|[^\w\s]")


def worst(candidate: Object) -> Iterator[Section]:
    """Yield the worst disagreements."""
    found = objects_of(candidate.get("worst"))
    if found:
        blocks: tuple[Block, ...] = tuple(_disagreement(each) for each in found)
        yield Section("Worst disagreements", blocks)


def marked(primary: str, candidate: str) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Return both texts in parts; those that the other does not have are marked."""
    first, second = _WORDS.findall(primary), _WORDS.findall(candidate)
    if len(first) + len(second) > 2 * MAX_WORDS:
        return _ends(primary, candidate)
    left, right = [], []
    matcher = SequenceMatcher(None, first, second, autojunk=False)
    for tag, i, j, k, m in matcher.get_opcodes():
        is_different = tag != "equal"
        left.append(Part("".join(first[i:j]), is_different))
        right.append(Part("".join(second[k:m]), is_different))
    return _without_empty(left), _without_empty(right)


def _ends(primary: str, candidate: str) -> tuple[tuple[Part, ...], tuple[Part, ...]]:
    """Mark everything between the first and the last place where the texts differ."""
    shortest = min(len(primary), len(candidate))
    start = next((n for n in range(shortest) if primary[n] != candidate[n]), shortest)
    rest = shortest - start
    same = next((n for n in range(rest) if primary[-n - 1] != candidate[-n - 1]), rest)
    left, right = (
        _without_empty(
            [
                Part(text[:start], is_different=False),
                Part(text[start : len(text) - same], is_different=True),
                Part(text[len(text) - same :], is_different=False),
            ]
        )
        for text in (primary, candidate)
    )
    return left, right


def _without_empty(parts: list[Part]) -> tuple[Part, ...]:
    return tuple(part for part in parts if part.text)


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
