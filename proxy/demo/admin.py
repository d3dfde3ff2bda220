"""The orders that the demo gives to the running proxy, over its admin API."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import httpx
import orjson

from proxy.demo.processes import START_S, Child, ProcessError
from proxy.errors import AdminError
from proxy.telemetry import monotonic_s

ROUTE: Final = "digits"
_CALL_S: Final = 5.0
_POLL_S: Final = 0.02


async def wait_ready(proxy: Child, state_dir: Path) -> tuple[str, str]:
    """Return the URLs of the proxy's listener and of its admin API, once it serves.

    Raises:
        ProcessError: it ended, or did not get ready in time.
    """
    runtime_path = state_dir / "runtime.json"
    deadline_s = monotonic_s() + START_S
    async with httpx.AsyncClient(timeout=_CALL_S) as client:
        while monotonic_s() < deadline_s:
            proxy.fail_if_ended()
            if runtime_path.exists():
                runtime = orjson.loads(runtime_path.read_bytes())
                admin = f"http://{runtime['admin']}"
                if await _is_ready(client, admin):
                    return f"http://{runtime['listen']}", admin
            await asyncio.sleep(_POLL_S)
    raise ProcessError(f"{proxy.name} was not ready within {START_S:g} s; see {proxy.log}")


async def _is_ready(client: httpx.AsyncClient, admin: str) -> bool:
    try:
        return (await client.get(f"{admin}/readyz")).is_success
    except httpx.TransportError:
        return False


class Admin:
    """The admin API at `url`."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.AsyncClient(base_url=url, timeout=_CALL_S)

    async def status(self) -> dict[str, Any]:
        """Return the whole status document."""
        return await self._call("GET", "/api/v1/status")

    async def candidate(self, name: str) -> dict[str, Any]:
        """Return what the status says of a candidate."""
        route = (await self._call("GET", "/api/v1/routes"))["routes"][0]
        found: dict[str, Any] = next(each for each in route["candidates"] if each["name"] == name)
        return found

    async def start_ramp(self, candidate: str, reason: str) -> None:
        """Let a candidate begin its ramp."""
        order = {"candidate": candidate, "reason": reason, "seen_generation": await self._seen()}
        await self._call("POST", f"/api/v1/routes/{ROUTE}/ramp/start", order)

    async def ramp_decisions(self, candidate: str) -> list[dict[str, Any]]:
        """Return the decisions about a candidate's ramp, the oldest first."""
        found = (await self._call("GET", "/api/v1/decisions?limit=1000"))["decisions"]
        return [
            each
            for each in reversed(found)
            if each["scope"] == f"{ROUTE}/{candidate}" and each["action"].startswith("ramp_")
        ]

    async def kill(self, reason: str) -> None:
        """Send everything back to the primary."""
        await self._call("POST", "/api/v1/kill", {"reason": reason})

    async def revive(self, reason: str) -> None:
        """Open the kill again."""
        order = {"reason": reason, "seen_generation": await self._seen()}
        await self._call("POST", "/api/v1/revive", order)

    async def _seen(self) -> int:
        """Return what an order must say for control to take it on a machine as busy as this one."""
        return int((await self.status())["control_page"]["generation"])

    async def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return the answer.

        Raises:
            AdminError: there was none, or it was a refusal.
        """
        try:
            answer = await self._client.request(method, path, json=body)
        except httpx.TransportError as exc:
            raise AdminError(f"{self.url} did not answer {path}: {exc!r}") from exc
        if not answer.is_success:
            raise AdminError(f"{self.url} refused {path} ({answer.status_code}): {answer.text}")
        document: dict[str, Any] = answer.json()
        return document

    async def __aenter__(self) -> Admin:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.aclose()


async def server_stats(urls: dict[str, str]) -> dict[str, dict[str, Any]]:
    """Return what each model server has counted, by name."""
    async with httpx.AsyncClient(timeout=_CALL_S) as client:
        return {name: (await client.get(f"{url}/stats")).json() for name, url in urls.items()}
