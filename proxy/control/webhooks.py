"""Calls to whoever wants to be told of a ramp, or asked: bounded, signed, and never waited for.

A `notify` is tried five times and then given up; a queue that is full drops its oldest. A `confirm` is
asked until it answers 2xx, with growing pauses, and its word holds for one step up and half a minute.
Redirects are not followed, since a signature is meant for one address, and answers are not read.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import importlib
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from proxy.config.resolved import Webhook
from proxy.ramp.policy import Confirmation
from proxy.telemetry import monotonic_s

logger = logging.getLogger("understudy.control")

SIGNATURE_HEADER: Final = "x-understudy-signature"
QUEUE_LENGTH: Final = 256
NOTIFY_ATTEMPTS: Final = 5
#: Between two attempts: doubled from the first to the second.
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 30.0
#: How long a `confirm` holds; a step up that did not happen meanwhile is asked for again.
GIVEN_S: Final = 30.0


@dataclass(slots=True)
class _Question:
    """One step up that needs a word; `step` tells it from the one before."""

    hook: Webhook
    step: tuple[int, int]
    payload: Mapping[str, Any]
    attempts: int = 0
    next_s: float = 0.0
    given_s: float | None = None
    answer: str = "not asked yet"


@dataclass(frozen=True, slots=True)
class _Notice:
    """A notice that waits, and what is called when it is over."""

    hook: Webhook
    payload: Mapping[str, Any]
    on_end: Callable[[], None]


class Webhooks:
    """Makes the calls; `run` does so until it is cancelled."""

    def __init__(self) -> None:
        self._notices: deque[_Notice] = deque()
        self._questions: dict[str, _Question] = {}
        self._wake_notices, self._wake_questions = asyncio.Event(), asyncio.Event()
        self._client: Any = None
        self._counts: Counter[str] = Counter()

    def notify(
        self, hook: Webhook, payload: Mapping[str, Any], on_end: Callable[[], None] = lambda: None
    ) -> None:
        """Queue a notice; the oldest makes room. `on_end` is called when it was told, or given up."""
        if len(self._notices) >= QUEUE_LENGTH:
            self._notices.popleft().on_end()
            self._counts["dropped"] += 1
        self._notices.append(_Notice(hook, payload, on_end))
        self._wake_notices.set()

    def ask(
        self, name: str, hook: Webhook, step: tuple[int, int], payload: Mapping[str, Any]
    ) -> None:
        """Ask for the word on a step up of the ramp `name`, unless it is being asked for."""
        question = self._questions.get(name)
        if question is None or question.step != step or question.given_s is not None:
            self._questions[name] = _Question(hook, step, payload)
            self._wake_questions.set()

    def confirmation(self, name: str, step: tuple[int, int]) -> Confirmation:
        """Return whether the word on a step up is given, and still holds."""
        question = self._questions.get(name)
        if question is None or question.step != step or question.given_s is None:
            return Confirmation.MISSING
        is_given = monotonic_s() - question.given_s <= GIVEN_S
        return Confirmation.GIVEN if is_given else Confirmation.MISSING

    def answer(self, name: str) -> str:
        """Return what the `confirm` of a ramp last said."""
        question = self._questions.get(name)
        return question.answer if question is not None else "not asked yet"

    def forget(self, name: str) -> None:
        """Ask no more for a ramp that is elsewhere by now."""
        self._questions.pop(name, None)

    def statistics(self) -> dict[str, int]:
        """Return calls by what became of them, and the notices that wait."""
        return {**self._counts, "queued": len(self._notices)}

    async def run(self) -> None:
        """Make the calls until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._notify_all())
                tasks.create_task(self._ask_all())
        finally:
            if self._client is not None:
                await self._client.aclose()

    async def _notify_all(self) -> None:
        while True:
            self._wake_notices.clear()
            while self._notices:
                notice = self._notices.popleft()
                await self._notify(notice.hook, notice.payload)
                notice.on_end()
            await self._wake_notices.wait()

    async def _notify(self, hook: Webhook, payload: Mapping[str, Any]) -> None:
        failure = ""
        for attempt in range(NOTIFY_ATTEMPTS):
            if attempt:
                await asyncio.sleep(_pause_s(attempt))
            failure = await self._call(hook, payload)
            if not failure:
                self._counts["notified"] += 1
                return
        self._counts["failed"] += 1
        logger.warning("a notice of a ramp was given up: %s", failure)

    async def _ask_all(self) -> None:
        while True:
            now_s = monotonic_s()
            due = [q for q in self._questions.values() if q.given_s is None and q.next_s <= now_s]
            for question in due:
                question.attempts += 1
                failure = await self._call(question.hook, question.payload)
                question.answer = failure or "confirmed"
                question.given_s = None if failure else monotonic_s()
                question.next_s = monotonic_s() + _pause_s(question.attempts)
                self._counts["refused" if failure else "confirmed"] += 1
            self._wake_questions.clear()
            open_s = [q.next_s for q in self._questions.values() if q.given_s is None]
            delay_s = max(0.0, min(open_s) - monotonic_s()) if open_s else None
            try:
                async with asyncio.timeout(delay_s):
                    await self._wake_questions.wait()
            except TimeoutError:
                continue

    async def _call(self, hook: Webhook, payload: Mapping[str, Any]) -> str:
        """Post the payload; return why it did not get a 2xx, without the address; else nothing."""
        if self._client is None:  # imported here, because it takes 200 ms and 10 MB
            self._client = importlib.import_module("httpx").AsyncClient(follow_redirects=False)
        body = orjson.dumps(payload)
        headers = {"content-type": "application/json", "user-agent": "understudy"}
        if hook.secret:
            digest = hmac.new(hook.secret.encode(), body, hashlib.sha256).hexdigest()
            headers[SIGNATURE_HEADER] = f"sha256={digest}"
        try:
            async with (
                asyncio.timeout(hook.timeout_s),
                self._client.stream("POST", hook.url, content=body, headers=headers) as answer,
            ):
                return "" if answer.is_success else f"it answered {answer.status_code}"
        except TimeoutError:
            return f"no answer within {hook.timeout_s:g} s"
        except Exception as exc:  # noqa: BLE001 - whatever a call does, the ramp goes on
            return f"it cannot be reached ({type(exc).__name__})"


def _pause_s(attempts: int) -> float:
    return float(min(FIRST_PAUSE_S * 2 ** (attempts - 1), LONGEST_PAUSE_S))
