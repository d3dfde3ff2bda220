"""The half of a client connection that writes: answers, backpressure, and how it ends.

What is read, and what becomes of it, is `proxy.dataplane.client`'s to know.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy.dataplane.writing import write_together
from proxy.wire.response_head import plain_answer

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange
    from proxy.dataplane.worker import Worker


class Answering:
    """What a client connection needs to answer and to end.

    Attributes:
        keep_alive: another request may follow on this connection.
    """

    __slots__ = (
        "_has_eof", "_is_closing", "_is_read_paused", "_rest", "_serving", "_write_paused",
        "keep_alive", "transport", "worker",
    )  # fmt: skip

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # connection_made
        self._serving: Exchange | None = None
        #: Bytes that wait for the exchange under way to end.
        self._rest = b""
        self._is_read_paused = self._write_paused = False
        self._is_closing = self._has_eof = False
        self.keep_alive = True

    # What exchanges call.

    def connection_line(self) -> bytes:
        """Return the Connection line that the next answer must carry, or nothing."""
        serving = self._serving
        if serving is not None and not (serving.head.keep_alive and serving.is_whole):
            self.keep_alive = False
        if not self.keep_alive or (self._has_eof and not self._rest):
            return b"connection: close\r\n"
        if serving is not None and serving.head.is_http10:
            return b"connection: keep-alive\r\n"
        return b""

    def write(self, pieces: list[bytes]) -> None:
        """Write to the client; a client that cannot keep up holds the backend back."""
        if not self._is_closing:
            write_together(self.transport, pieces)
            if self._write_paused and self._serving is not None:
                self._serving.pause_answer()

    def pause_reading(self) -> None:
        """Stop reading the client."""
        if not self._is_read_paused and not self._is_closing:
            self._is_read_paused = True
            self.worker.unread.add(self)
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read the client again, unless pipelined requests are waiting."""
        if self._is_read_paused and not self._rest and not self._is_closing:
            self._is_read_paused = False
            self.worker.unread.discard(self)
            self.transport.resume_reading()

    def is_waiting(self, exchange: Exchange) -> bool:
        """Tell whether the client waits for this answer, or for the rest of it."""
        return exchange is self._serving and not self._is_closing

    def is_serving(self) -> bool:
        """Tell whether an exchange is under way.

        For where a call may have changed that: mypy, and so the compiled code, goes on trusting an
        `_serving is None` of before the call.
        """
        return self._serving is not None

    def exchange_under_way(self) -> Exchange | None:
        """Return the exchange whose answer the client waits for, if there is one."""
        return self._serving

    def unread_exchange(self) -> Exchange | None:
        """Return the exchange under way of a client that nobody reads, if there is one."""
        return self._serving if self._is_read_paused and not self._is_closing else None

    # Endings.

    def drop(self) -> None:
        """End at once, without a word."""
        self.transport.abort()

    def give_up(self) -> None:
        """Abort the request under way, if there is one, and close once what was written is sent."""
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.abort()
        self._close()

    def _answer(self, status: int, detail: str, line: bytes, *, has_body: bool = True) -> None:
        if not self._is_closing:
            line += self.connection_line()
            if self._serving is not None and self._serving.head.method == b"HEAD":
                has_body = False
            self.transport.write(plain_answer(status, detail, line, has_body=has_body))

    def _close(self, *, lingers: bool = False) -> None:
        """Close; `lingers` where the client may still be sending.

        Closing a socket with unread data resets the connection, and the reset may overtake the
        answer. So our side is shut and the rest read and thrown away (RFC 9112 section 9.6), until
        the client closes its side or `Deadlines.linger_s` has passed.
        """
        if self._is_closing:
            return
        self._rest = b""
        if lingers and not self._has_eof and self.transport.can_write_eof():
            self.transport.write_eof()
            self.resume_reading()
        else:
            self.transport.close()
        self._is_closing = True

    def _close_abruptly(self) -> None:
        """Let the client see that the answer is not whole (RFC 9112 section 8)."""
        self._serving = None
        if not self._is_closing:
            self._is_closing = True
            self.transport.abort()
