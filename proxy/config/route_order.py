"""Whether each route can ever take a request, with those before it."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.config.schema_route import MatchFile, RouteFile
from proxy.config.yaml_tree import Path


def reachable(index: int, routes: tuple[RouteFile, ...]) -> Iterator[tuple[Path, str]]:
    """Find fault with a route that gets no request because an earlier one takes them all."""
    for earlier in routes[:index]:
        if _covers(earlier.match, routes[index].match):
            yield (
                ("routes", index, "match"),
                (
                    f"no request gets here: the route {earlier.name!r} above takes all of them; put "
                    "the narrower route first"
                ),
            )
            return


def _covers(wide: MatchFile, narrow: MatchFile) -> bool:
    """Tell whether every request that `narrow` takes is taken by `wide`."""
    headers = {name.lower(): value for name, value in narrow.headers.items()}
    return (
        wide.host in ("", narrow.host)
        and (not wide.methods or (bool(narrow.methods) and {*narrow.methods} <= {*wide.methods}))
        and all(headers.get(name.lower()) == value for name, value in wide.headers.items())
        and _covers_path(wide, narrow)
    )


def _covers_path(wide: MatchFile, narrow: MatchFile) -> bool:
    if wide.path:
        return wide.path == narrow.path
    inner = narrow.path or narrow.path_prefix
    prefix = wide.path_prefix
    return not prefix or inner == prefix or inner.startswith(prefix.rstrip("/") + "/")
