"""Who may use the admin API: the bearer token, and browsers on foreign pages.

`judge` is pure and decides; `Guard` asks it for every request before the application sees it. What
it stops: a caller without the token; a foreign page that makes a browser send something (its
`Origin` or `Sec-Fetch-Site` says so); and, where no token is asked for, a foreign name that was made
to point at this machine (DNS rebinding; the `Host` says so).
"""

from __future__ import annotations

import hmac
import ipaddress
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import orjson
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

#: Answered to everybody: probes carry no token, and the dashboard's shell holds no data.
OPEN_PATHS = frozenset({"/", "/healthz", "/readyz", "/dashboard.js", "/ramps.js", "/dashboard.css"})
#: Every reason of a `Refusal`: each is counted from zero.
REFUSALS = ("no_token", "wrong_token", "cross_site", "foreign_host")
_SAME_SITE = frozenset({"same-origin", "none"})


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator asks for; `host` is the configured admin address, `token` may be empty."""

    token: str
    host: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is refused: a status, a word for the counter and a sentence for the caller."""

    status: int
    reason: str
    message: str


def judge(rules: Rules, method: str, path: str, headers: Mapping[str, str]) -> Refusal | None:
    """Return why a request is refused, or None; header names are lower case.

    A link from a foreign page to the dashboard is let through: it is a plain navigation to a page
    without data.
    """
    if path in OPEN_PATHS and method in ("GET", "HEAD"):
        return None
    if _is_cross_site(headers):
        return Refusal(403, "cross_site", "requests from pages of other sites are refused")
    return _judge_token(rules, headers) if rules.token else _judge_host(rules, headers)


class Guard:
    """Refuses, before the application, what `judge` refuses; counts it by reason."""

    def __init__(self, app: ASGIApp, rules: Rules, refused: Counter[str]) -> None:
        self._app = app
        self._rules = rules
        self._refused = refused

    def follow(self, rules: Rules) -> None:
        """Judge by `rules` from now on."""
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request, pass any other one on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = judge(self._rules, scope["method"], scope["path"], headers)
        if refusal is None:
            await self._app(scope, receive, send)
            return
        self._refused[refusal.reason] += 1
        answer = Response(
            orjson.dumps({"error": refusal.message}), refusal.status, media_type="application/json"
        )
        if refusal.status == 401:
            answer.headers["www-authenticate"] = 'Bearer realm="understudy"'
        await answer(scope, receive, send)


def _judge_token(rules: Rules, headers: Mapping[str, str]) -> Refusal | None:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    is_right = hmac.compare_digest(given.strip().encode("latin-1"), rules.token.encode())
    if scheme.lower() == "bearer" and is_right:
        return None
    if not given:
        return Refusal(401, "no_token", "send the token as `Authorization: Bearer TOKEN`")
    return Refusal(401, "wrong_token", "this is not the token in the config's admin.token")


def _judge_host(rules: Rules, headers: Mapping[str, str]) -> Refusal | None:
    host = _hostname(headers.get("host", ""))
    if host == rules.host or _is_loopback(host):
        return None
    return Refusal(403, "foreign_host", "without a token, the Host must be a loopback address")


def _is_cross_site(headers: Mapping[str, str]) -> bool:
    if headers.get("sec-fetch-site", "none") not in _SAME_SITE:
        return True
    origin = headers.get("origin")
    if origin is None:
        return False
    return origin.partition("://")[2] != headers.get("host", "")  # also `null`, which has no host


def _hostname(host: str) -> str:
    """Return the name in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
