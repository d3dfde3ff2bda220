"""Which route takes a request. First match in the order of the config; everything must hold.

`path_prefix` ends at a path segment, as in the Kubernetes Gateway API: `/v2/models/iris` takes
`/v2/models/iris/infer` and not `/v2/models/iris2`. Paths are matched as they were sent, undecoded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from proxy.config.resolved import Match, Route


class Matcher:
    """One route's match, compiled to bytes."""

    __slots__ = ("headers", "host", "methods", "path", "prefix", "prefix_deep", "route")

    def __init__(self, route: Route) -> None:
        match: Match = route.match
        self.route = route
        self.host = match.host.lower().encode()
        self.path = match.path.encode()
        self.prefix = match.path_prefix.encode()
        self.prefix_deep = self.prefix if self.prefix.endswith(b"/") else self.prefix + b"/"
        self.methods = frozenset(method.encode() for method in match.methods)
        self.headers = tuple((k.lower().encode(), v.encode()) for k, v in match.headers.items())

    def takes(self, method: bytes, host: bytes, path: bytes, fields: Mapping[bytes, bytes]) -> bool:
        """Tell whether the route takes this request; `host` is lower case and without port."""
        if self.methods and method not in self.methods:
            return False
        if self.path and path != self.path:
            return False
        if self.prefix and path != self.prefix and not path.startswith(self.prefix_deep):
            return False
        if self.host and host != self.host:
            return False
        return all(fields.get(name) == value for name, value in self.headers)


class Router:
    """Finds the route of a request."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._matchers = tuple(Matcher(route) for route in routes)

    def match(
        self, method: bytes, host: bytes, path: bytes, fields: Mapping[bytes, bytes]
    ) -> Route | None:
        """Return the first route that takes the request, or None.

        Args:
            method: as sent.
            host: the Host field as sent; its port and letter case do not matter.
            path: the target without its query.
            fields: header fields by lower-case name.
        """
        name = host_name(host)
        for matcher in self._matchers:
            if matcher.takes(method, name, path, fields):
                return matcher.route
        return None


def host_name(host: bytes) -> bytes:
    """Return a Host field without its port, in lower case (RFC 9110 section 7.2)."""
    if host.endswith(b"]") or b":" not in host:
        return host.lower()
    return host.rpartition(b":")[0].lower()
