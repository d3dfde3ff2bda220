"""What the worker's tick writes to the stats page, from what objects count for themselves.

None of it costs a request anything: pools, client connections and the access log keep plain numbers,
and twenty times a second they are copied to where control reads them. A counter on the page outlives
its worker, so what is written is the growth since the last look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.dataplane.counters import Histogram

if TYPE_CHECKING:
    from proxy.config.resolved import Endpoint
    from proxy.dataplane.access_log import AccessLog
    from proxy.dataplane.pool import Pool
    from proxy.dataplane.worker import Worker


class _PoolCells:
    """Where the numbers of a pool go, and what of its counters has been told."""

    def __init__(self, pool: Pool, worker: Worker) -> None:
        name, index = pool.backend.name, worker.stats.layout.index
        self.pool = pool
        self.gauges = [index(f"backend_{what}", name) for what in _GAUGES]
        self.counters = [index(f"backend_{what}", name) for what in _COUNTERS]
        self.told = [0] * len(_COUNTERS)


class Gauges:
    """The cells of one worker that are written by its tick.

    Args:
        worker: with its routes, its pools and its stats page open.
        tick_s: how long after one `write` the next is due.
    """

    def __init__(self, worker: Worker, tick_s: float) -> None:
        self._worker = worker
        self._tick_s = tick_s
        self._due_s = 0.0
        self._told: dict[int, int] = {}
        layout = worker.stats.layout
        self._lag = Histogram(layout, "loop_lag")
        self._captured, self._buffered, self._expired, self._dropped, self._refused = (
            layout.index(name)
            for name in (
                "captured_bytes", "journal_buffered_bytes", "connections_expired",
                "connections_dropped", "connections_refused",
            )
        )  # fmt: skip
        self._journal = [
            layout.index(f"journal_{what}") for what in ("torn_bytes", "syncs", "sync_errors")
        ]
        self._logged = layout.index("access_log_lines")
        self._unlogged = layout.index("access_log_dropped")
        self._log: AccessLog | None = None
        self._log_told = (0, 0)
        self._pools: list[_PoolCells] = []
        self._endpoints: list[tuple[Pool, Endpoint, int]] = []
        #: Cells that say how things are now: nothing, once there is no such thing.
        self._current: set[int] = set()
        self.follow()

    def follow(self) -> None:
        """Tell of the routes and pools that the worker has now; those that are gone hold nothing."""
        worker, layout = self._worker, self._worker.stats.layout
        known = {id(each.pool): each for each in self._pools}
        self._pools = [
            known.get(id(pool)) or _PoolCells(pool, worker) for pool in worker.all_pools()
        ]
        self._endpoints = [
            (pool, endpoint, layout.index("endpoint_left_out", name, str(endpoint)))
            for name, pool in worker.pools.items()
            for endpoint in pool.backend.endpoints
        ]
        current = {cell for each in self._pools for cell in each.gauges}
        current |= {cell for _, _, cell in self._endpoints}
        for context in worker.contexts:
            current.add(context.cells.in_flight)
            for candidate in context.cells.candidates:
                current.update((candidate.breaker, candidate.guard_latency))
        for cell in self._current - current:
            worker.cells[cell] = 0
        self._current = current

    def write(self, now_s: float) -> None:
        """Write everything; called by each tick.

        Args:
            now_s: monotonic seconds. How late that is for this tick is how long the event loop made
                others wait, too.
        """
        if self._due_s:
            self._lag.observe(max(0.0, now_s - self._due_s))
        self._due_s = now_s + self._tick_s
        worker = self._worker
        cells = worker.cells
        self.write_observed()
        cells[self._captured] = worker.held_bytes
        cells[self._buffered] = worker.journal.buffered_bytes
        for cell, total in zip(self._journal, worker.journal.totals(), strict=True):
            self._count(cell, total)
        expired, dropped, refused = worker.clients.ended()
        self._count(self._expired, expired)
        self._count(self._dropped, dropped)
        self._count(self._refused, refused)
        self._write_pools()
        for context in worker.routes.contexts():
            for gate, candidate in zip(context.gates, context.cells.candidates, strict=True):
                cells[candidate.breaker] = gate.breaker.state.value
        for pool, endpoint, cell in self._endpoints:
            cells[cell] = not pool.is_serving(endpoint)
        self.write_log()

    def write_in_flight(self) -> None:
        """Write how many requests of each route are under way."""
        cells = self._worker.cells
        for context in self._worker.contexts:
            counters = context.cells
            served = sum(cells[cell] for cell in counters.served.values())
            cells[counters.in_flight] = max(0, cells[counters.routed] - served)

    def write_observed(self) -> None:
        """Write the durations, and what overload left out, since the last time."""
        self._lag.write(self._worker.cells)
        for context in self._worker.contexts:
            context.cells.write(self._worker.cells)

    def write_log(self) -> None:
        """Write what the access log has counted since the last time."""
        log = self._worker.access_log
        if log is None:
            return
        if log is not self._log:
            self._log, self._log_told = log, (0, 0)
        now = log.statistics()
        self._worker.cells[self._logged] += now.written - self._log_told[0]
        self._worker.cells[self._unlogged] += now.dropped - self._log_told[1]
        self._log_told = now.written, now.dropped

    def write_last(self) -> None:
        """Write everything when no tick will come any more."""
        self._due_s = 0.0
        self.write(0.0)
        self.write_in_flight()

    def _write_pools(self) -> None:
        cells = self._worker.cells
        sums: dict[int, int] = {}  # a backend that was changed has two pools for a while
        for each in self._pools:
            now = each.pool.statistics()
            places = (0, 0) if each.pool.is_retired else (now.members, now.serving)
            levels = now.in_flight, now.idle, now.connecting, *places
            for cell, level in zip(each.gauges, levels, strict=True):
                sums[cell] = sums.get(cell, 0) + level
            totals = [now.opened, now.reused, now.failed, now.retried, now.ejections]
            for cell, total, told in zip(each.counters, totals, each.told, strict=True):
                if total != told:
                    cells[cell] += total - told
            each.told = totals
        for cell, level in sums.items():
            cells[cell] = level

    def _count(self, cell: int, total: int) -> None:
        grown = total - self._told.get(cell, 0)
        if grown:
            self._told[cell] = total
            self._worker.cells[cell] += grown


#: Families of backends in the order of `_write_pools`, without the prefix `backend_`.
_GAUGES = ("in_flight", "connections_idle", "connections_opening", "members", "members_serving")
_COUNTERS = (
    "connections_opened", "connections_reused", "connect_failures", "retries", "ejections",
)  # fmt: skip
