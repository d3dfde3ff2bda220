"""What all connections of one worker share: routes, pools, counters, journal, control page.

The worker looks at the control page's generation on every request and makes new plans only when it
has moved; an unreadable page means primary only. Its tick, every 50 ms, does all that must happen
without a request: deadlines, the cancelling of killed mirrors, idle connections, the page's health.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

from proxy.config.resolved import Config
from proxy.dataplane import half_closed
from proxy.dataplane.access_log import followed, open_access_log
from proxy.dataplane.counters import CandidateCells
from proxy.dataplane.deadlines import Clients, deadlines_of
from proxy.dataplane.exchange import Exchange
from proxy.dataplane.gauges import Gauges
from proxy.dataplane.hash_key import own_key
from proxy.dataplane.ids import Ids
from proxy.dataplane.journaling import Journaling
from proxy.dataplane.leg import Leg
from proxy.dataplane.pairing import LineMaker
from proxy.dataplane.pool import Pool
from proxy.dataplane.revision import Revisions
from proxy.dataplane.routes import RouteContext, Routes
from proxy.dataplane.shedding import Shedding
from proxy.dataplane.standstill import Standstill
from proxy.dataplane.takeover import journal_directory, keep_books, open_books
from proxy.errors import StateError
from proxy.journal.writer import JournalWriter
from proxy.state.control_page import ControlPage, ControlState, Part, open_page
from proxy.state.stats_file import UnkeptStats
from proxy.state.stats_page import Outcome, Reject
from proxy.telemetry import monotonic_s, wall_ns
from proxy.wire.forwarded import TrustedProxies
from proxy.wire.path_mask import PathMask

if TYPE_CHECKING:
    from proxy.dataplane.answering import Answering

TICK_S = 0.05
#: How often guards take over how slow the primary is.
LEARN_S = 1.0

logger = logging.getLogger("understudy.worker")


class Worker:
    """One worker process, but for its sockets.

    Attributes:
        instance: unique per start of a worker; `seq` counts within it.
        access_log: None when it is off.
        hash_key: secret of the records' `unit_hash`.
        path_mask: for paths that are recorded or logged.
        clients: the client connections, and how long they may take.
        trusted_proxies: whose word on the client's address is taken.
        cells: the stats page's counters; `cells[i] += 1` is the whole cost of a count.
        revision: of the config, as the control page counts them.
        pseudonym: in `Via`; the same for life, because open connections have told it.
        contexts: of every route, and of the routes of before that exchanges still need.
        shadows: mirrors and replicates under way.
        is_shedding: overloaded: no new ones are made (`limits.mirror_lag`).
        unread: clients that are held back; looked at, because what they do is not read.
        held_bytes: captured bodies in memory, bounded by `limits.memory`.
        standstill: of our loop, ours or the machine's: time that no backend has taken.
    """

    def __init__(
        self,
        config: Config,
        index: int,
        loop: asyncio.AbstractEventLoop,
        revision: int = -1,
    ) -> None:
        """Make a worker that runs `config`, which is of `revision`; -1: of the page's."""
        self.config, self.is_shedding = config, False
        self.instance = f"{config.instance}-w{index}-{os.urandom(4).hex()}"
        self.pseudonym = f"understudy-{config.version}".encode()
        self.ids = Ids()
        state_dir = Path(config.state_dir)
        # First of all: its lock says that no predecessor counts on the page any more.
        self.journal = JournalWriter(
            journal_directory(state_dir, index),
            disk_budget_bytes=config.limits.journal_disk_bytes // config.workers,
            journal=config.journal,
        )
        self.stats, self.lost_by_predecessor = open_books(config, index)
        self.cells = self.stats.cells
        cell = self.stats.layout.index
        self.received_cell = cell("received")
        self._open_cell, self._accepted_cell = cell("connections_open"), cell("connections")
        self._rejected_cells = {reason: cell("rejected", reason) for reason in Reject}
        self._unrouted_cells = {reason: cell("unrouted", reason) for reason in Reject}
        self._take_settings(config)
        self.access_log = open_access_log(config.log, f"worker {index}", self.path_mask)
        self.clients = Clients(deadlines_of(config.limits))
        self.shadows: set[Leg] = set()
        self.unread: set[Answering] = set()
        self._loop, self._state_dir = loop, state_dir
        self._seq, self._generation, self._pid, self.held_bytes = 0, -1, os.getpid(), 0
        self._learn_s, self.standstill = 0.0, Standstill()
        self.shedding = Shedding(self, loop)
        self.journaling = Journaling(self, self.journal, loop)
        self._tick_timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._page: ControlPage | None = None
        self._page_error, self._name, self._index = "", f"worker {index}", index
        self.state: ControlState | None = None
        self.contexts: tuple[RouteContext, ...] = ()
        self.revisions, self.revision = Revisions(self, loop), revision
        self._open_control_page()
        self.pools = {name: Pool(b, loop, self.spawn) for name, b in config.backends.items()}
        self.routes = Routes(self)
        self.contexts = tuple(self.routes.contexts())
        self.gauges = Gauges(self, TICK_S)
        self.revision = revision if revision >= 0 else self._page_revision()
        self.stats.runs(self.revision)

    def start(self) -> None:
        """Begin to tick."""
        self.standstill.due_s = monotonic_s() + TICK_S
        self._tick_timer = self._loop.call_later(TICK_S, self._tick)

    async def stop(self, timeout_s: float) -> None:
        """End: cancel every leg that is left, flush the journal.

        Shadows have `timeout_s` seconds; what they leave of it, a disk that is slow may take.
        """
        deadline_s = monotonic_s() + timeout_s
        # An Event would cost every leg a check for what happens once per process.
        while self.shadows and monotonic_s() < deadline_s:  # noqa: ASYNC110
            await asyncio.sleep(TICK_S / 5)
        for leg in [leg for pool in self.all_pools() for leg in pool.legs()]:
            leg.fail(Outcome.CANCELLED, "the proxy is shutting down")
        if self._tick_timer is not None:
            self._tick_timer.cancel()
        self.shedding.stop()
        self.clients.give_up()  # those whose request was not even whole
        await asyncio.sleep(0)  # what the cancelled users are told goes out at the end of a turn
        is_booked = await self.journaling.stop(deadline_s - monotonic_s())
        if self.access_log is not None:
            self.access_log.flush()
        self.gauges.write_last()
        if is_booked:  # else the successor settles them
            self.stats.close_books()
        for pool in self.all_pools():
            pool.close()

    def run(self, config: Config, pools: dict[str, Pool], revision: int) -> None:
        """Use another config for the requests that come from now on.

        Args:
            config: whole, and good; the page has a cell for each of its counters.
            pools: one for each of its backends.
            revision: of the config.
        """
        self.config, self.pools, self.cells = config, pools, self.stats.cells
        self._take_settings(config)
        self.clients.deadlines = deadlines_of(config.limits)
        self.journaling.follow(config)
        self.shedding.follow(config)
        access_log = followed(self.access_log, config.log, self._name, self.path_mask)
        self.gauges.write_log()
        self.access_log = access_log
        self.routes = Routes(self, self.routes)
        self.revision = revision
        self.stats.runs(revision)

    def _take_settings(self, config: Config) -> None:
        """Take over what is looked up here for each request or each record."""
        self.hash_key = config.record.hash_key or own_key(Path(config.state_dir))
        self.path_mask = PathMask(config.record.redact.query)
        self.trusted_proxies = TrustedProxies(config.trusted_proxies)
        self.memory_limit = config.limits.memory_bytes
        self.mirror_response_limit = config.limits.mirror_response_bytes

    def recount(self) -> None:
        """Take note that routes or pools have come, or that nobody needs old ones any more."""
        self.contexts = (*self.routes.contexts(), *self.revisions.contexts)
        self.gauges.follow()

    def all_pools(self) -> list[Pool]:
        """Return every pool, those included that only old exchanges use."""
        return [*self.pools.values(), *self.revisions.pools]

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` as a task that is kept until it ends and whose failure is logged."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_over)

    def refresh(self) -> None:
        """Take over a change of the control page, if there is one; called before each decision."""
        page = self._page
        if page is not None and page.generation() != self._generation:
            self._read_control_page()

    def is_killed(self, route: str, candidate: str, part: Part) -> bool:
        """Tell whether `part` is killed; without a state everything is. No name: the primary."""
        return self.state is None or bool(self.state.killed_parts(route, candidate) & part)

    def stop_candidates(self) -> None:
        """Serve from the primary only until the control page changes.

        A kill that the page cannot take (the disk hangs), by the launcher's signal.
        """
        if self.state is not None:  # the launcher tells it again while it cannot write the page
            logger.warning(
                "killed by signal: only the primary serves until the control page changes"
            )
        self.state = None
        self._apply_state()

    def replan(self, route: str) -> None:
        """Plan a route anew: its guards know more than the control page."""
        for context in self.contexts:
            if context.route.name == route:
                context.replan(self.state)

    # Counting.

    def connection_opened(self) -> None:
        """Count a client connection in."""
        self.cells[self._accepted_cell] += 1
        self.cells[self._open_cell] += 1

    def connection_closed(self) -> None:
        """Count a client connection out."""
        self.cells[self._open_cell] -= 1

    def count_rejected(self, reason: Reject, *, is_routed: bool) -> None:
        """Count a request that the proxy answered itself; one that a route took is `served`, too."""
        self.cells[self._rejected_cells[reason]] += 1
        if not is_routed:
            self.cells[self._unrouted_cells[reason]] += 1

    # The journal.

    def journal_pair(self, exchange: Exchange, maker: LineMaker, counters: CandidateCells) -> None:
        """Put one pair on its way to the journal."""
        self._seq += 1
        self.journaling.add(maker.line(exchange, self._seq), counters)

    def want_books(self) -> None:
        """Count on the stats page from now on, if it could not be used until now and can be.

        While a flush is under way nothing changes: before a predecessor's journal is taken over,
        nothing of ours may be in it that the books do not know.
        """
        if isinstance(self.stats, UnkeptStats) and not self.journaling.is_busy:
            self._keep_books(self.stats)

    # The control page.

    def _open_control_page(self) -> None:
        try:
            self._page = open_page(self._state_dir)
        except StateError as exc:
            self._page = None
            if str(exc) != self._page_error:  # the tick tries again twenty times a second
                logger.error("control page: %s; serving from the primary only", exc)  # noqa: TRY400 - no traceback for a missing file
            self._page_error = str(exc)
        else:
            self._page_error = ""
            self._read_control_page()

    def _page_revision(self) -> int:
        return 0 if self.state is None else self.state.config_revision

    def _read_control_page(self) -> None:
        """Take over the page's state; a page that cannot be read means primary only."""
        assert self._page is not None
        self._generation = self._page.generation()
        try:
            self.state = self._page.read()
        except StateError as exc:
            self.state = None
            logger.error("control page: %s; serving from the primary only", exc)  # noqa: TRY400 - no traceback for a corrupt page
        self._apply_state()

    def _apply_state(self) -> None:
        for context in self.contexts:
            context.replan(self.state)
        self.revisions.notice()
        for leg in tuple(self.shadows):
            exchange = leg.exchange
            candidate = leg.role if leg.role in exchange.context.roles.values() else ""
            if self.is_killed(exchange.context.route.name, candidate, Part.MIRROR):
                leg.fail(Outcome.CANCELLED, "killed")

    # The tick.

    def _tick(self) -> None:
        now_s = monotonic_s()
        self._tick_timer = self._loop.call_later(TICK_S, self._tick)
        self.shedding.look(now_s, self.standstill.due_s)
        if not self.standstill.tick(now_s, TICK_S):
            for pool in self.pools.values():
                pool.expire(now_s)
                pool.look(now_s)
            self.revisions.look(now_s)
        self._learn(now_s)
        for client in tuple(self.unread):
            half_closed.look_at_unread(client)
        self.stats.beat(pid=self._pid, now_ms=wall_ns() // 1_000_000)
        if self.access_log is not None:
            self.access_log.flush()
        self.gauges.write(now_s)
        self.journaling.tick()
        self.gauges.write_in_flight()
        self.want_books()
        self._look_at_page()

    def _look_at_page(self) -> None:
        """Read the control page when it has changed; find it again when it is not whole."""
        if self._page is None or not self._page.is_whole():
            if self._page is not None:
                self.state = None
                self._apply_state()
            self._open_control_page()
            if self._page is not None:
                self._apply_state()
        elif self._page.generation() != self._generation:
            self._read_control_page()

    def _keep_books(self, unkept: UnkeptStats) -> None:
        """Count on the page again, if it can be used by now."""
        try:
            self.stats = keep_books(self.config, self._index, unkept)
        except StateError:
            return  # told at the start
        self.cells = self.stats.cells
        logger.info("the stats page can be used again; what was counted meanwhile is on it")

    def _learn(self, now_s: float) -> None:
        """Let guards take over how slow the primaries are, each `LEARN_S`."""
        if now_s >= self._learn_s:
            self._learn_s = now_s + LEARN_S
            for context in self.contexts:
                context.learn()

    def _task_over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.error("a task of the data plane failed", exc_info=task.exception())
