"""The users of the demo: real held-out rows, sent through the proxy, every answer checked.

Decides what is sent, by whom, how fast, and whether an answer is right: it must be, byte for byte,
what the primary (or a candidate that may serve) says about the same row when asked directly.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import orjson

from proxy.demo.classifiers import FEATURES, Floats
from proxy.demo.client import Answer, Connection, NoAnswerError
from proxy.demo.models import HELD_OUT
from proxy.telemetry import monotonic_s

PATH: Final = "/v2/models/digits/infer"
USERS: Final = 500
#: Shares no factor with `USERS`: every user comes once before any comes again.
USER_STEP: Final = 89
CONCURRENCY: Final = 16
#: What the answers of the primary say as `model_version`.
PRIMARY: Final = "1"
_REQUEST_ID_PREFIX: Final = "demo-"
_OK: Final = 200
_EXAMPLES: Final = 5
_MAX_LATENCIES: Final = 100_000


def row_body(row: int, pixels: Floats) -> bytes:
    """Return the inference request for one row; its id names the row, so answers are repeatable."""
    tensor = {"name": "pixels", "shape": [1, FEATURES], "datatype": "FP64", "data": pixels}
    document = {"id": f"row-{row}", "inputs": [tensor]}
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def request_id(number: int) -> str:
    """Return the `x-request-id` of a request, by its number."""
    return f"{_REQUEST_ID_PREFIX}{number}"


def user_of(number: int) -> int:
    """Return the user who sends a request, by its number."""
    return number * USER_STEP % USERS


def row_of(request: str) -> int:
    """Return the row that the request with this id asked about."""
    return int(request.removeprefix(_REQUEST_ID_PREFIX)) % HELD_OUT


def request_bytes(host: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """Return a whole HTTP request with `body`."""
    lines = [f"POST {PATH} HTTP/1.1", f"host: {host}", "content-type: application/json"]
    lines += [f"content-length: {len(body)}", *(f"{k}: {v}" for k, v in headers.items())]
    return "\r\n".join((*lines, "", "")).encode() + body


@dataclass(slots=True)
class Tally:
    """What happened to the requests of one phase.

    Attributes:
        answered: requests that ended, well or not.
        failed: no answer, or not 200.
        wrong: 200, but not what any server that may serve says.
        served: answers by `model_version`.
        users: versions that each user was served by.
        versions: which version answered, by the request's number.
        examples: the first few failures, in words.
        latencies_s: of the latest answers.
    """

    answered: int = 0
    failed: int = 0
    wrong: int = 0
    served: Counter[str] = field(default_factory=Counter)
    users: defaultdict[int, set[str]] = field(default_factory=lambda: defaultdict(set))
    versions: dict[int, str] = field(default_factory=dict)
    examples: list[str] = field(default_factory=list)
    latencies_s: deque[float] = field(default_factory=lambda: deque(maxlen=_MAX_LATENCIES))
    started_s: float = 0.0
    ended_s: float = 0.0

    @property
    def seconds(self) -> float:
        """How long the phase took, or has taken so far."""
        return (self.ended_s or monotonic_s()) - self.started_s

    def latency_ms(self, quantile: float) -> float | None:
        """Return a quantile (0 to 1) of the latencies in milliseconds; None before the first."""
        if not self.latencies_s:
            return None
        return float(np.quantile(np.array(self.latencies_s), quantile)) * 1000

    def users_of(self, version: str) -> set[int]:
        """Return the users that `version` served at least once."""
        return {user for user, versions in self.users.items() if version in versions}

    def note(self, example: str) -> None:
        """Keep the first few failures."""
        if len(self.examples) < _EXAMPLES:
            self.examples.append(example)


@dataclass(frozen=True, slots=True)
class Load:
    """How much is sent: `count` requests (None: until `Traffic.finish`), at most `rate` a second."""

    count: int | None
    rate: float


class Traffic:
    """Sends rows to the proxy at `url` and checks the answers.

    Args:
        url: the proxy's listener.
        bodies: the request for each of the `HELD_OUT` rows.
        expected: for each model version, its own answer to each row.
    """

    def __init__(
        self, url: str, bodies: Sequence[bytes], expected: Mapping[str, Sequence[bytes]]
    ) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname or "", parts.port or 0
        self._host = parts.netloc
        self._bodies = bodies
        self._expected = expected
        self.tally = Tally()
        #: Requests begun since the start; the next one has this number.
        self.sent = 0
        #: Numbers of requests begun and not answered.
        self.in_flight: set[int] = set()
        #: From this number on only the primary may serve, whatever the load allows.
        self.primary_only_from: int | None = None

        self._milestones: dict[int, asyncio.Event] = {}
        #: The number that is not sent any more in this run; None: not known yet.
        self._end: int | None = 0

    def finish(self) -> None:
        """Begin no more requests in this run; those that have a number are still sent."""
        self._end = self.sent

    async def reach(self, number: int) -> None:
        """Return when the request `number` is begun; a later run must send it."""
        if number >= self.sent:
            await self._milestones.setdefault(number, asyncio.Event()).wait()

    def settled(self) -> set[int]:
        """Return the numbers of the requests that have been answered."""
        return set(range(self.sent)) - self.in_flight

    async def run(self, load: Load, allowed: Iterable[str], tally: Tally) -> None:
        """Send `load` over a few connections; return when all are answered.

        Args:
            load: how much and how fast.
            allowed: the model versions that may serve.
            tally: a fresh one, filled as answers come.
        """
        self.tally, tally.started_s = tally, monotonic_s()
        versions = tuple(allowed)
        first = self.sent
        self._end = None if load.count is None else first + load.count
        async with asyncio.TaskGroup() as group:
            for _ in range(CONCURRENCY):
                group.create_task(self._user(load, first, versions))
        tally.ended_s = monotonic_s()

    async def _user(self, load: Load, first: int, versions: tuple[str, ...]) -> None:
        tally = self.tally
        async with Connection(*self._address) as connection:
            while self._end is None or self.sent < self._end:
                number, self.sent = self.sent, self.sent + 1
                self.in_flight.add(number)
                if milestone := self._milestones.pop(number, None):
                    milestone.set()
                due_s = tally.started_s + (number - first) / load.rate - monotonic_s()
                if due_s > 0:
                    await asyncio.sleep(due_s)
                await self._ask(connection, number, versions)

    async def _ask(self, connection: Connection, number: int, versions: tuple[str, ...]) -> None:
        tally, row = self.tally, number % HELD_OUT
        user = user_of(number)
        headers = {"x-user-id": f"user-{user}", "x-request-id": request_id(number)}
        request = request_bytes(self._host, self._bodies[row], headers)
        started_s = monotonic_s()
        try:
            answer = await connection.ask(request)
        except NoAnswerError as exc:
            tally.failed += 1
            tally.note(f"request {number}: {exc}")
        else:
            tally.latencies_s.append(monotonic_s() - started_s)
            self._judge(number, user, answer, versions)
        tally.answered += 1
        self.in_flight.discard(number)

    def _judge(self, number: int, user: int, answer: Answer, versions: tuple[str, ...]) -> None:
        tally, row = self.tally, number % HELD_OUT
        if answer.status != _OK:
            tally.failed += 1
            tally.note(f"request {number}: {answer.status} {answer.body[:200]!r}")
            return
        if self.primary_only_from is not None and number >= self.primary_only_from:
            versions = (PRIMARY,)
        for version in versions:
            if answer.body == self._expected[version][row]:
                tally.served[version] += 1
                tally.users[user].add(version)
                tally.versions[number] = version
                return
        tally.wrong += 1
        tally.note(
            f"request {number}: not the answer of {' or '.join(versions)}: {answer.body[:200]!r}"
        )


async def trickle(url: str, bodies: Sequence[bytes], rate: float) -> None:
    """Send rows through the proxy at `url`, `rate` a second, until cancelled; look at no answer."""
    parts = urlsplit(url)
    async with Connection(parts.hostname or "", parts.port or 0) as connection:
        for number in count():
            headers = {"x-user-id": f"user-{user_of(number)}"}
            with suppress(NoAnswerError):
                body = bodies[number % HELD_OUT]
                await connection.ask(request_bytes(parts.netloc, body, headers))
            await asyncio.sleep(1 / rate)


async def ask_directly(url: str, bodies: Sequence[bytes]) -> list[bytes]:
    """Return what the model server at `url` answers to each row.

    Raises:
        NoAnswerError: it failed.
    """
    parts = urlsplit(url)
    answers: dict[int, bytes] = {}
    rows = iter(enumerate(bodies))

    async def ask_some() -> None:
        async with Connection(parts.hostname or "", parts.port or 0) as connection:
            for row, body in rows:
                answer = await connection.ask(request_bytes(parts.netloc, body, {}))
                if answer.status != _OK:
                    raise NoAnswerError(f"{url} answered {answer.status}: {answer.body[:200]!r}")
                answers[row] = answer.body

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(ask_some())
    return [answers[row] for row in range(len(bodies))]


def label_of(answer: bytes) -> int:
    """Return the label in an answer to one row."""
    document: dict[str, Any] = orjson.loads(answer)
    return int(document["outputs"][0]["data"][0])
