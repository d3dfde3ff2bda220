"""Whom a replay asks, and how: the backend that a name or URL means, and one call of it.

A backend of the config is reached as the data plane reaches it (deadlines, TLS, Unix sockets, the
endpoint with the fewest calls under way), and gets what a candidate with that backend would get: its
own header fields and its model's name. A URL gets the requests as they were.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import httpx

from proxy.analysis.backend_client import client, extensions
from proxy.analysis.replay_pair import ReplayAnswer
from proxy.analysis.replay_request import ReplayRequest
from proxy.config.addresses import endpoint
from proxy.config.resolved import Backend, Config, Protocol, Rewrite as Changes
from proxy.errors import ReplayError
from proxy.pairs import sse
from proxy.telemetry import monotonic_s
from proxy.wire.rewrite import Rewrite
from proxy.wire.stream_times import StreamTimes

#: Tells a model what it is asked by: a copy, as the data plane marks its own, and which kind.
MARKS: Final = {"x-understudy-mirror": "1", "x-understudy-replay": "1"}
_FIRST_ERROR_STATUS: Final = 400
#: Of a URL, for which no config says anything; as the config's own defaults.
_CONNECT_S, _TIMEOUT_S, _KEEPALIVE_S = 1.0, 30.0, 4.0


class NotConnectedError(Exception):
    """No connection could be opened, so nothing was sent."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one answer: how much is read of it, and how much kept."""

    response_bytes: int
    kept_bytes: int


def backend_of(to: str, config: Config) -> Backend:
    """Return the backend that `to` means: a URL, a backend's name, or a candidate's.

    Raises:
        ReplayError: there is no such backend.
    """
    if "://" in to or to.startswith("unix:"):
        try:
            where = endpoint(to)
        except ValueError as exc:
            raise ReplayError(f"--to: {exc}") from exc
        return Backend(to, (where,), _CONNECT_S, _TIMEOUT_S, 0, _KEEPALIVE_S)
    if to in config.backends:
        return config.backends[to]
    named = {c.backend for route in config.routes for c in route.candidates if c.name == to}
    if len(named) == 1:
        return config.backends[named.pop()]
    if named:
        raise ReplayError(f"--to {to}: candidates of that name have several backends; name one")
    raise ReplayError(
        f"--to {to}: no such backend ({', '.join(config.backends)}); a URL is http://HOST:PORT"
    )


def changes_of(backend: Backend, config: Config) -> dict[str, tuple[Changes, Protocol]]:
    """Return for each route that has a candidate with this backend what is changed for it."""
    return {
        route.name: (candidate.rewrite, route.protocol)
        for route in config.routes
        for candidate in route.candidates
        if candidate.backend == backend.name
    }


