"""What is changed in the requests to one candidate: header fields, and the model's name. Pure.

A candidate gets credentials of its own instead of the user's, and is asked for its own model. What
is not named in the config stays byte for byte as the user sent it.

The model's name stands in the path after `/models/` (Open Inference, TensorFlow Serving, where
`:predict` and the like are kept) or in the JSON body's top-level `model` (OpenAI, MLflow, others).
In a body the old name is cut out and the new one put in its place, and both are parsed to see that
nothing else has changed. Where the place is not plain (the key twice, or written with escapes) the
body is encoded anew.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final
from urllib.parse import quote

import orjson

from proxy.config import resolved
from proxy.config.resolved import Protocol
from proxy.state.stats_page import Kept
from proxy.wire.request_head import RequestHead
from proxy.wire.upstream_head import changed_block

#: Bodies with more bytes, or more brackets, commas, quotes and escapes, go as they are: parsing one
#: twice would hold up every user of the worker. Most of what chat clients send is a few long strings.
MAX_REWRITTEN_BYTES: Final = 1024 * 1024
MAX_REWRITTEN_TOKENS: Final = 50_000

_PATH_PROTOCOLS: Final = frozenset({Protocol.OPEN_INFERENCE, Protocol.TFSERVING})
_PLACE: Final = b"/models/"
#: RFC 3986 section 3.3: what may stand in a path segment unescaped, beside letters and digits.
_SEGMENT_SAFE: Final = "-._~!$&'()*+,;=:@"
_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
#: What stands before the next key `model`, at any depth, in one step: a loop over the tokens in
#: Python took 40 times as long.
_TO_MODEL: Final = re.compile(
    rb'((?:[^"]++|"(?!model"[ \t\r\n]*+:)(?:[^"\\]++|\\.)*+")*+)"model"[ \t\r\n]*+:[ \t\r\n]*+',
    re.DOTALL,
)


class Rewrite:
    """A candidate's changes, compiled.

    Attributes:
        changes_body: the JSON body names the model, so it must be whole before it is sent.
    """

    __slots__ = (
        "_added", "_dropped", "_host", "_model", "_model_json", "_segment", "_segment_has_verb",
        "changes_body",
    )  # fmt: skip

    def __init__(self, rewrite: resolved.Rewrite, protocol: Protocol) -> None:
        fields = dict(rewrite.set_headers)
        self._host = fields.pop("host", "").encode()
        self._dropped = frozenset(_twin(n.encode()) for n in (*fields, *rewrite.remove_headers))
        self._added = b"".join(b"%b: %b\r\n" % (n.encode(), v.encode()) for n, v in fields.items())
        self._model = rewrite.model
        self._model_json = orjson.dumps(rewrite.model)
        is_in_path = protocol in _PATH_PROTOCOLS
        self._segment = quote(rewrite.model, safe=_SEGMENT_SAFE).encode() if is_in_path else b""
        self._segment_has_verb = protocol is Protocol.TFSERVING
        self.changes_body = bool(rewrite.model) and not is_in_path

    def block(self, head: RequestHead, request_id: bytes, peer_lines: bytes) -> bytes:
        """Return the request line and fields for the candidate: `shared_block` with the changes."""
        lines = head.lines + peer_lines
        if self._dropped:
            kept = lines.splitlines(keepends=True)
            lines = b"".join(x for x in kept if _twin(x.partition(b":")[0]) not in self._dropped)
        target = self.target(head.target) if self._segment else head.target
        host = self._host or head.host
        return changed_block(head, target, host, lines + self._added, request_id)

    def target(self, target: bytes) -> bytes:
        """Return a request target with the candidate's model; unchanged where it names none."""
        path, mark, query = target.partition(b"?")
        before, place, rest = path.partition(_PLACE)
        old, slash, after = rest.partition(b"/")
        name, colon, verb = old.rpartition(b":") if self._segment_has_verb else (old, b"", b"")
        if not colon:
            name, verb = old, b""
        if not place or not name:
            return target
        return b"".join((before, place, self._segment, colon, verb, slash, after, mark, query))

    def body(self, body: bytes) -> bytes | Kept:
        """Return a whole body that names the candidate's model, or why it keeps its own."""
        if _is_large(body):
            return Kept.TOO_LARGE
        try:
            old: Any = orjson.loads(body)
        except orjson.JSONDecodeError:
            return Kept.NOT_JSON
        if not isinstance(old, dict) or not isinstance(old.get("model"), str):
            return Kept.NO_MODEL
        try:
            return self._replaced(body, {**old, "model": self._model})
        except RecursionError:  # nested too deeply to be compared
            return Kept.NO_PLACE

    def _replaced(self, body: bytes, wanted: dict[str, Any]) -> bytes:
        """Return `body` changed to mean `wanted`: by the name alone, else encoded anew."""
        place = _find_model(body)
        if place is not None:
            start, end = place
            new = b"".join((body[:start], self._model_json, body[end:]))
            if orjson.loads(new) == wanted:
                return new
        # By the standard library, which keeps integers beyond 64 bits.
        anew = {**json.loads(body), "model": self._model}
        return json.dumps(anew, ensure_ascii=False, separators=(",", ":")).encode()


def _twin(name: bytes) -> bytes:
    """Return a field's name as CGI and its heirs tell names apart: `X_Api_Key` is x-api-key."""
    return name.lower().replace(b"_", b"-")


def _is_large(body: bytes) -> bool:
    """Tell whether a rewrite would take too long: 3 to 20 ms at the limits, 0.05 ms for 4 KB."""
    if len(body) > MAX_REWRITTEN_BYTES:
        return True
    return (
        sum(body.count(token) for token in (b"[", b"{", b",", b'"', b"\\")) > MAX_REWRITTEN_TOKENS
    )


def _find_model(body: bytes) -> tuple[int, int] | None:
    """Return where the value of the first top-level `model` is, quotes included, if it is a string.

    `body` is valid JSON, an object.
    """
    depth, position = 0, 0
    while (found := _TO_MODEL.match(body, position)) is not None:
        position = found.end()
        brackets = _STRING.sub(b"", found[1])
        depth += brackets.count(b"{") + brackets.count(b"[")
        depth -= brackets.count(b"}") + brackets.count(b"]")
        if depth == 1:
            value = _STRING.match(body, position)
            return None if value is None else value.span()
    return None
