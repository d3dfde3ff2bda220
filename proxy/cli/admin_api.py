"""Talking to the admin API of a running instance.

With the standard library: importing httpx took 200 ms where `http.client` took 40 ms (two cores, warm
cache). And in a module of its own, because orders that are carried out on the page need neither.
"""

from __future__ import annotations

import http.client
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import orjson

from proxy.cli.instance import Instance
from proxy.cli.state_dirs import operator
from proxy.errors import AdminError

TIMEOUT_S = 5.0
#: For many lines, which are synced to the disk before the answer.
LINES_TIMEOUT_S = 30.0


class UnreachableError(AdminError):
    """The admin API did not answer: control may be dead, hung or being replaced."""


class RefusedError(AdminError):
    """The admin API answered with an error.

    Attributes:
        status: the HTTP status.
        answer: all that it said.
    """

    def __init__(self, status: int, message: str, answer: dict[str, Any]) -> None:
        super().__init__(message)
        self.status = status
        self.answer = answer


def call(
    instance: Instance,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """Return the JSON answer of the admin API.

    Raises:
        UnreachableError: it did not answer within `timeout_s`.
        RefusedError: it refused; the text is its own.
        AdminError: something else listens there.
    """
    data = None if body is None else orjson.dumps(body)
    return _answer(instance, method, path, _Sent(data, "application/json"), timeout_s)


def call_lines(
    instance: Instance, path: str, lines: bytes, timeout_s: float = LINES_TIMEOUT_S
) -> dict[str, Any]:
    """Post NDJSON and return the JSON answer; raises what `call` raises."""
    return _answer(instance, "POST", path, _Sent(lines, "application/x-ndjson"), timeout_s)


class _Sent(NamedTuple):
    """What is sent in a request; nothing where `data` is None."""

    data: bytes | None
    content_type: str


def _answer(
    instance: Instance, method: str, path: str, sent: _Sent, timeout_s: float
) -> dict[str, Any]:
    if not instance.admin_url:
        raise UnreachableError("no instance runs here (no runtime.json in its state directory)")
    status, data = _exchange(instance, method, path, sent, timeout_s)
    try:
        answer = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise AdminError(
            f"{instance.admin_url} is no Understudy admin API: it answered {status} without JSON"
        ) from exc
    if not isinstance(answer, dict) or status >= 400:
        reason = answer.get("error", "no reason given") if isinstance(answer, dict) else answer
        hint = "; set UNDERSTUDY_TOKEN" if status == 401 else ""
        told = answer if isinstance(answer, dict) else {}
        raise RefusedError(status, f"{instance.admin_url} refused ({status}): {reason}{hint}", told)
    return answer


def _exchange(
    instance: Instance, method: str, path: str, sent: _Sent, timeout_s: float
) -> tuple[int, bytes]:
    parts = urlsplit(instance.admin_url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    headers = {"accept": "application/json", "x-understudy-actor": operator()}
    if instance.token:
        headers["authorization"] = f"Bearer {instance.token}"
    if sent.data is not None:
        headers["content-type"] = sent.content_type
    try:
        connection.request(method, parts.path.rstrip("/") + path, sent.data, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as exc:
        reason = f"no answer within {timeout_s:g} s" if isinstance(exc, TimeoutError) else str(exc)
        raise UnreachableError(f"cannot reach {instance.admin_url}: {reason}") from exc
    finally:
        connection.close()
