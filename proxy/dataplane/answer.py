"""What has come of a leg's answer: counted, timed, and its start kept for the record.

Streams meet this at each event, and of a thousand of them none is in a cache of the processor when
its next event comes: there a line of memory costs more than a call. So what an event touches stands
side by side (mypyc lays attributes out in the order of `__init__`, a base class first), and what
need not be touched each time is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from proxy.telemetry import monotonic_s
from proxy.wire.pieces import add_piece
from proxy.wire.stream_times import StreamTimes

if TYPE_CHECKING:
    from proxy.dataplane.exchange import Exchange
    from proxy.wire.response_head import ResponseHead

#: What is kept of the end of an event stream over the record limit: an OpenAI stream says there
#: why it ended and what it counted, in some 500 bytes.
TAIL_BYTES: Final = 4096
#: How much memory a stream asks its exchange for at a time.
GRANT_BYTES: Final = 1024


class Answer:
    """What has come of one answer.

    Attributes:
        head: None until it is there.
        times: of an answer that comes in pieces; None before the first that is not the whole.
        kept: the body, up to the record limit and while there is memory.
        tail: the last bytes of an event stream that did not fit, none of which are in `kept`.
    """

    __slots__ = (
        "_granted_bytes", "_room", "chunks", "exchange", "head", "kept", "kept_bytes",
        "response_bytes", "tail", "times",
    )  # fmt: skip

    def __init__(self, exchange: Exchange) -> None:
        self.times: StreamTimes | None = None
        self.kept: list[bytes] = []
        self.response_bytes = self.kept_bytes = self.chunks = 0
        self._room = exchange.keep_limit
        self._granted_bytes = 0
        self.exchange = exchange
        self.head: ResponseHead | None = None
        self.tail = b""

    def note_arrival(self, pieces: list[bytes]) -> None:
        """Note when a read brought a part of a body that comes in several reads."""
        now_s = monotonic_s()
        times = self.times
        if times is None:
            assert self.head is not None
            self.times = times = StreamTimes(is_event_stream=self.head.is_event_stream)
        times.piece(now_s)
        if times.is_waiting:
            times.look_for_content(pieces, now_s)

    def response_body(self, data: bytes) -> None:
        """Keep the answer's start, up to the record limit, and count the rest."""
        size = len(data)
        self.response_bytes += size
        self.chunks += 1
        room = self._room
        if room > 0:
            if size > room:
                self._keep_tail(data[room:])
                data, size = data[:room], room
            if size > self._granted_bytes and not self._grant(size):
                self._room = 0  # what is kept is the start, without a hole
                return
            self._granted_bytes -= size
            self._room = room - size
            add_piece(self.kept, data)
            self.kept_bytes += size
        elif self.exchange.keep_limit:
            self._keep_tail(data)

    def _grant(self, size: int) -> bool:
        """Account for `size` bytes, of a stream for some of the next ones too; False: no memory."""
        wanted = size if self.times is None else max(size, GRANT_BYTES)
        if not self.exchange.hold(wanted - self._granted_bytes):
            return False
        self._granted_bytes = wanted
        return True

    def _keep_tail(self, data: bytes) -> None:
        head = self.head
        if (
            head is not None
            and head.is_event_stream
            and (self.tail or self.exchange.hold(TAIL_BYTES))
        ):
            self.tail = (self.tail + data)[-TAIL_BYTES:]
