"""Bytes that nobody interprets: text where they are UTF-8, else base64."""

from __future__ import annotations

import pybase64

from proxy.pairs.protocols.answer import Extract


def extract_raw(body: bytes) -> Extract:
    """Return the whole body as the prediction; an empty one is the empty text."""
    try:
        return Extract(prediction=body.decode())
    except UnicodeDecodeError:
        return Extract(prediction=pybase64.b64encode(body).decode("ascii"))
