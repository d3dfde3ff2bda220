"""What must never reach a disk, taken out of JSON bodies by path. Fails closed.

Runs in the worker before a body is journaled, only on routes with rules. A body that cannot be
read as JSON (another format, a coding that is not known, cut, too large when inflated) gives None,
and the caller leaves it out: what cannot be searched cannot be trusted. What comes out is written
anew from what was parsed, so a duplicate key that the parser skipped cannot carry a secret through.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Final

import orjson

from proxy.config.resolved import Protocol, RedactAction, RedactRule
from proxy.pairs import sse
from proxy.pairs.inflate import LIMIT_BYTES, inflate
from proxy.pairs.redact_rules import Node, strictest, tree

#: Fields of an event that are kept; comments and unknown ones may hold anything.
_EVENT_FIELDS: Final = frozenset({b"event", b"id", b"retry"})

#: What stands for a value of each type: a reader that expects the type goes on working, and neither
#: length nor size nor a key of the value is told.
_MASKS: Final[dict[type, Any]] = {str: "***", int: 0, float: 0.0, bool: False, type(None): None}
_HASH_BYTES: Final = 16


class Redactor:
    """Takes the values of some paths out of bodies. Immutable once made; no state per body."""

    def __init__(self, root: Node, key: str, limit_bytes: int) -> None:
        self._root = root
        self._limit_bytes = limit_bytes
        self._keyed = hashlib.blake2b(
            digest_size=_HASH_BYTES, key=hashlib.blake2b(key.encode()).digest()
        )

    def apply(
        self, body: bytes, content_type: str | None = None, content_encoding: str | None = None
    ) -> bytes | None:
        """Return `body` without the values of the paths, or None when that cannot be told.

        The very same object comes back when nothing had to change, so `is body` tells whether the
        record's `body_state` is `full` or `redacted`. What was compressed comes back inflated. An
        empty body is returned as it is.

        Args:
            body: JSON, or server-sent events each of whose data is JSON or `[DONE]`.
            content_type: of the body; `text/event-stream` makes it a stream.
            content_encoding: the header's value; None where there is none.
        """
        if not body:
            return body
        try:
            if content_encoding is not None:
                body = inflate(body, content_encoding, self._limit_bytes)
            redacted = self._stream(body) if sse.is_stream(content_type) else self._json(body)
        except (ValueError, orjson.JSONEncodeError):  # of JSON, of its nesting, of the coding
            return None
        return body if redacted == body else redacted

    def _json(self, body: bytes) -> bytes:
        return orjson.dumps(self._redacted(orjson.loads(body), [self._root]))

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

    def _redacted(self, value: Any, nodes: list[Node]) -> Any:
        """Return `value` as `nodes`, all of this level, leave it; as deep as the longest path."""
        if isinstance(value, dict):
            made = {}
            for key, item in value.items():
                below = [inner for node in nodes for inner in node.below_key(key)]
                action = strictest(*(node.action for node in below)) if below else None
                if action is not RedactAction.DROP:
                    made[key] = self._left(item, below, action)
            return made
        if isinstance(value, list) and any(node.indices or node.elements for node in nodes):
            left = []
            for index, item in enumerate(value):
                below = [inner for node in nodes for inner in node.below_index(index)]
                action = strictest(*(node.action for node in below)) if below else None
                if action is not RedactAction.DROP:
                    left.append(self._left(item, below, action))
            return left
        return value

    def _left(self, value: Any, below: list[Node], action: RedactAction | None) -> Any:
        """Return what is left of a value that is not dropped."""
        if action is RedactAction.MASK:
            return type(value)() if isinstance(value, dict | list) else _MASKS[type(value)]
        if action is RedactAction.HASH:
            return self._hash(value)
        return self._redacted(value, below) if below else value

    def _hash(self, value: Any) -> str:
        """Return a keyed hash of the value's JSON: the same for the same value, whoever wrote it."""
        hashed = self._keyed.copy()
        hashed.update(orjson.dumps(value, option=orjson.OPT_SORT_KEYS))
        return "hash:" + hashed.hexdigest()


def compile_rules(
    rules: Iterable[RedactRule],
    key: str = "",
    *,
    protocol: Protocol = Protocol.JSON,
    limit_bytes: int = LIMIT_BYTES,
) -> Redactor:
    """Return a redactor for paths such as `a.b`, `a[0].b`, `a[*].b`, `a.*.b` and quoted keys.

    A path that meets another type than it names (a key of an array, an element of an object)
    matches nothing there. Indices are those of the body as it came: dropping `a[0]` and `a[1]`
    drops the first two. Of several rules for one value the strictest holds.

    Args:
        rules: what to do, and where.
        key: secret of the rules that hash.
        protocol: of the route; what a rule means in its streams is added.
        limit_bytes: a body that would be longer when inflated is not read.

    Raises:
        ValueError: a path is none; says which and where.
    """
    return Redactor(tree(rules, protocol), key, limit_bytes)
