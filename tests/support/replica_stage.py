"""Several replicas on one broker: real instances that agree on weights, kills and ramps.

    with replicas(broker.bootstrap, tmp_path, config) as (a, b, c):
        a.admin("POST", "/api/v1/kill", {"reason": "test"})

`created` makes the topics that they need, with the settings that `understudy topics create` gives.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from proxy.config.resolved import Kafka
from proxy.kafka.cluster import connect
from proxy.recorder.topics import Asked, make_topics
from proxy.state.control_page import ControlState, open_page
from proxy.telemetry import monotonic_s
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.instance import Instance, running

NAMES = ("a", "b", "c")
#: Of a broker that lets a lead pass on sooner than the usual 6 s.
BROKER_SETTINGS = {
    "auto.create.topics.enable": "false",
    "group.min.session.timeout.ms": "500",
}
TAKEOVER_S = 1.5


def created(bootstrap: str, prefix: str) -> None:
    """Make the topics of `prefix`; return when they are there."""

    async def make() -> None:
        async with connect(Kafka((bootstrap,), prefix, {})) as cluster:
            found = await make_topics(
                cluster, prefix, Asked(partitions=1), servers=bootstrap, is_rehearsal=False
            )
        assert not [each.message for each in found if each.fate == "failed"], found

    asyncio.run(make())


@contextmanager
def replicas(
    bootstrap: str, folder: Path, config: Mapping[str, Any], prefix: str = "shadow"
) -> Iterator[tuple[Instance, ...]]:
    """Run an instance for each of `NAMES`, joined, until the end of the block."""
    with ExitStack() as stack, ThreadPoolExecutor(len(NAMES)) as pool:
        starting = []
        for name in NAMES:
            (folder / name).mkdir()
            instance = running(
                replica_config(bootstrap, name, config, prefix),
                folder / name,
                wait_healthy=False,
            )
            starting.append(pool.submit(_entered, instance))
        for future in starting:
            stack.callback(future.result()[0])
        found = [future.result()[1] for future in starting]
        wait_for(
            lambda: all(standing(each)["state"] == "connected" for each in found), "all of them"
        )
        yield tuple(found)


def _entered(
    context: AbstractContextManager[Instance],
) -> tuple[Callable[[], object], Instance]:
    """Enter a context; return what leaves it, and what it gives."""
    instance = context.__enter__()
    return lambda: context.__exit__(None, None, None), instance


def replica_config(
    bootstrap: str, name: str, config: Mapping[str, Any], prefix: str = "shadow"
) -> dict[str, Any]:
    """Return the config of one replica."""
    return {
        "instance": name,
        "workers": 2,
        "record": {"kafka": {"bootstrap_servers": [bootstrap], "topic_prefix": prefix}},
        "replicas": {"group": "test", "takeover": f"{TAKEOVER_S}s"},
        "limits": {"shutdown": "4s"},
        **config,
    }


def standing(instance: Instance) -> dict[str, Any]:
    """Return how a replica says that it stands."""
    found: dict[str, Any] = instance.status()["replicas"]
    return found


def live(instance: Instance) -> ControlState:
    """Return what a replica's control page says."""
    page = open_page(instance.state_dir)
    try:
        return page.read()
    finally:
        page.close()


def generation(instance: Instance) -> int:
    """Return the generation of a replica's control page."""
    page = open_page(instance.state_dir)
    try:
        return page.generation()
    finally:
        page.close()


class PageClock:
    """Notes when the control page of an instance first says something; looks each millisecond."""

    def __init__(self, instance: Instance, says: Callable[[ControlState], bool]) -> None:
        self.at_s = 0.0
        self._page = open_page(instance.state_dir)
        self._says = says
        self._is_over = False
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def wait(self, timeout_s: float = PATIENCE_S) -> float:
        """Return the time (monotonic) at which it did."""
        self._thread.join(timeout_s)
        self._is_over = True
        assert self.at_s, "the page does not say so"
        self._page.close()
        return self.at_s

    def _look(self) -> None:
        seen = -1
        while not self._is_over:
            generation, now_s = self._page.generation(), monotonic_s()
            if generation != seen and self._says(self._page.read()):
                self.at_s = now_s
                return
            seen = generation
            time.sleep(0.001)


def order(instance: Instance, method: str, path: str, body: Mapping[str, Any]) -> float:
    """Give an order that must be carried out; return when it was sent (monotonic)."""
    connection = http.client.HTTPConnection(instance.runtime["admin"], timeout=PATIENCE_S)
    body = {**body, "seen_generation": generation(instance)}
    try:
        connection.connect()
        sent_s = monotonic_s()
        connection.request(method, path, json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
    finally:
        connection.close()
    assert answer.status == 200, said
    return sent_s
