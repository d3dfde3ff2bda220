"""A worker inside the test's own event loop, on a real socket, with its journal readable.

async with dataplane(tmp_path, primary=a.port, candidates={"v2": b.port}) as plane:
    status, fields, body = await plane.request(b"POST", b"/x", body=b"{}")
    lines = await plane.pairs(1)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import orjson
import zstandard

from proxy.config.resolved import (
    Backend,
    Bodies,
    Candidate,
    Config,
    Endpoint,
    Guard,
    Protocol,
    Redact,
    RedactRule,
    Route,
    Split,
    SplitKind,
    Tls,
    digest,
)
from proxy.dataplane.client import ClientConnection
from proxy.dataplane.leg import Leg, ServingLeg
from proxy.dataplane.tls import Certificates
from proxy.dataplane.worker import Worker
from proxy.state.control_page import ControlState, for_config, open_page, update
from proxy.telemetry import monotonic_s
from tests.support.deadline import PATIENCE_S
from tests.support.resolved_config import small_config, write_config

T = TypeVar("T")
Answer = tuple[int, dict[bytes, bytes], bytes]


@dataclass
class Options:
    """How the plane of a test differs from the usual: 100% mirror, no canary, short time-outs."""

    mirror_bp: dict[str, int] = field(default_factory=dict)
    weight_bp: dict[str, int] = field(default_factory=dict)
    split: Split = field(default_factory=lambda: Split(SplitKind.HEADER, "x-user-id"))
    #: Longer than any test waits, so that no time-out of the product passes for what was to happen.
    timeout_s: float = 600.0
    max_in_flight: int = 64
    primary_in_flight: int = 1024
    replicate_bp: int = 0
    bodies: Bodies = Bodies.RESPONSES
    redact: tuple[RedactRule, ...] = ()
    redact_key: str = ""
    limits: Mapping[str, Any] = field(default_factory=dict)
    deadlines: dict[str, dict[str, float]] = field(default_factory=dict)
    upgrades: tuple[str, ...] = ("websocket",)
    tls: Tls | None = None
    protocol: Protocol = Protocol.JSON
    guard: Guard = field(default_factory=Guard)
    #: Fields of every `Candidate`, such as its breaker, rate, time-out and rewrite.
    copies: dict[str, Any] = field(default_factory=dict)
    workers: int = 1
    trusted_proxies: tuple[str, ...] = ()
    #: The last word on the config.
    adapt: Callable[[Config], Config] | None = None


def plane_config(
    state_dir: Path, primary: int, candidates: dict[str, int], options: Options
) -> Config:
    """Return the config of a plane whose backends listen on the given ports."""
    base = small_config(state_dir)

    def backend(name: str, port: int) -> Backend:
        cap = options.primary_in_flight if name == "primary" else options.max_in_flight
        timeout_s = options.timeout_s
        # A connection has as long as an answer: who is stalled while one is opened must not fail for it.
        whole = Backend(name, (Endpoint("127.0.0.1", port),), 5.0, timeout_s, cap, 4.0)
        return replace(whole, **options.deadlines.get(name, {}))  # type: ignore[arg-type]  # floats

    route: Route = replace(
        base.routes[0],
        primary="primary",
        split=options.split,
        upgrades=options.upgrades,
        replicate_bp=options.replicate_bp,
        protocol=options.protocol,
        mirror_only=options.guard,
        candidates=tuple(
            Candidate(
                name,
                name,
                options.mirror_bp.get(name, 10_000),
                options.weight_bp.get(name, 0),
                **options.copies,
            )
            for name in candidates
        ),
    )
    ports = {"primary": primary, **candidates}
    config = replace(
        base,
        tls=options.tls,
        workers=options.workers,
        trusted_proxies=options.trusted_proxies,
        backends={name: backend(name, port) for name, port in ports.items()},
        routes=(route,),
        record=replace(
            base.record,
            bodies=options.bodies,
            redact=Redact((), options.redact, key=options.redact_key),
        ),
        limits=replace(base.limits, **{"request_body_bytes": 2**26, **options.limits}),
    )
    config = config if options.adapt is None else options.adapt(config)
    return replace(config, version=digest(config))


def prepare(config: Config) -> None:
    """Make the state directory and its control page, as the launcher does."""
    Path(config.state_dir).mkdir(exist_ok=True)
    page = open_page(Path(config.state_dir), create=True)
    update(page, lambda state: for_config(config, state))
    page.close()


class Plane:
    """A running worker and the ways to talk to it."""

    def __init__(
        self, worker: Worker, port: int, state_dir: Path, connections: set[ClientConnection]
    ) -> None:
        self.worker = worker
        self.certificates: Certificates | None = None
        self.server: asyncio.Server
        self.connections = connections
        self.port = port
        self.state_dir = state_dir

    def count(self, name: str, *labels: str) -> int:
        """Return one counter, with what the next tick would write of durations."""
        self.worker.gauges.write_observed()
        return self.worker.stats.get(name, *labels)

    def age(self, name: str, seconds: float) -> None:
        """Let so much time pass at once for the calls that a backend has under way, and look at them."""
        for pool in self.worker.all_pools():
            if pool.backend.name == name:
                for leg in pool.legs():
                    _age(leg, seconds)
                pool.expire(monotonic_s())

    def change(self, change: Callable[[ControlState], ControlState]) -> None:
        """Publish a new control state."""
        page = open_page(self.state_dir)
        update(page, change)
        page.close()

    def publish(self, adapt: Callable[[Config], Config]) -> Config:
        """Put a changed config in place, as control does; return it."""
        config = adapt(self.worker.config)
        config = replace(config, version=digest(config))
        write_config(config)
        self.change(lambda state: for_config(config, state))
        return config

    async def reload(self, adapt: Callable[[Config], Config]) -> Config:
        """Put a changed config in place, and wait until the worker runs it."""
        before, config = self.worker.revision, self.publish(adapt)
        await until(lambda: self.worker.revision > before, "the worker to take the config over")
        return config

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Open a client connection."""
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def request(
        self, method: bytes, target: bytes, *, body: bytes = b"", extra: bytes = b""
    ) -> Answer:
        """Send one request on a connection of its own; return the answer."""
        reader, writer = await self.connect()
        try:
            writer.write(request_bytes(method, target, body, extra))
            return await read_answer(reader, method)
        finally:
            writer.close()

    async def pairs(self, count: int, timeout_s: float = PATIENCE_S) -> list[dict[str, Any]]:
        """Wait until at least `count` journal lines are on disk, and in the books; return all."""
        return await until(lambda: self._enough(count), f"{count} pairs", timeout_s)

    def is_flushed(self) -> bool:
        """Return whether every pair so far is written, and in the books."""
        return not (self.worker.journal.buffered_pairs or self.worker.journaling.is_busy)

    def _enough(self, count: int) -> list[dict[str, Any]] | None:
        if self.worker.journaling.is_busy:
            return None
        lines = self.lines()
        return lines if len(lines) >= count else None

    def lines(self) -> list[dict[str, Any]]:
        """Return the journal lines on disk."""
        found: list[dict[str, Any]] = []
        for path in sorted((self.state_dir / "journal").glob("*/*.zst")):
            with (
                path.open("rb") as file,
                zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as reader,
            ):
                found += [orjson.loads(line) for line in reader.read().splitlines()]
        return found


