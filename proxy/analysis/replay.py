"""Logged requests sent again, to any backend: at a rate, with a bound on how many are in flight.

An open loop: requests start at the rate, whether or not earlier ones were answered. Where that would
be more in flight than allowed it waits, says for how long, and never catches up in a burst: the rate
is an upper bound. Nothing is dropped. Each request is named in the log before it is sent and its pair
is there when it was answered; see `proxy.analysis.replay_log` for what that is worth after a crash.

The source is read in a thread of its own: it blocks, and Kafka's runs an event loop inside.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from itertools import islice
from typing import Final

from proxy import __version__
from proxy.analysis.pair_filter import PairFilter
from proxy.analysis.replay_log import ReplayLog
from proxy.analysis.replay_pair import Place, ReplayAnswer, line_of
from proxy.analysis.replay_request import ReplayRequest, Skip, finder_of, request_of
from proxy.analysis.replay_tally import ReplayTally
from proxy.analysis.replay_target import NotConnectedError, Sender
from proxy.analysis.select import Select
from proxy.analysis.source import Record, Source
from proxy.config.resolved import Config, Route
from proxy.errors import ReplayError, SourceError, UnderstudyError
from proxy.pairs.expand import Expander, LineError
from proxy.pairs.redact import Redactor, compile_rules
from proxy.telemetry import monotonic_s, wall_ns

#: Requests read at once, in the other thread.
_BATCH: Final = 64
#: How often a backend where nothing listens is tried.
_RETRY_S: Final = 0.25
#: How late a request may start without those after it starting later: a timer's inaccuracy.
_SLACK_S: Final = 0.005
#: An answer that never was, to see whether a record can be expanded at all.
_NONE: Final = ReplayAnswer("not_sent")


@dataclass(frozen=True, slots=True)
class Pacing:
    """How fast: `rate` requests per second, at most `max_in_flight` at once, `limit` in all.

    Attributes:
        patience_s: how long nothing may listen at the backend before the replay gives up.
    """

    rate: float
    max_in_flight: int
    limit: int | None = None
    patience_s: float = 10.0


class Pace:
    """When the next request may start. Pure: time is an argument."""

    def __init__(self, rate: float) -> None:
        self._interval_s = 1.0 / rate
        self._due_s = 0.0

    def wait_s(self, now_s: float) -> float:
        """Return for how long the next request must wait, 0 if it is due."""
        return max(0.0, self._due_s - now_s)

    def started(self, now_s: float) -> None:
        """Note that a request starts; after a hold-up the next is an interval from now."""
        self._due_s = max(self._due_s, now_s - _SLACK_S) + self._interval_s


class Pairing:
    """Makes the pairs of a replay, each by the route of its record.

    Args:
        config: has the routes.
        place: whose pairs they are.
    """

    def __init__(self, config: Config, place: Place) -> None:
        """Prepare.

        Raises:
            ReplayError: a comparator cannot be loaded.
        """
        self._place = place
        self._config = config
        try:
            self._routes = {route.name: self._prepared(route) for route in config.routes}
            # Of its own for the other thread: an expander remembers the pair before.
            self._checks = {route.name: self._expander(route) for route in config.routes}
        except ValueError as exc:
            raise ReplayError(f"the config's comparison cannot be used: {exc}") from exc
        self._finders = {
            route.name: finder_of(
                config.record.rules_of(route), route.protocol, config.limits.record_body_bytes
            )
            for route in config.routes
        }

    def request(self, pair: Record) -> ReplayRequest | Skip:
        """Return the request of a recorded pair, or why it cannot be sent."""
        name = pair["route"]
        check = self._checks.get(name)
        if check is None:
            return Skip.UNKNOWN_ROUTE
        asked = request_of(pair, self._finders[name])
        if isinstance(asked, ReplayRequest):
            try:
                check.expand(line_of(pair, _NONE, self._place, seq=0, ts_us=0, redactor=None))
            except LineError:
                return Skip.DAMAGED
        return asked

    def pair(
        self, asked: ReplayRequest, answer: ReplayAnswer, seq: int, ts_us: int
    ) -> tuple[bytes, Record]:
        """Return the pair of a request that was sent, as JSON and as a dict."""
        expander, redactor = self._routes[asked.route]
        line = line_of(asked.record, answer, self._place, seq=seq, ts_us=ts_us, redactor=redactor)
        return expander.expand_json(line)

    def _prepared(self, route: Route) -> tuple[Expander, Redactor | None]:
        record = self._config.record
        rules = record.rules_of(route)
        redactor = None
        if rules:
            redactor = compile_rules(
                rules, record.redact.key, protocol=route.protocol,
                limit_bytes=self._config.limits.record_body_bytes,
            )  # fmt: skip
        return self._expander(route), redactor

    def _expander(self, route: Route) -> Expander:
        return Expander(route, self._config.record, __version__)


class Replay:
    """One run of a replay.

    Attributes:
        tally: what was done so far.
    """

    def __init__(
        self, pairing: Pairing, log: ReplayLog, sender: Sender, pacing: Pacing, tally: ReplayTally
    ) -> None:
        self.tally = tally
        self._pairing = pairing
        self._log = log
        self._sender = sender
        self._pacing = pacing
        self._pace = Pace(pacing.rate)
        self._slots = asyncio.Semaphore(pacing.max_in_flight)
        self._stopping = asyncio.Event()
        self._begun = log.pairs
        self._heard_s = 0.0
        self._failure: UnderstudyError | None = None

    def stop(self) -> None:
        """Send nothing more; `run` ends when all that is in flight was answered."""
        self._stopping.set()

    async def run(self, source: Source, wanted: PairFilter) -> None:
        """Send what `wanted` takes of `source`, until its end, the limit or `stop`.

        Raises:
            SourceError: it cannot be read.
            ReplayError: nothing listens at the backend, or the disk refuses.
        """
        select = Select(wanted)
        async with asyncio.TaskGroup() as group:
            try:
                async with aclosing(self._requests(select, source)) as requests:
                    await self._send_all(group, requests)
                self.tally.is_complete = not self._stopping.is_set()
            except (ReplayError, SourceError) as exc:
                self._fail(exc)
        found = select.statistics()
        self.tally.skipped[Skip.DAMAGED] += found.bad
        self.tally.skipped[Skip.REPEATED] += found.duplicates
        if self._failure is not None:
            self.tally.is_complete = False
            raise self._failure

    async def _send_all(
        self, group: asyncio.TaskGroup, requests: AsyncIterator[ReplayRequest]
    ) -> None:
        async for asked in requests:
            if self._log.has(asked.route, asked.request_id):
                self.tally.skipped[Skip.REPEATED] += 1
            elif self._is_at_limit() or not await self._may_start():
                return
            else:
                self._log.begin(asked.route, asked.request_id)
                self._begun += 1
                group.create_task(self._send(asked))

    def _is_at_limit(self) -> bool:
        return self._pacing.limit is not None and self._begun >= self._pacing.limit

    async def _may_start(self) -> bool:
        """Wait until the next request may start, with a slot taken for it; False: none may any more."""
        await self._pause(self._pace.wait_s(monotonic_s()))
        since_s = monotonic_s()
        await self._slots.acquire()
        now_s = monotonic_s()
        if now_s - since_s > _SLACK_S:
            self.tally.held_s += now_s - since_s
        self._pace.started(now_s)
        return not self._stopping.is_set()

    async def _pause(self, duration_s: float) -> None:
        """Wait, or until there is nothing more to wait for."""
        if duration_s:
            try:
                async with asyncio.timeout(duration_s):
                    await self._stopping.wait()
            except TimeoutError:
                pass

    async def _send(self, asked: ReplayRequest) -> None:
        """Send one request and keep its pair; a failure of ours stops the replay, not the others."""
        try:
            ts_us = wall_ns() // 1000
            answer = await self._answer(asked)
            if answer is not None:
                made, pair = self._pairing.pair(asked, answer, self._log.pairs, ts_us)
                self._log.end(made, asked.route, asked.request_id)
                self.tally.note(pair)
        except ReplayError as exc:
            self._fail(exc)
        finally:
            self._slots.release()

    async def _answer(self, asked: ReplayRequest) -> ReplayAnswer | None:
        """Return the answer; wait for a backend that is being restarted. None: stopped before that.

        Raises:
            ReplayError: nothing listened for too long.
        """
        since_s = None
        while not self._stopping.is_set():
            try:
                answer = await self._sender.ask(asked)
            except NotConnectedError as exc:
                since_s = since_s or monotonic_s()
                if monotonic_s() - max(since_s, self._heard_s) > self._pacing.patience_s:
                    raise ReplayError(
                        f"no connection to the backend for {self._pacing.patience_s:g} s: {exc}; once it listens, "
                        "the same command goes on"
                    ) from exc
                await self._pause(_RETRY_S)
                continue
            self._heard_s = monotonic_s()
            return answer
        return None

    def _fail(self, error: UnderstudyError) -> None:
        self._failure = self._failure or error
        self._stopping.set()

    async def _requests(self, select: Select, source: Source) -> AsyncGenerator[ReplayRequest]:
        """Yield the requests that can be sent; the next ones are read meanwhile."""
        found = self._found(select, source)

        def take() -> list[ReplayRequest | Skip]:
            return list(islice(found, _BATCH))

        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, "replay-source") as thread:
            following = loop.run_in_executor(thread, take)
            try:
                while batch := await following:
                    following = loop.run_in_executor(thread, take)
                    for each in batch:
                        if isinstance(each, Skip):
                            self.tally.skipped[each] += 1
                        else:
                            yield each
            finally:
                await asyncio.wait([following])
                await loop.run_in_executor(thread, found.close)

    def _found(self, select: Select, source: Source) -> Generator[ReplayRequest | Skip, None, None]:
        for pair in select.pairs(source):
            yield self._pairing.request(pair)
