"""Backends with several endpoints, and endpoints that are backends of a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from proxy.config.resolved import Endpoint
from proxy.dataplane.pool import Pool
from proxy.routing.decide import PRIMARY
from tests.support.dataplane import Plane
from tests.support.upstreams import Behaviour, Upstream


def give_endpoints(plane: Plane, *endpoints: Endpoint, **changes: Any) -> Pool:
    """Give the primary these endpoints, and other settings."""
    worker = plane.worker
    backend = replace(worker.config.backends["primary"], endpoints=endpoints, **changes)
    pool = Pool(backend, asyncio.get_running_loop(), worker.spawn)
    worker.pools["primary"] = pool
    for context in worker.routes.contexts():
        context.pools[PRIMARY] = pool
    return pool


def at(*ports: int) -> list[Endpoint]:
    """Return endpoints on these ports of this machine."""
    return [Endpoint("127.0.0.1", port) for port in ports]


@asynccontextmanager
async def upstreams(*behaviours: Behaviour) -> AsyncIterator[list[Upstream]]:
    """Run a backend for each behaviour."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Upstream(each)) for each in behaviours]
