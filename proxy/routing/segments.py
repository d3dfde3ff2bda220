"""The segments of a request: labels by which its pairs are told apart from others. Pure.

A segment is an allow-listed header or a scalar in the JSON body. Analysts ask whether a candidate
is worse for one group although it is better for all; the groups are named here, before anything is
written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import jmespath
import orjson

from proxy.config.resolved import Segment, SplitKind

#: A label longer than this is cut: it tells single requests apart, not groups of them.
MAX_CHARS: Final = 64
#: A body above this is not parsed for its labels: that would take a millisecond for each MB.
MAX_BODY_BYTES: Final = 1 << 20


class SegmentReader:
    """Finds the segments of one route's requests."""

    __slots__ = ("_headers", "_paths")

    def __init__(self, segments: tuple[Segment, ...]) -> None:
        self._headers = [
            (each.name, each.source.name.lower().encode())
            for each in segments
            if each.source.kind is SplitKind.HEADER
        ]
        self._paths = [
            (each.name, jmespath.compile(each.source.name))
            for each in segments
            if each.source.kind is SplitKind.JSON
        ]

    def read(self, fields: Mapping[bytes, bytes], body: list[bytes] | None) -> bytes:
        """Return the labels as a JSON object; what a request does not say is left out.

        Args:
            fields: of its head, names in lower case.
            body: its pieces; None where it is not kept.
        """
        found: dict[str, str] = {}
        for name, header in self._headers:
            value = fields.get(header)
            if value:
                found[name] = value.decode("latin-1")[:MAX_CHARS]
        if self._paths and body:
            self._read_body(found, b"".join(body))
        return orjson.dumps(found)

    def _read_body(self, found: dict[str, str], body: bytes) -> None:
        if len(body) > MAX_BODY_BYTES:
            return
        try:
            document = orjson.loads(body)
        except orjson.JSONDecodeError:
            return
        for name, path in self._paths:
            try:
                value = path.search(document)
            except ValueError:  # of JMESPath: a function got what it does not take
                continue
            label = _label(value)
            if label:
                found[name] = label[:MAX_CHARS]


def _label(value: object) -> str:
    """Return a scalar as a label, as JSON writes it; nothing for what is none."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else ""
