"""Taking over another config while requests run: between two of them, whole or not at all.

An exchange keeps what it began with: its route's context, and so its pools, its redaction and the
version in its record. Requests that come after the swap find the new routes. A backend that has not
changed keeps its pool, with connections, standing and what is known of its endpoints; a candidate that
has not, its breaker and its rate. What is replaced is kept until the last exchange that needs it has
ended: kills and deadlines reach it until then.

The page names the revision, so a worker learns of it by the look that each request has anyway, or by
its tick; the work is done beside the requests.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from proxy.config.resolved import Config
from proxy.dataplane.pool import Pool
from proxy.dataplane.routes import RouteContext
from proxy.errors import UnderstudyError
from proxy.state.running_config import read_config
from proxy.state.stats_file import Layout
from proxy.telemetry import monotonic_s

if TYPE_CHECKING:
    from proxy.dataplane.worker import Worker

#: How often what was replaced is looked at, and a config that could not be taken over tried again.
LOOK_S: Final = 1.0

logger = logging.getLogger("understudy.worker")


class Revisions:
    """The config changes of one worker.

    Attributes:
        contexts: replaced, and perhaps still needed by exchanges.
        pools: replaced, and perhaps still needed by contexts or legs.
    """

    def __init__(self, worker: Worker, loop: asyncio.AbstractEventLoop) -> None:
        self._worker = worker
        self._loop = loop
        self.contexts: list[RouteContext] = []
        self.pools: list[Pool] = []
        self._is_due = False
        self._look_s = 0.0
        self._trouble = ""

    def notice(self) -> None:
        """Begin to take over the config that the control page names, if it is another one."""
        state = self._worker.state
        if state is None or state.config_revision == self._worker.revision or self._is_due:
            return
        self._is_due = True
        self._worker.spawn(self._take_over())

    def look(self, now_s: float) -> None:
        """Let go of what nobody needs any more, and try again what failed; called by each tick."""
        for pool in self.pools:
            pool.expire(now_s)
        if now_s < self._look_s:
            return
        self._look_s = now_s + LOOK_S
        self.notice()
        if self.contexts or self.pools:
            self.forget()

    def forget(self) -> None:
        """Let go of the contexts and pools that no exchange needs any more."""
        worker = self._worker
        pools = [*worker.pools.values(), *self.pools]
        needed = {id(leg.exchange.context) for pool in pools for leg in pool.legs()}
        needed |= {id(exchange.context) for exchange in worker.clients.exchanges()}
        kept = [context for context in self.contexts if id(context) in needed]
        named = {id(pool) for context in kept for pool in context.pools.values()}
        kept_pools = [pool for pool in self.pools if pool.in_flight or id(pool) in named]
        if len(kept) == len(self.contexts) and len(kept_pools) == len(self.pools):
            return
        worker.gauges.write_observed()  # their last observations
        for pool in self.pools:
            if pool not in kept_pools:
                pool.close()
        self.contexts, self.pools = kept, kept_pools
        worker.recount()

    async def _take_over(self) -> None:
        """Take over what the page names, and again if it names another one by then."""
        worker = self._worker
        try:
            while (state := worker.state) is not None and state.config_revision != worker.revision:
                version = state.config_version
                # In a thread: of many routes it takes longer than a user should wait.
                config, layout = await self._loop.run_in_executor(
                    None, _read, Path(worker.config.state_dir), version
                )
                if worker.state is not None and worker.state.config_version == version:
                    pools = self._pools(config)
                    worker.stats.extend(layout)
                    self._swap(config, pools, state.config_revision)
                self._trouble = ""
        except UnderstudyError as exc:
            if str(exc) != self._trouble:  # it is tried again each second
                logger.error("a new config: %s; the old one stays in use", exc)  # noqa: TRY400 - no traceback for a missing file
            self._trouble = str(exc)
        finally:
            self._look_s = monotonic_s() + LOOK_S
            self._is_due = False

    def _pools(self, config: Config) -> dict[str, Pool]:
        """Return the pools of a config: those that still fit, and new ones.

        Raises:
            TlsFileError: a file of a backend's TLS settings cannot be used.
        """
        worker = self._worker
        found: dict[str, Pool] = {}
        for name, backend in config.backends.items():
            old = worker.pools.get(name)
            if old is not None and old.still_fits(backend):
                found[name] = old
            else:
                found[name] = Pool(backend, self._loop, worker.spawn)
        return found

    def _swap(self, config: Config, pools: dict[str, Pool], revision: int) -> None:
        worker = self._worker
        old_contexts, old_pools = worker.routes.contexts(), worker.pools
        worker.run(config, pools, revision)
        kept = set(map(id, pools.values()))
        retired = [pool for pool in old_pools.values() if id(pool) not in kept]
        for pool in retired:
            pool.retire()
        self.contexts += old_contexts
        self.pools += retired
        worker.recount()
        logger.info(
            "config %s is in use (revision %d, %d new connection pools)",
            config.version, revision, len(retired),
        )  # fmt: skip


def _read(state_dir: Path, version: str) -> tuple[Config, Layout]:
    """Return a config and its counters.

    Raises:
        StateError: it cannot be read.
    """
    config = read_config(state_dir, version)
    return config, Layout(config)
