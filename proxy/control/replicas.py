"""One replica among others: it tells and hears, leads or follows, and knows when it is cut off.

What messages mean is `proxy.replicas`'; the page beside them is `replica_page`'s, the line `replica_link`'s,
ramps `shared_ramps`'. This module holds them together:

- A change of the page is told within `LOOK_S`; what comes is put on the page at once, and nothing
  before all that is in the topic has been read.
- Each replica beats. One whose own beats of the last `takeover` have not come back is *cut off*
  (`proxy.replicas.lease`): it keeps what it has, raises nothing, leads nothing, and obeys whoever kills
  here. After the same time without the leader its group gives the lead to another.
- One that has stood still for long reads all that has come before it does anything else.
- Who gets the group's only partition claims the lead with a message, and leads once that has come
  back: by then it has read whatever the leader before it decided.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from proxy.config.resolved import Config, ReplicaGroup
from proxy.control.replica_link import MAX_BYTES, ReplicaLink
from proxy.control.replica_page import ReplicaPage
from proxy.control.small_files import replace_json
from proxy.errors import StateError
from proxy.replicas.asides import Aside, Asides, decode as decode_aside, encode as encode_aside
from proxy.replicas.lease import Lease
from proxy.replicas.messages import (
    KEY_WORDS,
    Beat,
    Counted,
    Kill,
    Lead,
    Message,
    Origin,
    Weight,
    decode,
    encode,
)
from proxy.replicas.shared import Shared
from proxy.state.control_page import ControlPage
from proxy.telemetry import monotonic_s, uptime_s, wall_ns

logger = logging.getLogger("understudy.control")

SEEN_NAME: Final = "replicas-seen.json"
#: How often the page is looked at; a look takes a microsecond.
LOOK_S: Final = 0.02
#: What could not be put on the page is tried again this often.
RETRY_S: Final = 1.0
#: Beats within the time after which a replica is cut off.
_BEATS: Final = 4
#: Of one ramp, until they are handed over; that is at once, where the config has the ramp.
_MOST_HAPPENED: Final = 32
#: A clock may be set back by this much without a replica being taken for two.
_SKEW_MS: Final = 2_000


class Follower(Protocol):
    """Who follows the ramps that are agreed on."""

    def adopt(self, holds: Weight, happened: list[Weight]) -> None:
        """Take over what holds of a ramp, after what happened to it in this order."""


class Replicas:
    """This replica.

    Attributes:
        shared: what all have agreed on.
        asides: what they have told each other beside that.
        instance: its name.
        life: of this control process.
    """

    def __init__(
        self, config: Config, group: ReplicaGroup, page: Callable[[], ControlPage]
    ) -> None:
        assert config.record.kafka is not None  # cross_checks says so
        self.shared = Shared()
        self.asides = Asides()
        self.instance = config.instance
        self.life = os.urandom(8).hex()
        self.follower: Follower | None = None
        self._group = group
        self._version = config.version
        self._names = _names(config)
        self._state_dir = Path(config.state_dir)
        self._page = ReplicaPage(self._state_dir, page, self.shared, self.origin)
        self._link = ReplicaLink(config.record.kafka, group.group, group.takeover_s, self)
        self._began_ms = wall_ns() // 1_000_000
        self._generation = -1
        self._is_dirty = False
        self._retry_s = 0.0
        self._happened: dict[str, list[Weight]] = {}
        self._claim = 0
        self._beat_number = 0
        self._next_beat_s = 0.0
        self._has_beaten = False
        self._lease = Lease(group.takeover_s)
        self._heard_s: dict[str, float] = {}
        self._twin_s: float | None = None
        self._told_state: tuple[bool, bool] | None = None
        self._unread = self._unknown = 0
        self._seen: dict[str, Any] = {}

    def follow(self, config: Config) -> None:
        """Run another config; a line to other brokers is made with the next beginning."""
        self._version = config.version
        self._names = _names(config)
        if config.record.kafka is not None:
            self._link.kafka = config.record.kafka
        self._is_dirty = True

    def origin(self, who: str, via: str, reason: str) -> Origin:
        """Return the origin of a message of now."""
        return Origin(self.instance, self.life, wall_ns() // 1_000_000, who, via, reason)

    async def run(self) -> None:
        """Tell and hear until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._link.run())
            while True:
                try:
                    self.look()
                except Exception:
                    logger.exception("a look at the replicas failed")
                await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Look at page and time once, and do what is due."""
        self.awoke()
        now_s = monotonic_s()
        is_retry = bool(self._page.trouble) and now_s >= self._retry_s
        if self._is_dirty or is_retry or self._page.generation() != self._generation:
            self._reconcile()
        if now_s >= self._next_beat_s or (self._link.is_caught_up and not self._has_beaten):
            self._next_beat_s = now_s + self._group.takeover_s / _BEATS
            self._beat()
            self._told_state = None
        if self._told_state != (self.is_connected, self.leads):
            self._tell()
        if self._link.may_lead and self.is_connected and not self._claim and not self._is_leader:
            self._claim = self.shared.term + 1
            self._send(Lead(self._claim, self.origin("", "", "")))

    @property
    def is_connected(self) -> bool:
        """Whether what this replica tells comes back to it."""
        return self._link.is_caught_up and self._lease.holds(uptime_s())

    @property
    def leads(self) -> bool:
        """Whether this replica decides the steps of ramps."""
        return self._is_leader and self._link.may_lead and self.is_connected

    @property
    def leader(self) -> str:
        """The replica that got the lead last; empty before the first."""
        return self.shared.leader

    def refusal(self) -> str:
        """Return why nothing can be raised here; empty when it can."""
        if self.is_connected:
            return ""
        word = (
            "has not joined the other replicas yet"
            if self._lease.age_s(uptime_s()) is None
            else "is cut off from the other replicas"
        )
        return f"this replica {word} ({self._link.trouble or 'its messages do not come back'})"

    def living(self) -> dict[str, Beat]:
        """Return the latest beat of each replica that lives."""
        limit_s = monotonic_s() - self._group.takeover_s
        return {
            name: beat
            for name, beat in self.shared.beats.items()
            if self._heard_s.get(name, limit_s) > limit_s
        }

    def is_settled(self, name: str) -> bool:
        """Return whether page and replicas agree on a candidate, and nothing of it is on its way."""
        return self._page.is_settled(name)

    def propose(self, message: Weight) -> None:
        """Tell a ramp's next state; it holds when it comes back, if nothing else came first."""
        before = self.shared.weights.get(message.name)
        revision = 1 if before is None else before.revision + 1
        message = replace(message, revision=revision)
        self._page.propose(message)
        self._send(message)

    def proposed(self, name: str) -> int:
        """Return the revision of what was told last of a candidate and is on its way, else 0."""
        return self._page.pending_revision(name)

    def is_under_way(self, name: str) -> bool:
        """Return whether what was told of a candidate has not come back yet."""
        return bool(self._page.pending_revision(name))

    def is_ours(self, message: Message) -> bool:
        """Return whether a message is of this control process."""
        return message.origin.life == self.life

    def tell(self, message: Counted | Aside) -> None:
        """Tell what this replica's recorders have counted, or an aside; without a line it is forgotten."""
        self._send(message)

    def awoke(self) -> None:
        """Notice a long stop of this process: until all that has come is read, nothing is done."""
        if self._lease.look(uptime_s()):
            self._link.doubt()

    def took(self, key: bytes, value: bytes | None) -> None:
        """Take the next message of the topic."""
        group, _, rest = key.decode("utf-8", "replace").partition("/")
        if group != self._group.group:
            return
        if value is None:
            self.shared.forget(rest)
            self.asides.forget(rest)
            return
        try:
            if self.asides.takes(rest):
                self.asides.take(decode_aside(value))
                return
            if rest.partition("/")[0] not in KEY_WORDS:
                self._unknown += 1
                return
            message = decode(value)
        except ValueError:
            self._unread += 1
            return
        holds = self.shared.take(message)
        self._is_dirty = self._is_dirty or isinstance(message, Kill | Weight)
        if message.origin.life == self.life:
            self._came_back(message, holds=holds)
        if isinstance(message, Beat):
            self._note_beat(message)
        if isinstance(message, Weight) and holds and message.event:
            happened = self._happened.setdefault(message.name, [])
            happened.append(message)
            del happened[:-_MOST_HAPPENED]

    def ended(self) -> None:
        """Act on what has come."""
        if self._is_dirty:
            self._reconcile()

    def began_anew(self, *, has_lost_log: bool) -> None:
        """Decide again what must be told."""
        self._claim = 0
        self._page.forget_pending()
        if has_lost_log:
            self.shared.lose_log()
            self.asides.lose_log()
        self._is_dirty = True

    @property
    def _is_leader(self) -> bool:
        return self.shared.lead is not None and self.shared.lead.origin.life == self.life

    def _came_back(self, message: Message, *, holds: bool) -> None:
        self._page.came_back(message, holds=holds)
        if isinstance(message, Beat):
            self._lease.came_back(message.number)
            self._link.echoed_s = monotonic_s()
        if isinstance(message, Lead):
            self._claim = 0

    def _note_beat(self, beat: Beat) -> None:
        """Note when a replica was heard; what was in the topic before us was heard by others then."""
        age_ms = 0 if self._link.is_caught_up else wall_ns() // 1_000_000 - beat.origin.at_ms
        self._heard_s[beat.origin.instance] = monotonic_s() - max(0, age_ms) / 1000
        is_twin = beat.origin.instance == self.instance and beat.origin.life != self.life
        if is_twin and beat.origin.at_ms > self._began_ms + _SKEW_MS:
            self._twin_s = monotonic_s()

    def _reconcile(self) -> None:
        """Bring page and replicas together, as far as there is a line."""
        if not self._link.is_caught_up:
            self._generation = -1
            return
        self._is_dirty = False
        for message in self._page.reconcile():
            self._send(message)
        self._generation = self._page.generation()
        self._retry_s = monotonic_s() + RETRY_S
        if self.follower is not None:
            self._adopt(self.follower)

    def _adopt(self, follower: Follower) -> None:
        """Hand over the ramps that have changed, and are on the page."""
        adopted = self._page.base.ramps
        for name, holds in self.shared.weights.items():
            on_page = self._page.base.weights.get(name)
            if (
                adopted.get(name) == holds.revision
                or on_page is None
                or on_page.revision != holds.revision
            ):
                continue
            happened = [
                each
                for each in self._happened.pop(name, [])
                if each.revision > adopted.get(name, 0)
            ]
            follower.adopt(holds, happened)
            adopted[name] = holds.revision
        self._page.store()

    def _beat(self) -> None:
        """Beat; and if this replica leads, keep the topic in order."""
        self._beat_number += 1
        self._has_beaten = self._link.is_caught_up
        origin = self.origin("", "", "")
        self._lease.sent(self._beat_number, uptime_s())
        self._send(Beat(self._beat_number, self._version, origin))
        if self.leads:
            for message in (*self.shared.unsettled(origin), *self._orphans()):
                self._send(message)
            gone = self.asides.gone(origin.at_ms, self.living(), self._version)
            for key in [*self.shared.gone(origin.at_ms), *gone]:
                self._link.send(f"{self._group.group}/{key}".encode(), None)

    def _orphans(self) -> list[Message]:
        """Return what ends the weights of candidates that no config has, once all run the same."""
        if any(beat.config_version != self._version for beat in self.living().values()):
            return []
        origin = self.origin("control", "config", "no config has this candidate any more")
        return self.shared.orphans(self._names, origin)

    def _send(self, message: Message | Aside) -> None:
        data = encode_aside(message) if isinstance(message, Aside) else encode(message)
        if len(data) > MAX_BYTES and isinstance(message, Weight) and message.evidence is not None:
            data = encode(replace(message, evidence=None))
        if len(data) > MAX_BYTES:
            logger.error("%s is too large to be told to the other replicas", message.key)
            return
        self._link.send(f"{self._group.group}/{message.key}".encode(), data)

    def _tell(self) -> None:
        """Write down how this replica stands, for status and metrics; losing it costs nothing."""
        self._told_state = self.is_connected, self.leads
        with suppress(StateError):
            content = orjson.dumps(self.statistics())
            replace_json(self._state_dir / SEEN_NAME, content, is_synced=False)

    def statistics(self) -> dict[str, Any]:
        """Return how this replica stands among the others."""
        now_s, living = monotonic_s(), self.living()
        age_s = self._lease.age_s(uptime_s())
        state = "connected" if self.is_connected else "joining" if age_s is None else "cut_off"
        is_twin = self._twin_s is not None and now_s - self._twin_s < 3 * self._group.takeover_s
        return {
            "updated_ms": wall_ns() // 1_000_000,
            "state": state,
            "group": self._group.group,
            "leader": self.leader,
            "leads": self.leads,
            "term": self.shared.term,
            "silent_s": None if age_s is None else round(age_s, 1),
            "trouble": self._link.trouble,
            "lead_trouble": self._link.lead_trouble,
            "page_trouble": self._page.trouble,
            "has_twin": is_twin,
            "unread": self._unread,
            "unknown": self._unknown,
            "replicas": [
                {
                    "instance": name,
                    "lives": name in living,
                    "heard_s": round(now_s - self._heard_s.get(name, now_s), 1),
                    "config_version": beat.config_version,
                }
                for name, beat in sorted(self.shared.beats.items())
            ],
        }


def _names(config: Config) -> frozenset[str]:
    """Return `route/candidate` of every candidate."""
    return frozenset(
        f"{route.name}/{each.name}" for route in config.routes for each in route.candidates
    )
