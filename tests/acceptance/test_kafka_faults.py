"""A whole instance under load, while its broker freezes, dies, comes back and loses the topic.

Users notice nothing, nothing is lost, and the ledger and the topic agree to the last pair.

`UNDERSTUDY_KAFKA_FAULT_S=60` makes each outage last so long; it also prints the users' latency in
each phase.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from proxy.state.stats_file import read_stats
from proxy.telemetry import monotonic_s
from tests.support.crowd import Crowd, crowd
from tests.support.dataplane import until
from tests.support.instance import Instance, running
from tests.support.kafka import Broker, broker
from tests.support.kafka_topics import consume, create_topic, delete_topic
from tests.support.upstreams import Upstream, echo

FAULT_S = float(os.environ.get("UNDERSTUDY_KAFKA_FAULT_S", "0.5"))
RATE_PER_S = 500
TOPIC = "faults.pairs.v1"
#: Pairs that may be on their way to the broker at once: one window of each recorder.
_ON_THE_WAY = 2 * 1_000

pytestmark = [pytest.mark.real_kafka, pytest.mark.slow, pytest.mark.timeout(8 * FAULT_S + 600)]


@pytest.fixture(scope="module")
def victim(kafka_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Give a broker to mistreat; it creates no topic by itself."""
    settings = {"auto.create.topics.enable": "false"}
    with broker(kafka_cache, tmp_path_factory.mktemp("victim") / "data", settings) as found:
        create_topic(found.bootstrap, TOPIC)
        yield found


@asynccontextmanager
async def shipping(victim: Broker, folder: Path) -> AsyncIterator[Instance]:
    """Run two workers and two recorders that ship every pair to `victim`."""
    async with Upstream(echo) as one, Upstream(echo) as two:
        config = {
            "workers": 2,
            "recorders": 2,
            "backends": {
                "v1": {"endpoints": [f"http://127.0.0.1:{one.port}"], "timeout": "5s"},
                "v2": {"endpoints": [f"http://127.0.0.1:{two.port}"], "timeout": "5s"},
            },
            "routes": [
                {
                    "name": "m",
                    "protocol": "json",
                    "primary": "v1",
                    "split_by": "header:x-user-id",
                    "candidates": [{"name": "v2", "backend": "v2", "mirror": "100%"}],
                }
            ],
            "record": {
                "kafka": {"bootstrap_servers": [victim.bootstrap], "topic_prefix": "faults"}
            },
            "limits": {"shutdown": "3s"},
        }
        with running(config, folder) as instance:
            yield instance


class Phases:
    """The users' latency from one word to the next."""

    def __init__(self, people: Crowd) -> None:
        self._people = people
        self._seen = 0

    def say(self, word: str) -> None:
        """Print the latencies since the last word, in the long form."""
        times_s = list(self._people.times_s.values())[self._seen :]
        self._seen += len(times_s)
        if FAULT_S >= 30 and len(times_s) > 1:
            p99_ms = statistics.quantiles(times_s, n=100)[98] * 1000
            p50_ms = statistics.median(times_s) * 1000
            line = f"{word}: {len(times_s)} answers, p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms\n"
            sys.stdout.write(line)


async def states(instance: Instance) -> set[str]:
    """Return the states of the recorders' sinks."""
    found = await asyncio.to_thread(instance.status)
    return {recorder["state"] for recorder in found["recorders"] if recorder}


async def told(instance: Instance, *words: str) -> None:
    """Wait until every recorder's sink is in one of the states `words`."""
    deadline_s = monotonic_s() + 60
    while not (found := await states(instance)) <= set(words):
        assert monotonic_s() < deadline_s, f"{found} instead of {words}"
        await asyncio.sleep(0.1)


async def settled(instance: Instance, answers: int) -> dict[str, int]:
    """Wait until the books are closed; return the last account. Nothing may be lost or dropped."""
    deadline_s = monotonic_s() + 90
    while True:
        found = await asyncio.to_thread(instance.status)
        accounts = {account["name"]: account for account in found["ledger"]}
        shipped = accounts["pairs journaled"]
        # A recorder's own statistics are up to a second old.
        parts: dict[str, int] = {f"{r['recorder']}": r["acknowledged"] for r in found["recorders"]}
        if shipped["parts"].get("acknowledged") == sum(parts.values()) == answers:
            break
        assert monotonic_s() < deadline_s, json.dumps(found["ledger"], indent=1)
        await asyncio.sleep(0.1)
    assert [a["open"] for a in accounts.values()] == [0] * len(accounts)
    assert shipped["parts"] == {"acknowledged": answers}
    assert accounts["pairs decided"]["parts"] == {"journaled": answers}
    return parts