class Sender:
    """Sends requests to one backend.

    Args:
        backend: whom to ask.
        changes: see `changes_of`.
        headers: fields that are set on every request, names in lower case.
        limits: of answers.
        connections: at most so many are open, to each endpoint.
    """

    def __init__(
        self,
        backend: Backend,
        changes: Mapping[str, tuple[Changes, Protocol]],
        headers: Mapping[str, str],
        limits: Limits,
        connections: int,
    ) -> None:
        """Prepare; nothing is connected yet.

        Raises:
            TlsFileError: the files of the backend's TLS settings cannot be used.
        """
        self._backend = backend
        self._changes = {
            name: (each, Rewrite(each, protocol)) for name, (each, protocol) in changes.items()
        }
        self._headers = dict(headers)
        self._limits = limits
        self._clients = [
            client(backend, each, connections=connections) for each in backend.endpoints
        ]
        self._calls = [0] * len(self._clients)

    async def ask(self, asked: ReplayRequest) -> ReplayAnswer:
        """Send one request and return what came of it; a failure is an answer, too.

        Raises:
            NotConnectedError: it was not sent.
        """
        number = self._calls.index(min(self._calls))
        self._calls[number] += 1
        try:
            return await self._ask(self._clients[number], self._request(number, asked))
        finally:
            self._calls[number] -= 1

    async def close(self) -> None:
        """Close all connections."""
        for each in self._clients:
            await each.aclose()

    def _request(self, number: int, asked: ReplayRequest) -> httpx.Request:
        fields = {**asked.fields, "x-request-id": asked.request_id, **MARKS}
        path, body = asked.path, asked.body
        found = self._changes.get(asked.route)
        if found is not None:
            changes, rewrite = found
            fields = {k: v for k, v in fields.items() if k not in changes.remove_headers}
            fields |= changes.set_headers
            if changes.model and not rewrite.changes_body:
                path = rewrite.target(path)
            elif changes.model and body:
                changed = rewrite.body(body)
                body = changed if isinstance(changed, bytes) else body
        # As it was: httpx would else ask for a coding that the user may not have asked for.
        fields = {"accept": "*/*", "accept-encoding": "identity", **fields, **self._headers}
        http = self._clients[number]
        return http.build_request(
            asked.method,
            http.base_url.copy_with(raw_path=path),
            content=body,
            headers={"user-agent": "understudy-replay", **fields},
            extensions=extensions(self._backend),
        )

    async def _ask(self, http: httpx.AsyncClient, request: httpx.Request) -> ReplayAnswer:
        heard = _Heard(self._limits, monotonic_s())
        try:
            async with asyncio.timeout(self._backend.timeout_s) as deadline:
                answer = await http.send(request, stream=True)
                try:
                    heard.head(answer)
                    if heard.is_event_stream:
                        # The loop's clock is the same one.
                        deadline.reschedule(heard.begun_s + self._backend.stream_timeout_s)
                    async for piece in answer.aiter_raw():
                        heard.piece(piece)
                finally:
                    await answer.aclose()
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as exc:
            raise NotConnectedError(str(exc) or type(exc).__name__) from exc
        except (TimeoutError, httpx.TimeoutException):
            return heard.answer(
                "timeout", f"no whole answer in {monotonic_s() - heard.begun_s:.3g} s"
            )
        except (httpx.HTTPError, _TooLongError) as exc:
            return heard.answer("reset", str(exc) or type(exc).__name__)
        is_error = answer.status_code >= _FIRST_ERROR_STATUS
        return heard.answer("http_error" if is_error else "ok", None)


class _TooLongError(Exception):
    """The answer is longer than the limit."""


@dataclass(slots=True)
class _Heard:
    """What has come of an answer so far."""

    limits: Limits
    begun_s: float
    first_s: float = 0.0
    response: httpx.Response | None = None
    times: StreamTimes = field(default_factory=StreamTimes)
    kept: bytearray = field(default_factory=bytearray)
    size_bytes: int = 0
    chunks: int = 0
    is_event_stream: bool = False

    def head(self, response: httpx.Response) -> None:
        """Note that the head has come."""
        self.response, self.first_s = response, monotonic_s()
        self.is_event_stream = sse.is_stream(response.headers.get("content-type"))
        self.times = StreamTimes(is_event_stream=self.is_event_stream)

    def piece(self, data: bytes) -> None:
        """Take a piece of the body.

        Raises:
            _TooLongError: it is longer than is read of one.
        """
        now_s = monotonic_s()
        self.chunks += 1
        self.size_bytes += len(data)
        self.times.piece(now_s)
        if self.times.is_waiting:
            self.times.look_for_content([data], now_s)
        # The start without a hole: once something did not fit, nothing more is kept.
        if len(self.kept) + len(data) == self.size_bytes:
            self.kept += data[: self.limits.kept_bytes - len(self.kept)]
        if self.size_bytes > self.limits.response_bytes:
            raise _TooLongError(f"the answer has more than {self.limits.response_bytes} bytes")

    def answer(self, status: str, error: str | None) -> ReplayAnswer:
        """Return what has come, as that of a call that ended now."""
        times, response = self.times, self.response
        in_pieces = times.gaps > 0
        kind = response.headers.get("content-type") if response is not None else None
        coding = response.headers.get("content-encoding") if response is not None else None
        return ReplayAnswer(
            status=status,
            http_status=None if response is None else response.status_code,
            error=error,
            content_type=kind,
            content_encoding=coding,
            body=bytes(self.kept),
            size_bytes=self.size_bytes,
            chunks=self.chunks,
            is_whole=error is None,
            ttfb_us=_micros(self.first_s - self.begun_s) if response is not None else None,
            latency_us=_micros(monotonic_s() - self.begun_s),
            ttft_us=_micros(times.content_s - self.begun_s) if times.content_s else None,
            itl_p50_us=_micros(times.median_s()) if in_pieces else None,
            itl_max_us=_micros(times.longest_s) if in_pieces else None,
        )


def _micros(duration_s: float) -> int:
    return int(duration_s * 1e6)
