"""What must never reach a disk, taken out of JSON bodies by path. Fails closed.

Runs in the worker before a body is journaled, only on routes with `record.redact.json`. A body
that cannot be read as JSON (another format, compressed, cut) gives None, and the caller leaves it
out: what cannot be searched cannot be trusted. What comes out is written anew from what was parsed, so
a duplicate key that the parser skipped cannot carry a secret through.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any

import orjson

from proxy.pairs import paths, sse

#: Fields of an event that are kept; comments and unknown ones may hold anything.
_EVENT_FIELDS = frozenset({b"event", b"id", b"retry"})


class Action(Enum):
    """What happens to a value that a path names; masking and keyed hashing will join."""

    DROP = auto()


@dataclass(slots=True)
class _Node:
    """A level of all paths together, so that one walk serves them all."""

    action: Action | None = None
    keys: dict[str, _Node] = field(default_factory=dict)
    indices: dict[int, _Node] = field(default_factory=dict)
    members: _Node | None = None
    elements: _Node | None = None

    def child(self, step: str | int | paths.Wildcard) -> _Node:
        """Return the node that `step` leads to, made when it is new."""
        if isinstance(step, str):
            return self.keys.setdefault(step, _Node())
        if isinstance(step, int):
            return self.indices.setdefault(step, _Node())
        if step is paths.Wildcard.MEMBERS:
            self.members = self.members or _Node()
            return self.members
        self.elements = self.elements or _Node()
        return self.elements


class Redactor:
    """Takes the values of some paths out of bodies. Immutable once made; no state per body."""

    def __init__(self, root: _Node) -> None:
        self._root = root

    def apply(self, body: bytes, content_type: str | None = None) -> bytes | None:
        """Return `body` without the values of the paths, or None when that cannot be told.

        The very same object comes back when nothing had to change, so `is body` tells whether the
        record's `body_state` is `full` or `redacted`. An empty body is returned as it is.

        Args:
            body: JSON, or server-sent events each of whose data is JSON or `[DONE]`.
            content_type: of the body; `text/event-stream` makes it a stream.
        """
        if not body:
            return body
        try:
            redacted = self._stream(body) if sse.is_stream(content_type) else self._json(body)
        except (orjson.JSONDecodeError, orjson.JSONEncodeError):
            return None
        return body if redacted == body else redacted

    def _json(self, body: bytes) -> bytes:
        return orjson.dumps(_redacted(orjson.loads(body), [self._root]))

    def _stream(self, body: bytes) -> bytes:
        lines: list[bytes] = []
        for fields in sse.events(body):
            lines += [name + b": " + value for name, value in fields if name in _EVENT_FIELDS]
            values = [value for name, value in fields if name == b"data"]
            if values:
                data = b"\n".join(values)
                is_done = data.strip() == sse.DONE
                lines.append(b"data: " + (sse.DONE if is_done else self._json(data)))
            lines.append(b"")
        return b"\n".join([*lines, b""])


def compile_paths(path_texts: tuple[str, ...], action: Action = Action.DROP) -> Redactor:
    """Return a redactor for `a.b`, `a[0].b`, `a[*].b`, `a.*.b` and quoted keys.

    A path that meets another type than it names (a key of an array, an element of an object)
    matches nothing there. Indices are those of the body as it came: dropping `a[0]` and `a[1]`
    drops the first two.

    Raises:
        ValueError: one is not a path; says which and where.
    """
    root = _Node()
    for text in path_texts:
        node = root
        for step in paths.parse(text):
            node = node.child(step)
        node.action = action
    return Redactor(root)


def _redacted(value: Any, nodes: list[_Node]) -> Any:
    """Return `value` without what `nodes`, all of this level, drop; at most 1,024 levels."""
    if isinstance(value, dict):
        return {
            key: _redacted(item, below) if below else item
            for key, item in value.items()
            if not _is_dropped(below := _below_key(nodes, key))
        }
    if isinstance(value, list) and any(node.indices or node.elements for node in nodes):
        return [
            _redacted(item, below) if below else item
            for index, item in enumerate(value)
            if not _is_dropped(below := _below_index(nodes, index))
        ]
    return value


def _below_key(nodes: list[_Node], key: str) -> list[_Node]:
    below = [node.keys[key] for node in nodes if key in node.keys]
    return below + [node.members for node in nodes if node.members is not None]


def _below_index(nodes: list[_Node], index: int) -> list[_Node]:
    below = [node.indices[index] for node in nodes if index in node.indices]
    return below + [node.elements for node in nodes if node.elements is not None]


def _is_dropped(nodes: list[_Node]) -> bool:
    return any(node.action is Action.DROP for node in nodes)
