"""JSON documents, less what is declared not to count: members, the order of arrays, JSON in strings.

Both values are first made *plain*: ignored places are left out, arrays whose order does not count
become sorted bags, and strings that hold a JSON object or array (arguments of tool calls, answers of
models that were asked for JSON, with or without a Markdown fence) become what they hold. What is
plain is compared by `exact`. A bag differs as a whole: its elements have no place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Final

import orjson

from proxy.comparison.exact import compare_exact
from proxy.comparison.result import EQUAL, Comparison

_STEP: Final = re.compile(
    r'\.?(?:(?P<key>[A-Za-z_][A-Za-z0-9_]*)|"(?P<quoted>(?:[^"\\]|\\["\\])+)"|(?P<any>\*))'
    r"|\[(?:(?P<index>[0-9]+)|(?P<every>\*))\]"
)
#: The prediction itself.
WHOLE: Final = "$"
#: Stands for the string that holds what is below it, in paths of differences.
INSIDE: Final = "(json)"

_FENCED: Final = re.compile(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", re.DOTALL)
_MAY_BE_JSON: Final = re.compile(r"\s*(?:[\[{]|```)")
#: Integers that a double holds exactly; beyond, 1.0 and 1 are not told to be the same in bags.
_EXACT: Final = 2**53


class Place:
    """A node of the tree of declared places."""

    __slots__ = ("elements", "every", "is_ignored", "is_unordered", "keys")

    def __init__(self) -> None:
        self.keys: dict[str, Place] = {}
        self.elements: dict[int, Place] = {}
        self.every: Place | None = None
        self.is_ignored = False
        self.is_unordered = False

    def at(self, path: str) -> Place:
        """Return the node at `path`, made when it is not there.

        Raises:
            ValueError: not a path such as `a.b[*]."c d"`, or `$` for this node itself.
        """
        place, position = self, 0
        while path != WHOLE and position < len(path):
            step = _STEP.match(path, position)
            if step is None:
                raise ValueError(f"{path!r} is not a path at {path[position:]!r}")
            place = place._below(step)
            position = step.end()
        return place

    def _below(self, step: re.Match[str]) -> Place:
        if step["index"] is not None:
            return self.elements.setdefault(int(step["index"]), Place())
        if step["any"] or step["every"]:
            if self.every is None:
                self.every = Place()
            return self.every
        key = step["key"] or re.sub(r"\\(.)", r"\1", step["quoted"])
        return self.keys.setdefault(key, Place())


_Places = tuple[Place, ...]


class JsonComparator:
    """Compares documents by structure."""

    def __init__(
        self, *, ignore: Iterable[str], unordered: Iterable[str], inside_text: bool
    ) -> None:
        """Prepare the places, relative to the prediction.

        Raises:
            ValueError: not a path.
        """
        root = Place()
        for path in ignore:
            root.at(path).is_ignored = True
        for path in unordered:
            root.at(path).is_unordered = True
        self._roots: _Places = (root,)
        self._inside_text = inside_text

    def __call__(self, primary: Any, candidate: Any, root: str) -> Comparison:
        """Return whether two values are equal but for what does not count."""
        if primary is candidate:
            return EQUAL
        left = self._plain(primary, self._roots)
        return compare_exact(left, self._plain(candidate, self._roots), root)

    def _plain(self, value: Any, places: _Places) -> Any:
        if type(value) is dict:
            return self._plain_object(value, places)
        if type(value) is list:
            return self._plain_array(value, places)
        if type(value) is str and self._inside_text and _MAY_BE_JSON.match(value):
            return self._plain_text(value, places)
        return value

    def _plain_object(self, value: dict[str, Any], places: _Places) -> Any:
        if not places and not self._inside_text:
            return value
        found = {}
        for key, member in value.items():
            below = [place.keys[key] for place in places if key in place.keys]
            below += [place.every for place in places if place.every is not None]
            if not any(place.is_ignored for place in below):
                found[key] = self._plain(member, tuple(below))
        return found

    def _plain_array(self, value: list[Any], places: _Places) -> Any:
        if not places and not self._inside_text:
            return value
        found = []
        for index, element in enumerate(value):
            below = [place.elements[index] for place in places if index in place.elements]
            below += [place.every for place in places if place.every is not None]
            if not any(place.is_ignored for place in below):
                found.append(self._plain(element, tuple(below)))
        if any(place.is_unordered for place in places):
            return tuple(sorted(map(_canonical, found)))
        return found

    def _plain_text(self, value: str, places: _Places) -> Any:
        fenced = _FENCED.fullmatch(value)
        try:
            held = orjson.loads(fenced[1] if fenced else value)
        except orjson.JSONDecodeError:
            return value
        return {INSIDE: self._plain(held, places)} if type(held) in (dict, list) else value


def _canonical(value: Any) -> str:
    """Return a text that is the same for equal values: keys sorted, 1.0 as 1."""
    return orjson.dumps(_whole_numbers(value), option=orjson.OPT_SORT_KEYS).decode()


def _whole_numbers(value: Any) -> Any:
    if type(value) is float and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    if type(value) is dict:
        return {key: _whole_numbers(member) for key, member in value.items()}
    if type(value) in (list, tuple):
        return [_whole_numbers(element) for element in value]
    return value
