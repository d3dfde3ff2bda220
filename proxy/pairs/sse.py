"""Server-sent events in a captured body: the data of each event, whole bodies only.

Follows the HTML Living Standard, section 9.2.6, for bodies that are already here. Timing of
events as they pass belongs to the data plane.
"""

from __future__ import annotations

import re
from typing import Final

MEDIA_TYPE: Final = "text/event-stream"
#: What ends an OpenAI stream; not JSON.
DONE: Final = b"[DONE]"

_LINE_END = re.compile(rb"\r\n|\n|\r")


def is_stream(content_type: str | None) -> bool:
    """Return whether a Content-Type says server-sent events."""
    if content_type is None or content_type == "application/json":
        return False
    return content_type.partition(";")[0].strip().lower() == MEDIA_TYPE


def events(body: bytes) -> list[list[tuple[bytes, bytes]]]:
    """Return each event as its fields in order; comments are left out.

    An event that the body breaks off is there too: what was sent, not only what was finished.
    """
    found: list[list[tuple[bytes, bytes]]] = []
    fields: list[tuple[bytes, bytes]] = []
    for line in _LINE_END.split(body.removeprefix(b"\xef\xbb\xbf")):
        if not line:
            if fields:
                found.append(fields)
                fields = []
            continue
        name, _, value = line.partition(b":")
        if name:
            fields.append((name, value.removeprefix(b" ")))
    if fields:
        found.append(fields)
    return found


def data(body: bytes) -> list[bytes]:
    """Return the data of each event that has any, its lines joined."""
    return [
        b"\n".join(value for name, value in fields if name == b"data")
        for fields in events(body)
        if any(name == b"data" for name, _ in fields)
    ]
