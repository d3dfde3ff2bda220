"""Replicas that drive ramps together, ticked by hand: real pages and drivers, a topic that is a list."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import orjson

from proxy.config.resolved import Config, Kafka, ReplicaGroup
from proxy.control.judging import Judging
from proxy.control.ramps import Ramps
from proxy.control.replica_link import ReplicaLink
from proxy.control.replicas import Replicas
from proxy.control.shared_ramps import SharedRampDriver
from proxy.telemetry import monotonic_s
from tests.control.ramp_stage import Stage, ramp_config

GROUP = ReplicaGroup("g", 60.0)
#: Counts of so much later are of a step that begins now: it begins when all have its weight.
LATER_MS = -3_000

Topic = list[tuple[bytes, bytes | None]]


class Line:
    """What `ReplicaLink` is to a replica, over a list.

    Attributes:
        read: how much of the topic was handed over.
    """

    def __init__(self, topic: Topic) -> None:
        self.topic = topic
        self.read = 0
        self.is_caught_up = self.may_lead = False
        self.trouble = self.lead_trouble = ""
        self.echoed_s = 0.0

    def send(self, key: bytes, value: bytes | None) -> None:
        """Write it at once; without a line it is forgotten."""
        if self.is_caught_up:
            self.topic.append((key, value))

    def doubt(self) -> None:
        """Read first."""
        self.is_caught_up = self.may_lead = False


class Member(Stage):
    """One replica, with the ramp of `ramp_config`.

    Attributes:
        is_paced: gates are told once a second at most; else with each tick.
    """

    is_paced = False

    def __init__(self, config: Config, topic: Topic) -> None:
        self.topic = topic
        super().__init__(config)

    def restart(self) -> None:
        """Let control die and come back: it has forgotten all but what it wrote down."""
        assert self.config.replicas is not None
        self.line = Line(self.topic)
        self.replicas = Replicas(self.config, self.config.replicas, self.give_page)
        self.replicas._link = cast(ReplicaLink, self.line)
        self.ramps = Ramps(
            self.config,
            self.give_page,
            Judging(is_threaded=False),
            lambda _: self.found,
            self.replicas,
        )
        assert isinstance(self.ramps.driver, SharedRampDriver)
        assert self.ramps._webhooks is not None
        self.driver, self.webhooks = self.ramps.driver, self.ramps._webhooks

    def hear(self) -> None:
        """Read to the end of the topic, and act on it."""
        fresh = self.topic[self.line.read :]
        self.line.read += len(fresh)
        self.replicas.awoke()
        for key, value in fresh:
            self.replicas.took(key, value)
        self.line.is_caught_up = True
        self.replicas.ended()
        self.line.echoed_s = monotonic_s()

    def tick(self) -> None:
        """Read, look and drive once; what it may tell once a second it may tell now."""
        self.hear()
        self.replicas._next_beat_s = 0.0
        self.replicas.look()
        self.hear()
        assert isinstance(self.driver, SharedRampDriver)
        self.driver._next_tell_s = self.driver._own._next_keys_s = 0.0
        if not self.is_paced:
            self.driver._gates._next_s.clear()
        self.driver.tick()
        self.hear()

    def seen(self) -> dict[str, Any]:
        """Return what its status says of the ramp."""
        found: dict[str, Any] = orjson.loads((self.state_dir / "ramps-seen.json").read_bytes())
        return cast(dict[str, Any], found["iris/v2"])


@contextmanager
def members(folder: Path, names: str = "ab", **ramp: Any) -> Iterator[list[Member]]:
    """Give replicas that have joined; the first one leads."""
    topic: Topic = []
    found = []
    for name in names:
        config = ramp_config(folder / name, **ramp)
        record = replace(
            config.record, kafka=Kafka(("127.0.0.1:1",), "shadow", {}), hash_key="secret"
        )
        (folder / name).mkdir()
        found.append(Member(replace(config, instance=name, replicas=GROUP, record=record), topic))
    for each in found:
        each.tick()
    lead(found, found[0])
    yield found
    for each in found:
        each.close()


def lead(found: list[Member], leader: Member) -> None:
    """Let the group give the lead to one of them."""
    for each in found:
        each.line.may_lead = each is leader
    settle(found)
    assert leader.replicas.leads


def settle(found: list[Member]) -> None:
    """Let all look until nothing happens any more but beats."""
    for _ in range(5):
        for each in found:
            each.tick()