def journaled(instance: Instance) -> dict[str, int]:
    """Return how many pairs each worker has journaled, which are its recorder's to ship."""
    found = {}
    for index in range(2):
        page = read_stats(instance.state_dir, index)
        found[f"{index}"] = page.get("pairs_journaled", "m", "v2")
        page.close()
    return found


def stored(victim: Broker, enough: int) -> tuple[set[bytes], int]:
    """Return the ids of the pairs in the topic, and how many messages are one too many."""
    ids = [ce_id(message) for message in consume(victim.bootstrap, TOPIC, enough, 60)]
    return set(ids), len(ids) - len(set(ids))


def ce_id(message: Any) -> bytes:
    """Return the pair id of a message."""
    value: bytes = dict(message.headers())["ce_id"]
    return value


async def test_a_broker_may_freeze_and_die_and_a_recorder_be_killed(
    victim: Broker, tmp_path: Path
) -> None:
    """Every answered request has its pair in the topic once all are back, and nobody noticed."""
    async with shipping(victim, tmp_path) as instance:
        async with crowd(instance.runtime["listen"], rate_per_s=RATE_PER_S) as people:
            phases = Phases(people)
            await asyncio.sleep(max(1.5, FAULT_S / 2))
            phases.say("undisturbed")
            victim.freeze()
            try:
                await told(instance, "slow", "stuck")
                await asyncio.sleep(FAULT_S)
                phases.say("frozen")
            finally:
                victim.thaw()
            await told(instance, "ok")
            phases.say("catching up")
            victim.kill()
            await told(instance, "broker_down")
            await asyncio.sleep(FAULT_S if FAULT_S >= 30 else 0)
            phases.say("dead")
            victim.launch()
            await asyncio.to_thread(victim.wait_until_up)
            await told(instance, "ok")
            phases.say("back")
            killed = instance.pids["recorder 0"]
            instance.send("recorder 0", signal.SIGKILL)
            await until(lambda: instance.pids["recorder 0"] not in (0, killed), "its successor")
            await people.go_on()
        assert people.failures == []
        share = await settled(instance, len(people.answers))
        assert share == journaled(instance)
        ids, _ = await asyncio.to_thread(stored, victim, len(people.answers))
        assert len(ids) == len(people.answers)


async def test_recorders_share_the_work_and_write_nothing_twice(
    victim: Broker, tmp_path: Path
) -> None:
    """Without a fault; then the topic is deleted under load, and made again."""
    delete_topic(victim.bootstrap, TOPIC)
    await until(lambda: _can_create(victim), "the topic to be new")
    async with shipping(victim, tmp_path) as instance:
        async with crowd(instance.runtime["listen"], rate_per_s=RATE_PER_S) as people:
            await asyncio.sleep(1)
        before = len(people.answers)
        share = await settled(instance, before)
        assert share == journaled(instance)
        ids, twice = await asyncio.to_thread(stored, victim, before)
        assert (len(ids), twice) == (before, 0)

        async with crowd(instance.runtime["listen"], rate_per_s=RATE_PER_S) as more:
            await more.go_on()
            await asyncio.to_thread(delete_topic, victim.bootstrap, TOPIC)
            await told(instance, "topic_missing")
            await asyncio.sleep(FAULT_S if FAULT_S >= 30 else 1.5)  # statistics are a second old
            found = await asyncio.to_thread(instance.status)
            gone = sum(recorder["acknowledged"] for recorder in found["recorders"])
            await until(lambda: _can_create(victim), "the topic to be made again")
            await told(instance, "ok")
            await more.go_on()
        assert people.failures == more.failures == []
        total = before + len(more.answers)
        await settled(instance, total)
        ids, _ = await asyncio.to_thread(stored, victim, total - gone - _ON_THE_WAY)
        # What was acknowledged before the deletion went with the topic; the ledger has said how many.
        assert total - gone - _ON_THE_WAY <= len(ids) <= total - gone


def _can_create(victim: Broker) -> bool:
    """Return whether the topic could be created; a deleted one is in the way for a moment."""
    try:
        create_topic(victim.bootstrap, TOPIC)
    except Exception as exc:
        if "exists" not in str(exc):
            raise
        return False
    return True
