"""Parameters of paths whose values are not recorded. Pure.

A query never is; it ends where the path begins to be recorded. But RFC 3986 section 3.3 lets a path
have parameters (`/score;api_key=…`), and clients that encode a URL once too often send their query as
a part of the path (`/score%3Fapi_key%3D…`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_BEFORE = rb"[;&?,/]|%(?:3[BF]|26|2C|2F)"
_EQUALS = rb"=|%3D"


class PathMask:
    """Puts `***` for the values of some parameters, named in any case."""

    __slots__ = ("_pattern",)

    def __init__(self, names: Iterable[str]) -> None:
        words = b"|".join(re.escape(name.encode()) for name in names)
        # A value goes to the next parameter: base64 has slashes, too. An empty lookahead that must
        # fail matches nothing.
        pattern = rb"((?:%b)(?:%b)(?:%b))[^;&?]+" % (_BEFORE, words or rb"(?!)", _EQUALS)
        self._pattern = re.compile(pattern, re.IGNORECASE)

    def apply(self, path: bytes) -> bytes:
        """Return `path` without those values."""
        return self._pattern.sub(rb"\1***", path)
