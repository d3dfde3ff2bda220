"""Which route takes a request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from proxy.config.resolved import Match, Split, SplitKind
from proxy.routing.match import Router, host_name
from proxy.routing.split import key_reader
from tests.support.resolved_config import small_config

ROUTE = small_config(Path("/nowhere")).routes[0]


def router(**matches: Match) -> Router:
    """Return a router over routes with these matches, in order."""
    return Router(replace(ROUTE, name=name, match=match) for name, match in matches.items())


@pytest.mark.parametrize(
    ("path", "taken"),
    [(b"/v2/iris", True), (b"/v2/iris/infer", True), (b"/v2/iris2", False), (b"/", False)],
)
def test_a_prefix_ends_at_a_segment(path: bytes, taken: bool) -> None:
    """/v2/iris takes what lies below it and not its namesakes."""
    found = router(a=Match("", "", "/v2/iris", (), {})).match(b"GET", b"h", path, {})
    assert (found is not None) is taken


def test_the_first_match_wins_and_everything_must_hold() -> None:
    """Host, method, exact path and header are all asked."""
    routes = router(
        exact=Match("API.example", "/x", "", ("POST",), {"X-Tier": "gold"}),
        rest=Match("", "", "/", (), {}),
    )

    def name(method: bytes, host: bytes, path: bytes, fields: dict[bytes, bytes]) -> str:
        found = routes.match(method, host, path, fields)
        assert found is not None
        return found.name

    gold = {b"x-tier": b"gold"}
    assert name(b"POST", b"api.EXAMPLE:8080", b"/x", gold) == "exact"
    assert name(b"GET", b"api.example", b"/x", gold) == "rest"
    assert name(b"POST", b"other", b"/x", gold) == "rest"
    assert name(b"POST", b"api.example", b"/x/y", gold) == "rest"
    assert name(b"POST", b"api.example", b"/x", {b"x-tier": b"tin"}) == "rest"


def test_host_names_lose_their_port_only() -> None:
    """An IPv6 literal keeps its colons."""
    assert host_name(b"A.b:80") == b"a.b"
    assert host_name(b"[::1]:80") == b"[::1]"
    assert host_name(b"[::1]") == b"[::1]"


@pytest.mark.parametrize(
    ("split", "fields", "body", "key"),
    [
        (Split(SplitKind.HEADER, "X-User"), {b"x-user": b"7"}, b"", b"7"),
        (Split(SplitKind.HEADER, "X-User"), {b"x-user": b""}, b"", None),
        (Split(SplitKind.COOKIE, "uid"), {b"cookie": b"a=1; uid=42; b=2"}, b"", b"42"),
        (Split(SplitKind.COOKIE, "uid"), {b"cookie": b"xuid=42"}, b"", None),
        (Split(SplitKind.CLIENT_IP, ""), {}, b"", b"10.0.0.1"),
        (Split(SplitKind.JSON, "user.id"), {}, b'{"user": {"id": "z"}}', b"z"),
        (Split(SplitKind.JSON, "user.id"), {}, b'{"user": {"id": [1]}}', None),
        (Split(SplitKind.JSON, "user.id"), {}, b"not json", None),
        (Split(SplitKind.REQUEST_ID, ""), {}, b"", None),
    ],
)
def test_split_keys_are_found(
    split: Split, fields: dict[bytes, bytes], body: bytes, key: bytes | None
) -> None:
    """Each kind of key is read from its place; what is missing is None."""
    assert key_reader(split)(fields, body, b"10.0.0.1") == key
