"""Answers as upstreams send them, and what is read in them."""

from __future__ import annotations

from typing import Any

import orjson

from proxy.config.resolved import Protocol
from proxy.pairs.protocols.answer import Answer, Extract
from proxy.pairs.protocols.extract import extract


def read(protocol: Protocol, value: Any, expression: str = "") -> Extract:
    """Return what a JSON answer says."""
    return extract(protocol, Answer("application/json", None, orjson.dumps(value)), expression)


def read_stream(
    *chunks: Any, protocol: Protocol = Protocol.OPENAI, expression: str = ""
) -> Extract:
    """Return what a stream says; text chunks are data as they are."""
    texts = [chunk.encode() if isinstance(chunk, str) else orjson.dumps(chunk) for chunk in chunks]
    body = b"".join(b"data: " + text + b"\n\n" for text in texts)
    return extract(protocol, Answer("text/event-stream", None, body), expression)
