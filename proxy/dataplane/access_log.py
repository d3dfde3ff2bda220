"""The access log: one line for a sampled or slow request, written so that it can never stall a worker.

A line is made when its exchange has ended and waits in a bounded buffer. The worker's tick writes what
waits, in pieces that a pipe takes at once or not at all (PIPE_BUF, pipe(7)), and only while poll says
that there is room: whoever reads the log slowly costs lines, which are counted, and no user's time.
(A blocking write is nginx's default, and its workers stop with a full pipe.)

Where the log is off there is no `AccessLog`, and a request pays for one look at an attribute. A line
holds no query, header or body.
"""

from __future__ import annotations

import os
import random
import select
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from proxy.config.resolved import FULL_BP, Log
from proxy.dataplane.refusals import failure
from proxy.log import MAX_LINE_BYTES, line
from proxy.state.stats_page import Outcome
from proxy.telemetry import monotonic_s, wall_ns

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange
    from proxy.wire.path_mask import PathMask
    from proxy.wire.request_head import Refusal, RequestHead

#: What may wait to be written: at 400 bytes a line, 50 ms of 50,000 requests a second.
MAX_BUFFERED_BYTES: Final = 1024 * 1024
_STDERR: Final = 2
_UNAVAILABLE: Final = 503


@dataclass(frozen=True, slots=True)
class AccessLogStatistics:
    """A snapshot: lines written and given up since the start, and bytes that wait."""

    written: int
    dropped: int
    buffered_bytes: int


