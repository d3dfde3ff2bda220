"""Reading the document of findings: every part of it may be null, empty, or of an older version.

What is not of the kind that is asked for reads as absent, so a report leaves it out rather than
fail. Pure.
"""

from __future__ import annotations

import math
from typing import Any

import orjson

Object = dict[str, Any]

#: Longest answer that a report shows of one side; the pair's id leads to the whole.
MAX_ANSWER_CHARACTERS = 4_000


def object_of(value: Any) -> Object:
    """Return `value` if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def list_of(value: Any) -> list[Any]:
    """Return `value` if it is a list, else an empty one."""
    return list(value) if isinstance(value, list | tuple) else []


def objects_of(value: Any) -> list[Object]:
    """Return the objects in a list that are not empty."""
    return [each for each in list_of(value) if isinstance(each, dict) and each]


def number_of(value: Any) -> float | None:
    """Return `value` if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def count_of(value: Any) -> int:
    """Return `value` as a count; 0 if it is none."""
    return int(number_of(value) or 0)


def text_of(value: Any) -> str:
    """Return a text as it is, null as nothing, all else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def label_of(value: Any) -> str:
    """Return a label that is given as JSON for people: `"refund"` without its quotes.

    A text that would then read as a number, or as other JSON, keeps them: `"3"` is not `3`.
    """
    text = text_of(value)
    said = _parsed(text)
    is_plain = isinstance(said, str) and bool(said) and _parsed(said) is _NOT_JSON
    return str(said) if is_plain else text


def answer_of(value: Any) -> str:
    """Return an answer that is given as JSON for people: texts as they are, nested JSON in lines.

    One that is shortened is no JSON any more, and comes as it is.
    """
    text = text_of(value)
    said = _parsed(text)
    if isinstance(said, str):
        text = said
    elif isinstance(said, dict) or any(isinstance(each, dict | list) for each in list_of(said)):
        text = orjson.dumps(said, option=orjson.OPT_INDENT_2).decode()
    cut = len(text) - MAX_ANSWER_CHARACTERS
    return text if cut <= 0 else f"{text[:MAX_ANSWER_CHARACTERS]} … ({cut:,} characters more)"


_NOT_JSON = object()


def _parsed(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return _NOT_JSON
