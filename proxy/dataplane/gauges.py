"""What the worker's tick writes to the stats page, from what objects count for themselves.

None of it costs a request anything: pools, client connections and the access log keep plain numbers,
and twenty times a second they are copied to where control reads them. A counter on the page outlives
its worker, so what is written is the growth since the last look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.dataplane.counters import Histogram

if TYPE_CHECKING:
    from proxy.dataplane.pool import Pool
    from proxy.dataplane.worker import Worker


class Gauges:
    """The cells of one worker that are written by its tick.

    Args:
        worker: with its pools and its stats page open.
        tick_s: how long after one `write` the next is due.
    """

    def __init__(self, worker: Worker, tick_s: float) -> None:
        self._worker = worker
        self._cells = worker.cells
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
        self._endpoints = [
            (pool, endpoint, layout.index("endpoint_left_out", name, str(endpoint)))
            for name, pool in worker.pools.items()
            for endpoint in pool.backend.endpoints
        ]
        self._journal = [
            layout.index(f"journal_{what}") for what in ("torn_bytes", "syncs", "sync_errors")
        ]
        self._logged = layout.index("access_log_lines")
        self._unlogged = layout.index("access_log_dropped")
        self._backends = [
            (pool, [layout.index(f"backend_{what}", name) for what in _OF_BACKENDS])
            for name, pool in worker.pools.items()
        ]

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
        self.write_histograms()
        self._cells[self._captured] = worker.held_bytes
        self._cells[self._buffered] = worker.journal.buffered_bytes
        for cell, total in zip(self._journal, worker.journal.totals(), strict=True):
            self._count(cell, total)
        expired, dropped, refused = worker.clients.ended()
        self._count(self._expired, expired)
        self._count(self._dropped, dropped)
        self._count(self._refused, refused)
        for pool, cells in self._backends:
            self._write_pool(pool, cells)
        for context in worker.routes.contexts():
            for gate, candidate in zip(context.gates, context.cells.candidates, strict=True):
                self._cells[candidate.breaker] = gate.breaker.state.value
        for pool, endpoint, cell in self._endpoints:
            self._cells[cell] = not pool.is_serving(endpoint)
        if worker.access_log is not None:
            log = worker.access_log.statistics()
            self._count(self._logged, log.written)
            self._count(self._unlogged, log.dropped)

    def write_histograms(self) -> None:
        """Write the durations that were observed since the last time."""
        self._lag.write(self._cells)
        for context in self._worker.routes.contexts():
            for histogram in context.cells.histograms():
                histogram.write(self._cells)

    def write_last(self) -> None:
        """Write everything when no tick will come any more."""
        self._due_s = 0.0
        self.write(0.0)

    def _write_pool(self, pool: Pool, cells: list[int]) -> None:
        now = pool.statistics()
        in_flight, idle, connecting, members, serving, *counters = cells
        self._cells[in_flight] = now.in_flight
        self._cells[idle] = now.idle
        self._cells[connecting] = now.connecting
        self._cells[members] = now.members
        self._cells[serving] = now.serving
        totals = now.opened, now.reused, now.failed, now.retried, now.ejections
        for cell, total in zip(counters, totals, strict=True):
            self._count(cell, total)

    def _count(self, cell: int, total: int) -> None:
        grown = total - self._told.get(cell, 0)
        if grown:
            self._told[cell] = total
            self._cells[cell] += grown


#: Families of backends in the order of `_write_pool`, without the prefix `backend_`.
_OF_BACKENDS = (
    "in_flight", "connections_idle", "connections_opening", "members", "members_serving",
    "connections_opened", "connections_reused", "connect_failures", "retries", "ejections",
)  # fmt: skip
