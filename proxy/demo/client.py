"""A small HTTP/1.1 client over one kept connection, for traffic that must not cost the demo its CPU.

httpx takes about a millisecond per request, which would be most of what the demo measures. This one
sends prepared bytes and parses the answer with httptools; it knows nothing else.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final

import httptools

TIMEOUT_S: Final = 15.0
_READ_BYTES: Final = 64 * 1024


class NoAnswerError(Exception):
    """The connection failed or the answer did not come in time; the text says which."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    body: bytes


class _Sink:
    """httptools' callbacks for one answer."""

    def __init__(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.chunks: list[bytes] = []
        self.is_complete = False
        self.is_kept = False

    def on_body(self, data: bytes) -> None:
        self.chunks.append(data)

    def on_message_complete(self) -> None:
        self.is_complete = True
        # Asked for here, because the parser forgets it with the message.
        self.is_kept = self.parser.should_keep_alive()


class Connection:
    """One connection to `host:port`, opened when first needed and again after a failure."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> Answer:
        """Send a whole request and return the answer.

        Raises:
            NoAnswerError: there was none; the next call opens a new connection.
        """
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._ask(request)
        except TimeoutError as exc:
            await self.close()
            raise NoAnswerError(f"no answer within {TIMEOUT_S:g} s") from exc
        except (OSError, httptools.HttpParserError) as exc:
            await self.close()
            raise NoAnswerError(str(exc) or type(exc).__name__) from exc
        except asyncio.CancelledError:
            await self.close()
            raise

    async def _ask(self, request: bytes) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(request)
        sink = _Sink()
        while not sink.is_complete:
            data = await reader.read(_READ_BYTES)
            if not data:
                raise ConnectionResetError("the connection was closed in the middle of an answer")
            sink.parser.feed_data(data)
        if not sink.is_kept:
            await self.close()
        return Answer(sink.parser.get_status_code(), b"".join(sink.chunks))

    async def close(self) -> None:
        """Close the connection, if there is one."""
        if self._streams is not None:
            writer, self._streams = self._streams[1], None
            # Nothing that was not answered is worth waiting for.
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()
