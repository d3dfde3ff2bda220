"""Users: many keep-alive connections that send numbered requests and check every answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from tests.support.dataplane import read_answer


def body_of(number: int) -> bytes:
    """Return the body that user `number` sends."""
    return b'{"inputs": [{"name": "x", "data": [%d]}]}' % number


async def send_all(address: str, numbers: Iterable[int], *, concurrency: int) -> dict[int, bytes]:
    """Send one request per number over `concurrency` connections; return the answers' bodies.

    Each request has `x-user-id: u<number>` and `x-request-id: r<number>`.

    Raises:
        AssertionError: an answer is not 200.
    """
    host, _, port = address.rpartition(":")
    waiting = iter(numbers)
    answers: dict[int, bytes] = {}

    async def user() -> None:
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            for number in waiting:
                body = body_of(number)
                writer.write(
                    b"POST /v2/models/m/infer HTTP/1.1\r\nhost: t\r\nx-user-id: u%d\r\n"
                    b"x-request-id: r%d\r\ncontent-type: application/json\r\n"
                    b"content-length: %d\r\n\r\n%b" % (number, number, len(body), body)
                )
                status, _, answer = await read_answer(reader)
                assert status == 200, (number, status, answer)
                answers[number] = answer
        finally:
            writer.close()

    await asyncio.gather(*(user() for _ in range(concurrency)))
    return answers
