"""A crowd of users that keeps asking while a test breaks things, and remembers what it saw.

async with crowd(address, users=16) as people:
    ...
people.answers, people.failures
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count

from proxy.telemetry import monotonic_s
from tests.support.dataplane import read_answer, until
from tests.support.users import body_of

#: Requests on one connection before a user opens another: so a new worker soon gets its share.
PER_CONNECTION = 25


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that got no whole answer, or one that was not 200.

    Attributes:
        number: of the request, `r<number>`.
        port: the user's own port, which tells the connection; 0 where there was none.
        begun_s: monotonic seconds when it was sent.
        what: the status or the exception.
    """

    number: int
    port: int
    begun_s: float
    what: str


class Crowd:
    """Users who ask one request after the other until `is_over`.

    Attributes:
        answers: body of each request that was answered 200, by number.
        times_s: how long each of these took.
        failures: all others, in order.
    """

    def __init__(self, address: str, every_s: float = 0.0) -> None:
        """Ask at `address`, each user once every `every_s` or as fast as answers come."""
        host, _, port = address.rpartition(":")
        self.answers: dict[int, bytes] = {}
        self.times_s: dict[int, float] = {}
        self.failures: list[Failure] = []
        self.is_over = False
        self._place = host, int(port)
        self._numbers = count()
        self._every_s = every_s

    async def go_on(self, requests: int = 200) -> None:
        """Wait until so many more requests have been answered."""
        wanted = len(self.answers) + requests
        await until(lambda: len(self.answers) >= wanted, f"{requests} more answers")

    async def user(self) -> None:
        """Ask over one connection after the other."""
        while not self.is_over:
            try:
                reader, writer = await asyncio.open_connection(*self._place)
            except OSError as exc:
                self.failures.append(Failure(-1, 0, monotonic_s(), repr(exc)))
                await asyncio.sleep(0.01)
                continue
            try:
                await self._visit(reader, writer)
            finally:
                writer.close()

    async def _visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port: int = writer.get_extra_info("sockname")[1]
        for _ in range(PER_CONNECTION):
            if self.is_over:
                return
            number, begun_s = next(self._numbers), monotonic_s()
            what = await self._ask(reader, writer, number)
            if what == "close":
                return
            if what:
                self.failures.append(Failure(number, port, begun_s, what))
                return
            took_s = self.times_s[number] = monotonic_s() - begun_s
            if self._every_s:
                await asyncio.sleep(max(0.0, self._every_s - took_s))

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> str:
        """Send one request; return what went wrong, `close` after a last answer, or nothing."""
        try:
            writer.write(request_of(number))
            status, fields, body = await read_answer(reader)
        except (OSError, asyncio.IncompleteReadError) as exc:
            return repr(exc)
        if status != 200:
            return str(status)
        self.answers[number] = body
        return "close" if fields.get(b"connection") == b"close" else ""


@asynccontextmanager
async def crowd(
    address: str, *, users: int = 16, rate_per_s: float | None = None
) -> AsyncIterator[Crowd]:
    """Let `users` users ask until the block ends, at `rate_per_s` together or as fast as they can."""
    people = Crowd(address, users / rate_per_s if rate_per_s else 0.0)
    async with asyncio.TaskGroup() as group:
        for _ in range(users):
            group.create_task(people.user())
        try:
            yield people
        finally:
            people.is_over = True


def request_of(number: int) -> bytes:
    """Return request `number`: `x-request-id: r<number>`, `x-user-id: u<number>`."""
    body = body_of(number)
    return (
        b"POST /v2/models/m/infer HTTP/1.1\r\nhost: t\r\nx-user-id: u%d\r\nx-request-id: r%d\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (number, number, len(body), body)
    )
