"""Webhooks: signed, bounded in time and number, and never in the way of the ramp."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from proxy.config.resolved import Webhook
from proxy.control import webhooks as module
from proxy.control.webhooks import QUEUE_LENGTH, SIGNATURE_HEADER, Webhooks
from proxy.ramp.phases import Event
from proxy.ramp.policy import Confirmation
from proxy.state.orders import Source
from proxy.telemetry import monotonic_s
from tests.control.ramp_stage import Stage, ramp_config
from tests.support.dataplane import until
from tests.support.deadline import PATIENCE_S
from tests.support.webhook_listener import Listener, listening

SECRET = "a-key-of-a-test"


@pytest.fixture
def listener(monkeypatch: pytest.MonkeyPatch) -> Iterator[Listener]:
    """Return somebody who is called; pauses between attempts are short."""
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.01)
    with listening() as found:
        yield found


@asynccontextmanager
async def _calling(webhooks: Webhooks) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as tasks, asyncio.timeout(PATIENCE_S):
        task = tasks.create_task(webhooks.run())
        yield
        task.cancel()


async def _until(webhooks: Webhooks, **counts: int) -> None:
    while not counts.items() <= webhooks.statistics().items():  # noqa: ASYNC110 - a counter
        await asyncio.sleep(0.005)


async def test_a_notice_is_signed(listener: Listener) -> None:
    """By HMAC-SHA256 of exactly the body; without a secret there is no such header."""
    webhooks = Webhooks()
    async with _calling(webhooks):
        webhooks.notify(listener.hook(secret=SECRET), {"event": "halt"})
        webhooks.notify(listener.hook(), {"event": "abort"})
        await _until(webhooks, notified=2, queued=0)
    (headers, body), (plain, _) = listener.calls
    expected = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    assert headers[SIGNATURE_HEADER] == f"sha256={expected}"
    assert headers["content-type"] == "application/json"
    assert SIGNATURE_HEADER not in plain
    assert listener.said == [{"event": "halt"}, {"event": "abort"}]


@pytest.mark.parametrize(
    ("statuses", "counted"),
    [([500, 302, 200], {"notified": 1}), ([0, 200], {"notified": 1}), ([500] * 5, {"failed": 1})],
)
async def test_a_notice_is_tried_again_and_given_up_in_the_end(
    listener: Listener, statuses: list[int], counted: dict[str, int]
) -> None:
    """Errors, redirects and silence; what comes behind it is not lost."""
    webhooks = Webhooks()
    listener.statuses = list(statuses)
    async with _calling(webhooks):
        webhooks.notify(listener.hook(timeout_s=0.3 if 0 in statuses else PATIENCE_S), {"n": 1})
        await _until(webhooks, **counted)
        webhooks.notify(listener.hook(), {"n": 2})
        await _until(webhooks, notified=counted.get("notified", 0) + 1)
    # A machine that is busy may let an answer come too late, too, and each call has a thread of its own
    # there: what was given up may be noted last.

    def said() -> list[int]:
        return [each["n"] for each in listener.said]

    await until(lambda: said().count(1) >= len(statuses), "every call")
    assert said().count(2) == 1


def test_a_full_queue_drops_its_oldest() -> None:
    """And counts them."""
    webhooks, ended = Webhooks(), Counter[int]()
    for number in range(QUEUE_LENGTH + 3):
        hook = Webhook("http://127.0.0.1:9", "", 1.0)
        webhooks.notify(hook, {"n": number}, partial(ended.update, [number]))
    assert ended == {0: 1, 1: 1, 2: 1}
    assert webhooks.statistics() == {"dropped": 3, "queued": QUEUE_LENGTH}
    assert webhooks._notices[0].payload == {"n": 3}


async def test_a_word_is_asked_for_until_it_is_given_and_holds_for_one_step(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal, silence and nobody there are asked again; the word grows old."""
    webhooks = Webhooks()
    listener.statuses = [403, 0, 204]
    async with _calling(webhooks):
        assert webhooks.answer("r") == "not asked yet"
        for _ in range(3):  # asked again with every tick
            webhooks.ask("r", listener.hook(timeout_s=0.3), (0, 1), {"step": 1})
        await _until(webhooks, refused=1)
        assert webhooks.confirmation("r", (0, 1)) is Confirmation.MISSING
        await _until(webhooks, confirmed=1)
    assert len(listener.calls) >= 3
    assert webhooks.confirmation("r", (0, 1)) is Confirmation.GIVEN
    assert webhooks.confirmation("r", (1, 2)) is Confirmation.MISSING
    monkeypatch.setattr(module, "GIVEN_S", -1.0)
    assert webhooks.confirmation("r", (0, 1)) is Confirmation.MISSING


async def test_who_cannot_be_reached_is_told_without_the_address() -> None:
    """The address may be a secret."""
    webhooks = Webhooks()
    async with _calling(webhooks):
        webhooks.ask("r", Webhook("http://127.0.0.1:9/secret", "", PATIENCE_S), (0, 1), {})
        await _until(webhooks, refused=1)
    assert webhooks.answer("r") == "it cannot be reached (ConnectError)"


async def test_a_step_up_waits_for_the_word_and_everything_is_told(
    tmp_path: Path, listener: Listener
) -> None:
    """A hung listener holds up neither the ticks nor a fall."""
    hook = listener.hook(secret=SECRET, timeout_s=2 * PATIENCE_S)
    with listening() as audience:
        stage = Stage(ramp_config(tmp_path, confirm=hook, notify=audience.hook()))
        listener.statuses = [409, 200, 0]
        entry = stage.driver.entries["iris/v2"]
        stage.count()
        stage.driver.give(entry, Event.START, Source("ada", "api", "try it", 1))
        async with _calling(stage.webhooks):
            stage.gather()
            assert (stage.live.weight_bp, stage.state.phase) == (0, "holding")
            assert stage.waits == "waits for the confirm webhook: not asked yet"
            await _until(stage.webhooks, refused=1)
            stage.tick()
            assert stage.waits == "waits for the confirm webhook: it answered 409"
            await _until(stage.webhooks, confirmed=1)
            stage.tick()
            assert stage.live.weight_bp == 2_500
            stage.gather()
            began_s = monotonic_s()
            stage.gather(same=0, worse=2_000)
            assert monotonic_s() - began_s < PATIENCE_S
            assert stage.live.weight_bp == 0
            await _until(stage.webhooks, notified=5)
        told = audience.said
        stage.close()
    assert [each["event"] for each in told] == ["start", "pass", "advance", "pass", "halt"]
    assert told[-1]["phase"] == "rolled_back"
    assert told[-1]["why"].startswith("availability")
    asked = listener.said[0]
    assert (asked["event"], asked["next_weight_percent"]) == ("confirm", 25)
