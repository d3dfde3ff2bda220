"""Which requests may be sent twice: a model that only answers may be asked again, an order may not.

It decides for mirrors, replicates, the primary's copy while a candidate serves, and asking another
backend after one has seen the request. Compiled once per route; a request that the defaults let
through costs its caller one look into a set (`repeatable`).
"""

from __future__ import annotations

from collections.abc import Mapping

from proxy.config import resolved


class Guard:
    """A route's `mirror_only`, compiled to bytes; what it leaves empty holds for every request.

    Attributes:
        repeatable: the methods that need no further look: all of them, where nothing else is asked.
    """

    __slots__ = ("_fields", "_is_any_method", "_methods", "_prefixes", "repeatable")

    def __init__(self, guard: resolved.Guard) -> None:
        self._methods = frozenset(method.encode() for method in guard.methods)
        self._fields = tuple((k.lower().encode(), v.encode()) for k, v in guard.headers.items())
        self._prefixes = tuple(prefix.rstrip("/").encode() for prefix in guard.path_prefixes)
        self._is_any_method = not self._methods
        is_by_method_alone = not self._fields and not self._prefixes
        self.repeatable = self._methods if is_by_method_alone else frozenset[bytes]()

    def may_repeat(self, method: bytes, path: bytes, fields: Mapping[bytes, bytes]) -> bool:
        """Tell whether this request may be sent a second time.

        Args:
            method: as sent.
            path: the target without its query; prefixes end at a segment, as in a route's match.
            fields: header fields by lower-case name.
        """
        if method not in self._methods and not self._is_any_method:
            return False
        if self._prefixes and not self._has_prefix(path):
            return False
        return all(fields.get(name) == value for name, value in self._fields)

    def refusal(self, method: bytes, path: bytes, fields: Mapping[bytes, bytes]) -> str | None:
        """Return in words why `may_repeat` says no, without any header's value; None if it says yes."""
        if self.may_repeat(method, path, fields):
            return None
        if method not in self._methods and not self._is_any_method:
            return f"the method {method.decode('latin-1')} is not one of its methods"
        if self._prefixes and not self._has_prefix(path):
            return "the path has none of its prefixes"
        names = [name.decode() for name, value in self._fields if fields.get(name) != value]
        return f"the header {names[0]} is missing or has another value"

    def _has_prefix(self, path: bytes) -> bool:
        return any(path == each or path.startswith(each + b"/") for each in self._prefixes)
