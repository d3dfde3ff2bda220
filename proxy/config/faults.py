"""From what pydantic found to sentences an operator can act on, with the nearest known key.

No message repeats a value that may be a secret.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from proxy.config.kinds import as_written, kind_at, model_in, unit_of
from proxy.config.yaml_tree import Path

#: Keys whose values are never repeated in a message.
_SECRETS = frozenset({"token", "options", "headers", "set_headers", "hash_key", "key"})

_RANGES = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}
_KINDS = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a whole number of a sane size",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "finite_number": "must be a finite number",
    "string_type": "must be text; put it in quotes",
    "tuple_type": "must be a list, such as [first, second]",
    "list_type": "must be a list, such as [first, second]",
    "model_type": "must be a mapping: lines of `key: value`",
    "dict_type": "must be a mapping: lines of `key: value`",
    "too_short": "must not be empty",
    "string_too_short": "must not be empty",
}


def explain(model: type[BaseModel], errors: Sequence[ErrorDetails]) -> list[tuple[Path, str]]:
    """Return the path and the explanation of each error; a misspelt required key is one error."""
    missing = {tuple(error["loc"]) for error in errors if error["type"] == "missing"}
    found: list[tuple[Path, str]] = []
    # A list whose items are all wrong counts as empty; the items' own faults say it better.
    forgiven = {
        tuple(error["loc"])
        for error in errors
        if error["type"] == "too_short" and any(_is_inside(each, error) for each in errors)
    }
    for error in errors:
        if error["type"] == "extra_forbidden":
            path = tuple(error["loc"])
            known = known_keys(model, path[:-1])
            near = nearest(str(path[-1]), known)
            forgiven |= {(*path[:-1], near)} & missing
            found.append((path, _unknown(path, near, known)))
    for error in errors:
        path = tuple(error["loc"])
        if error["type"] != "extra_forbidden" and path not in forgiven:
            at = path[:-1] if path[-1:] == ("[key]",) else path
            found.append((at, _sentence(model, path, error)))
    return found


def _is_inside(inner: ErrorDetails, outer: ErrorDetails) -> bool:
    length = len(outer["loc"])
    return len(inner["loc"]) > length and inner["loc"][:length] == outer["loc"]


def nearest(word: str, known: Sequence[str]) -> str:
    """Return the known word that `word` was probably meant to be, or an empty string."""
    # difflib compares exactly; operators also write `pathPrefix` and `path-prefix`.
    plain = {_plain(name): name for name in known}
    found = difflib.get_close_matches(_plain(word), plain, n=1, cutoff=0.6)
    return plain[found[0]] if found else ""


def known_keys(model: type[BaseModel], path: Path) -> list[str]:
    """Return the keys that the mapping at `path` may have, in the order of the schema."""
    found = model_in(kind_at(model, path))
    return (
        [] if found is None else [field.alias or key for key, field in found.model_fields.items()]
    )


def dotted(path: Path) -> str:
    """Return a path as people write it: `routes[0].candidates[1].weight`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


def _plain(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "")


def _unknown(path: Path, near: str, known: Sequence[str]) -> str:
    where = f" in {dotted(path[:-1])}" if path[:-1] else ""
    hint = f"did you mean {near!r}?" if near else f"known keys: {', '.join(known)}"
    return f"unknown key {str(path[-1])[:60]!r}{where}; {hint}"


def _sentence(model: type[BaseModel], path: Path, error: ErrorDetails) -> str:
    kind, context = error["type"], error.get("ctx", {})
    if kind == "missing":
        return "is required"
    if kind == "value_error":
        return str(context.get("error", error["msg"]))
    if kind in ("enum", "literal_error"):
        return _choice(error["input"], context)
    if kind in _RANGES:
        name, words = _RANGES[kind]
        return f"must be {words} {_bound(model, path, context[name])}"
    if kind in ("too_long", "string_too_long"):
        return f"must have at most {context['max_length']:,} {_things(kind)}"
    return _KINDS.get(kind, error["msg"]) + _but_is(path, error)


def _things(kind: str) -> str:
    return "characters" if kind.startswith("string") else "entries"


def _but_is(path: Path, error: ErrorDetails) -> str:
    """Return `, not 'x'` for values that are short and no secret."""
    value = error["input"]
    if not isinstance(value, str | int | float) or _SECRETS & set(path):
        return ""
    text = repr(value) if isinstance(value, str) else str(value).lower()
    return f", not {text}" if text not in ("''",) and len(text) <= 40 else ""


def _choice(value: Any, context: Mapping[str, Any]) -> str:
    expected = str(context["expected"])
    words = [word.strip("' ") for word in expected.replace(" or ", ", ").split(",")]
    near = nearest(value, words) if isinstance(value, str) else ""
    hint = f"; did you mean {near!r}?" if near else ""
    shown = repr(value) if isinstance(value, str) and len(value) <= 40 else "this"
    return f"{shown} is not one of {', '.join(words)}{hint}"


def _bound(model: type[BaseModel], path: Path, bound: float) -> str:
    """Return a bound in the unit that the key is written in."""
    kind = kind_at(model, path)
    return as_written(kind, bound) if unit_of(kind) else f"{bound:,}"
