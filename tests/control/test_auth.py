"""The guard: who may use the admin API."""

from __future__ import annotations

import httpx
import pytest

from proxy.control.auth import Rules, judge
from tests.support.admin import TOKEN, Instance

RULES = Rules(token=TOKEN, host="127.0.0.1")
HOST = {"host": "127.0.0.1:9090"}


@pytest.fixture
def token() -> str:
    """This module's instance asks for a token."""
    return TOKEN


def _bearer(token: str) -> dict[bytes, bytes]:
    return {b"authorization": b"Bearer " + token.encode()}


@pytest.mark.parametrize(
    "path", ["/api/v1/status", "/api/v1/routes", "/metrics", "/openapi.json", "/api/v1/nothing"]
)
async def test_data_needs_the_token(
    client: httpx.AsyncClient, instance: Instance, path: str
) -> None:
    """Without it, and with a wrong one: 401, the challenge, and a counter."""
    for headers in ({}, _bearer("wrong"), {b"authorization": b"Basic eDp5"}):
        answer = await client.get(path, headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert TOKEN not in answer.text
    assert instance.observer.refused["no_token"] == 1
    assert instance.observer.refused["wrong_token"] == 2
    assert (await client.get(path, headers=_bearer(TOKEN))).status_code in (200, 404)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/", "/dashboard.js"])
async def test_probes_and_the_empty_dashboard_need_none(
    client: httpx.AsyncClient, path: str
) -> None:
    """They tell no secret."""
    assert (await client.get(path)).status_code == 200


async def test_an_order_without_the_token_changes_nothing(
    client: httpx.AsyncClient, instance: Instance
) -> None:
    """The guard stands before the application."""
    generation = instance.page.generation()
    answer = await client.post("/api/v1/revive", json={"reason": "r"})
    assert answer.status_code == 401
    assert instance.page.generation() == generation


@pytest.mark.parametrize(
    ("headers", "is_refused"),
    [
        ({"origin": "http://evil.example"}, True),
        ({"origin": "null"}, True),
        ({"origin": "http://127.0.0.1:9091"}, True),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "same-site"}, True),
        ({"origin": "http://127.0.0.1:9090", "sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "none"}, False),
        ({}, False),
    ],
)
def test_pages_of_other_sites_are_refused_even_with_the_token(
    headers: dict[str, str], is_refused: bool
) -> None:
    """A browser tells the truth in these headers; other clients send none."""
    given = {**HOST, **headers, "authorization": "Bearer x"}
    for rules in (Rules("x", "127.0.0.1"), Rules("", "127.0.0.1")):
        refusal = judge(rules, "POST", "/api/v1/kill", given)
        assert (refusal is not None and refusal.status == 403) == is_refused


@pytest.mark.parametrize(
    ("host", "is_refused"),
    [
        ("127.0.0.1:9090", False),
        ("localhost:9090", False),
        ("[::1]:9090", False),
        ("10.1.2.3:9090", False),
        ("evil.example:9090", True),
        ("127.0.0.1.evil.example", True),
        ("", True),
    ],
)
def test_without_a_token_the_host_must_be_ours(host: str, is_refused: bool) -> None:
    """A foreign name that was made to point here (DNS rebinding) is same-origin to a browser."""
    rules = Rules("", "10.1.2.3")
    refusal = judge(rules, "GET", "/api/v1/status", {"host": host})
    assert (refusal is not None) == is_refused
    assert judge(RULES, "GET", "/healthz", {"host": host}) is None


def test_the_scheme_is_case_insensitive_and_the_token_is_not() -> None:
    """RFC 9110 section 11.1."""
    rules = Rules("Abc", "127.0.0.1")
    assert judge(rules, "GET", "/metrics", {**HOST, "authorization": "bearer Abc"}) is None
    assert judge(rules, "GET", "/metrics", {**HOST, "authorization": "Bearer abc"}) is not None