class AccessLog:
    """The access log of one worker."""

    __slots__ = (
        "_buffered_bytes", "_chance", "_descriptor", "_dropped", "_lines", "_mask", "_poll", "_process",
        "_refused", "_share", "_slow_s", "_written",
    )  # fmt: skip

    def __init__(self, log: Log, process: str, descriptor: int, mask: PathMask) -> None:
        self._process = process
        self._share = 0.0
        self._slow_s = float("inf")
        self.follow(log, mask)
        self._chance = random.Random(os.urandom(8)).random  # noqa: S311 - a sample is no secret
        self._descriptor = descriptor
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)
        self._lines: deque[bytes] = deque()
        self._buffered_bytes = self._written = self._dropped = 0
        #: Why an exchange that is ending was refused half-way.
        self._refused: dict[Exchange, Refusal] = {}

    def follow(self, log: Log, mask: PathMask) -> None:
        """Choose lines as `log` says from now on, and hide in them what `mask` does."""
        self._mask = mask
        self._share = log.access_bp / FULL_BP
        self._slow_s = float("inf") if log.slow_s is None else log.slow_s

    def statistics(self) -> AccessLogStatistics:
        """Return a snapshot."""
        return AccessLogStatistics(self._written, self._dropped, self._buffered_bytes)

    def exchange_over(self, exchange: Exchange) -> None:
        """Log an exchange that has ended, if it is sampled or was slow."""
        refusal = self._refused.pop(exchange, None)
        serving = exchange.serving
        end_s = monotonic_s() if serving is None else serving.end_s
        duration_s = end_s - exchange.ready_s
        if duration_s < self._slow_s and not self._is_sampled():
            return
        fields = self._request(exchange.peer_host, exchange.head)
        fields |= {
            "status": _status(exchange, refusal),
            "outcome": _outcome(exchange),
            "reason": None if refusal is None else str(refusal.reason),
            "route": exchange.context.route.name,
            "served_by": None if serving is None else serving.role,
            "rescued": exchange.is_rescued,
            "duration_ms": round(duration_s * 1000, 3),
            "ttfb_ms": None,
            "request_bytes": exchange.received_bytes,
            "response_bytes": 0,
            "request_id": exchange.request_id.decode(),
            "trace_id": exchange.trace_id.decode(),
        }
        if serving is not None and serving.head is not None:
            fields["ttfb_ms"] = round((serving.first_s - exchange.ready_s) * 1000, 3)
            fields["response_bytes"] = serving.response_bytes
        self._add(fields, exchange.wall_us // 1000 + int(duration_s * 1000))

    def refused(
        self, refusal: Refusal, peer: bytes, head: RequestHead | None, exchange: Exchange | None
    ) -> None:
        """Log a request that the proxy refused, if it is sampled.

        Args:
            refusal: why, and the status.
            peer: the client's address.
            head: None where it could not be read.
            exchange: given up with it; it is logged when it has ended, with this reason.
        """
        if exchange is not None:
            self._refused[exchange] = refusal
        elif self._is_sampled():
            fields = self._request(peer, head)
            fields |= {
                "status": refusal.status,
                "outcome": "rejected",
                "reason": str(refusal.reason),
            }
            self._add(fields, wall_ns() // 1_000_000)

    def flush(self) -> None:
        """Write what waits, as far as it can be written without waiting."""
        while self._lines and self._has_room():
            lines, size = [self._lines[0]], len(self._lines[0])
            for number in range(1, len(self._lines)):
                size += len(self._lines[number])
                if size > MAX_LINE_BYTES:
                    break
                lines.append(self._lines[number])
            if not self._write(lines):
                return

    def _request(self, peer: bytes, head: RequestHead | None) -> dict[str, Any]:
        return {
            "client": peer.decode("latin-1"),
            "method": None if head is None else head.method.decode("latin-1"),
            "path": None if head is None else self._mask.apply(head.path).decode("latin-1"),
        }

    def _is_sampled(self) -> bool:
        return self._share >= 1 or (self._share > 0 and self._chance() < self._share)

    def _add(self, fields: dict[str, Any], ts_ms: int) -> None:
        made = line(self._process, "info", "request", fields, ts_ms)
        if self._buffered_bytes + len(made) > MAX_BUFFERED_BYTES:
            self._dropped += 1
            return
        self._lines.append(made)
        self._buffered_bytes += len(made)

    def _has_room(self) -> bool:
        return any(events & select.POLLOUT for _, events in self._poll.poll(0))

    def _write(self, lines: list[bytes]) -> bool:
        """Write some lines in one call; False when there is no room for them after all."""
        data = b"".join(lines)
        try:
            taken = os.write(self._descriptor, data)
        except BlockingIOError:
            return False
        except OSError:  # nobody reads any more, or the disk is full
            taken = -1
        for _ in lines:
            self._lines.popleft()
        self._buffered_bytes -= len(data)
        if taken < 0:
            self._dropped += len(lines)
        elif taken == len(data):
            self._written += len(lines)
        else:  # no pipe: the rest comes first the next time
            self._lines.appendleft(data[taken:])
            self._buffered_bytes += len(data) - taken
            self._written += len(lines) - 1
        return taken == len(data) or taken < 0


def open_access_log(log: Log, process: str, mask: PathMask) -> AccessLog | None:
    """Return the log that the config asks for, on stderr; None when it is off."""
    if log.access_bp == 0 and log.slow_s is None:
        return None
    return AccessLog(log, process, _STDERR, mask)


def followed(current: AccessLog | None, log: Log, process: str, mask: PathMask) -> AccessLog | None:
    """Return the log that another config asks for: the same one where there is one before and after."""
    wanted = open_access_log(log, process, mask)
    if current is None:
        return wanted
    if wanted is None:
        current.flush()
        return None
    current.follow(log, mask)
    return current


def _status(exchange: Exchange, refusal: Refusal | None) -> int | None:
    """Return the status that the client was sent; None when it had gone before."""
    serving = exchange.serving
    if serving is not None and serving.has_answered and serving.head is not None:
        return serving.head.status
    if refusal is not None:
        return refusal.status
    if exchange.is_aborted:
        return None
    return _UNAVAILABLE if serving is None else failure(serving)[0]


def _outcome(exchange: Exchange) -> str:
    """Return how the exchange ended, as `understudy_served_total` counts it."""
    if exchange.serving is not None:
        return str(exchange.serving.status)
    return str(Outcome.CANCELLED if exchange.is_aborted else Outcome.SHED)
