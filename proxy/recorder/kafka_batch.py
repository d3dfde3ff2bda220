"""Record batches as Kafka stores them (message format 2, KIP-98), made by ourselves.

aiokafka's builder takes 8 us to append a message with headers and compresses at zstd level 3, which
costs twice as much as level 1 and saves nothing on pairs. Here a message is two formattings of
bytes, and its headers one: what is in them has a fixed length, but for the instance's name. The
client takes such a batch for its own (`aiokafka.producer.message_accumulator.BatchBuilder`): it
asks for the five methods below the line and nothing else.

Sources: https://kafka.apache.org/documentation/#recordbatch and #record; CRC-32C over everything
behind itself.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import zstandard
from aiokafka import codec
from aiokafka.record.util import calc_crc32c

from proxy.recorder.kafka_messages import headers_block, varint
from proxy.recorder.sink import Message

#: Level 1 costs half the CPU of Kafka's default, 3, and is no larger on pairs.
_ZSTD_LEVEL: Final = 1

#: Base offset, length of what follows, leader epoch, magic, CRC.
_OUTER: Final = struct.Struct(">qiibI")
#: Attributes, last offset delta, first and greatest timestamp, producer id and epoch, first
#: sequence number, number of records.
_INNER: Final = struct.Struct(">hiqqqhii")
_MAGIC: Final = 2
_LENGTH_FROM: Final = 12
#: Length, attributes, two deltas, and three lengths: more than they ever take.
_MESSAGE_OVERHEAD_BYTES: Final = 5 + 1 + 10 + 5 + 3 * 5

Compress = Callable[[bytes], bytes]


class Codec(NamedTuple):
    """A compression: its number in a batch's attributes, and how it is done."""

    number: int
    compress: Compress


def open_codec(name: str | None) -> Codec:
    """Return the codec that Kafka calls `name`; None means none. Its context is used for ever.

    Raises:
        KeyError: there is none of that name.
    """
    if name == "zstd":
        return Codec(4, zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress)
    return _CODECS[name]


_CODECS: Final[Mapping[str | None, Codec]] = {
    None: Codec(0, bytes),
    "gzip": Codec(1, codec.gzip_encode),
    "snappy": Codec(2, codec.snappy_encode),
    "lz4": Codec(3, codec.lz4_encode),
}


class RecordBatch:
    """Pairs of one partition, for one request.

    Attributes:
        pairs: what is in it, in order.
    """

    __slots__ = (
        "_bytes", "_closed", "_codec", "_first_ms", "_headers", "_last_ms", "_limit_bytes", "_pieces",
        "_producer", "_written", "pairs",
    )  # fmt: skip

    def __init__(
        self, limit_bytes: int, codec: Codec, headers: Callable[[Any], bytes] = headers_block
    ) -> None:
        """Begin a batch of about `limit_bytes`, uncompressed; `headers` ends each message."""
        self.pairs: list[Message] = []
        self._headers = headers
        self._limit_bytes = limit_bytes
        self._codec = codec
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._first_ms = self._last_ms = 0
        self._producer = (-1, -1, -1)
        self._written: bytes | None = None
        self._closed = False

    def append(self, pair: Message, key: bytes) -> bool:
        """Add a pair; return whether there was room. An empty batch has room for any.

        The value is copied once, when all is put together: a copy more costs 1 us.
        """
        headers = self._headers(pair)
        pairs, value, ts_ms = self.pairs, pair.value, pair.ts_ms
        size = len(value) + len(key) + len(headers) + _MESSAGE_OVERHEAD_BYTES
        if not pairs:
            self._first_ms = self._last_ms = ts_ms
        elif self._bytes + size > self._limit_bytes:
            return False
        elif ts_ms > self._last_ms:
            self._last_ms = ts_ms
        head = b"\0%b%b%b%b%b" % (
            varint(ts_ms - self._first_ms),
            varint(len(pairs)),
            varint(len(key)),
            key,
            varint(len(value)),
        )
        length = varint(len(head) + len(value) + len(headers))
        self._pieces += (length, head, value, headers)
        self._bytes += size
        pairs.append(pair)
        return True

    def compress(self) -> None:
        """Close the batch and compress what is in it."""
        if not self._closed:
            self._closed = True
            self._pieces = [self._codec.compress(b"".join(self._pieces))]

    # What the client asks for.

    def record_count(self) -> int:
        """Return the number of messages."""
        return len(self.pairs)

    def closed(self) -> bool:
        """Return whether it takes no more; the client never adds to ours."""
        return True

    def close(self) -> None:
        """Nothing: it is closed for the client."""

    def _set_producer_state(self, producer_id: int, epoch: int, sequence: int) -> None:
        """Take the client's id and the number of the first message in its partition."""
        self._producer = (producer_id, epoch, sequence)

    def _build(self) -> bytes:
        """Return the batch as it goes over the wire; the same however often it is sent."""
        if self._written is None:
            self.compress()
            count = len(self.pairs)
            inner = _INNER.pack(
                self._codec.number, count - 1, self._first_ms, self._last_ms, *self._producer, count
            )
            body = inner + self._pieces[0]
            outer = _OUTER.pack(
                0, _OUTER.size - _LENGTH_FROM + len(body), -1, _MAGIC, calc_crc32c(body)
            )
            self._written = outer + body
            self._pieces.clear()
        return self._written