def _age(leg: Leg, seconds: float) -> None:
    leg.begun_s -= seconds
    leg.until_s -= seconds
    leg.look_s -= seconds
    if leg.seen is not None:
        leg.seen.quiet_s -= seconds
    if isinstance(leg, ServingLeg) and leg._held_since_s:
        leg._held_since_s -= seconds


async def until(condition: Callable[[], T | None], what: str, timeout_s: float = PATIENCE_S) -> T:
    """Return the first true value of `condition`; fail after `timeout_s` seconds."""
    deadline_s = monotonic_s() + timeout_s
    while not (value := condition()):
        assert monotonic_s() < deadline_s, f"waited {timeout_s:g} s in vain for {what}"
        await asyncio.sleep(0.005)
    return value


class _ServerState:
    """What uvicorn shares between its connections."""

    def __init__(self) -> None:
        self.connections: set[ClientConnection] = set()
        self.tasks: set[asyncio.Task[None]] = set()


@asynccontextmanager
async def dataplane(
    state_dir: Path,
    *,
    primary: int,
    candidates: dict[str, int] | None = None,
    options: Options | None = None,
) -> AsyncIterator[Plane]:
    """Run a worker in this loop; at the end stop it and check that nothing is held or open."""
    config = plane_config(state_dir, primary, candidates or {}, options or Options())
    prepare(config)
    loop = asyncio.get_running_loop()
    certificates = None if config.tls is None else Certificates(config.tls, loop)
    worker = Worker(config, 0, loop)
    state = _ServerState()
    server = await loop.create_server(
        # an asyncio.Protocol by its methods
        lambda: ClientConnection(worker, config, state, {}, loop),  # type: ignore[arg-type,return-value]
        "127.0.0.1",
        0,
        ssl=None if certificates is None else certificates.context,
    )
    worker.start()
    try:
        plane = Plane(worker, server.sockets[0].getsockname()[1], state_dir, state.connections)
        plane.certificates, plane.server = certificates, server
        yield plane
    finally:
        server.close()
        for connection in tuple(state.connections):
            connection.transport.abort()
        await until(lambda: not state.connections, "the client connections to close")
        await worker.stop(0.0)
        assert worker.held_bytes == 0
        assert all(pool.in_flight == 0 for pool in worker.all_pools())


def request_bytes(method: bytes, target: bytes, body: bytes, extra: bytes) -> bytes:
    """Return a request; `extra` are header lines, each ended by CRLF."""
    length = b"content-length: %d\r\n" % len(body) if body else b""
    return b"%b %b HTTP/1.1\r\nhost: test\r\n%b%b\r\n%b" % (method, target, length, extra, body)


async def read_answer(reader: asyncio.StreamReader, method: bytes = b"POST") -> Answer:
    """Read one final answer, whatever its framing."""
    head = b"HTTP/1.1 100"
    while head.startswith(b"HTTP/1.1 1"):
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
    first, *lines = head[:-4].split(b"\r\n")
    status = int(first.split(b" ")[1])
    fields = {}
    for line in lines:
        name, _, value = line.partition(b": ")
        fields[name.lower()] = value
    if method == b"HEAD" or status in (204, 304):
        return status, fields, b""
    if b"content-length" in fields:
        body = await asyncio.wait_for(
            reader.readexactly(int(fields[b"content-length"])), PATIENCE_S
        )
    elif fields.get(b"transfer-encoding") == b"chunked":
        body = await _read_chunks(reader)
    else:
        body = await asyncio.wait_for(reader.read(), PATIENCE_S)
    return status, fields, body


async def _read_chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        size = int(await asyncio.wait_for(reader.readuntil(b"\n"), PATIENCE_S), 16)
        data = await asyncio.wait_for(reader.readexactly(size + 2), PATIENCE_S)
        body += data[:-2]
        if size == 0:
            return body
