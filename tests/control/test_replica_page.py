"""Replicas with real control pages and a topic that is a list: whatever happens, they agree in the end.

Orders come to any of them at any time, messages arrive late, what is sent may be lost, control may die
and start again, and the topic may be compacted: in the end all pages say the same, and a kill that
nobody has revived since holds on all of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from proxy.control.replica_page import ReplicaPage
from proxy.replicas.messages import Message, Origin, decode, encode
from proxy.replicas.shared import Shared
from proxy.state import decisions
from proxy.state.control_page import Part, for_config, open_page, update
from proxy.state.joining import HOLD_NOTE, held, is_held
from proxy.state.kill import Scope, WeightError
from proxy.state.orders import Source, order_kill, order_revive, order_weight
from tests.support.resolved_config import small_config

SCOPES = (Scope(), Scope("iris"), Scope("iris", "v2"))


class Replica:
    """One replica: its page, and how much of the topic it has read."""

    def __init__(self, name: str, folder: Path, topic: list[bytes]) -> None:
        self.name = name
        self.folder = folder
        self.topic = topic
        folder.mkdir()
        self.page = open_page(folder, create=True)
        config = small_config(folder)
        update(self.page, lambda before: for_config(config, before))
        self._lives = count()
        self._times = count(1_000)
        self.start(topic)

    def start(self, topic: list[bytes]) -> None:
        """Let control start: it has forgotten all but what it wrote down."""
        self.shared, self.read, self.life = Shared(), 0, f"{self.name}{next(self._lives)}"
        self.replica = ReplicaPage(self.folder, lambda: self.page, self.shared, self.origin)
        self.topic = topic

    def origin(self, who: str, via: str, reason: str) -> Origin:
        """Make the origin of a message."""
        return Origin(self.name, self.life, 0, who, via, reason)

    def source(self) -> Source:
        """Return who gives an order here, each time another one."""
        now_ms = next(self._times)
        return Source(f"{self.name}'s operator", "api", f"order {now_ms} at {self.name}", now_ms)

    def hear(self, messages: int = 10**6) -> None:
        """Read so many messages; act on them only at the end of the topic."""
        fresh = self.topic[self.read : self.read + messages]
        for data in fresh:
            message = decode(data)
            holds = self.shared.take(message)
            if message.origin.life == self.life:
                self.replica.came_back(message, holds=holds)
        self.read += len(fresh)

    def act(self) -> list[Message]:
        """Bring page and topic together; return what is to be sent."""
        return self.replica.reconcile()

    def look(self, *, is_lost: bool = False) -> None:
        """Read all, act, and send; or lose what is sent, and the line with it."""
        self.hear()
        messages = self.act()
        if is_lost:
            self.replica.forget_pending()
        else:
            self.topic += map(encode, messages)

    def told(self) -> tuple[object, ...]:
        """Return what the page says."""
        state = self.page.read()
        routes = tuple((name, r.killed, tuple((k, c.killed, c.weight_bp) for k, c in r.candidates.items()))
                       for name, r in state.routes.items())  # fmt: skip
        return (state.killed, routes)


@contextmanager
def stage(names: str) -> Iterator[list[Replica]]:
    """Give replicas on one topic."""
    topic: list[bytes] = []
    with tempfile.TemporaryDirectory() as folder:
        found = [Replica(name, Path(folder) / name, topic) for name in names]
        yield found
        for each in found:
            each.page.close()


def agree(replicas: list[Replica]) -> None:
    """Let all look until nothing is sent any more."""
    for _ in range(20):
        before = len(replicas[0].topic)
        for each in replicas:
            each.look()
        for message in replicas[0].shared.unsettled(replicas[0].origin("", "", "")):
            replicas[0].topic.append(encode(message))
        if len(replicas[0].topic) == before:
            return
    raise AssertionError("they go on for ever")


def compacted(topic: list[bytes]) -> list[bytes]:
    """Return the latest message of each key."""
    latest = {decode(data).key: data for data in topic}
    return [data for data in topic if latest[decode(data).key] is data]


@pytest.fixture
def pair() -> Iterator[list[Replica]]:
    """Two replicas that have joined."""
    with stage("ab") as found:
        agree(found)
        yield found


def test_an_order_given_anywhere_is_carried_out_everywhere(pair: list[Replica]) -> None:
    """With who gave it, and where, in the decisions of the others."""
    one, other = pair
    order_kill(one.page, Scope("iris", "v2"), Part.CANARY, one.source())
    order_weight(one.page, Scope("iris", "v3"), 500, one.source())
    agree(pair)
    assert other.told() == one.told()
    assert other.page.read().routes["iris"].candidates["v2"].killed == Part.CANARY
    logged = {each["action"]: each for each in decisions.read_last(other.folder, 10)}
    assert logged["kill"]["who"] == "replica a"
    assert logged["kill"]["note"] == "given there by a's operator"
    assert logged["kill"]["reason"] == "order 1000 at a"
    assert (logged["weight"]["old"], logged["weight"]["new"]) == (0, 500)
    order_revive(other.page, Scope(), Part.DEFAULT, other.source())
    agree(pair)
    assert one.page.read().routes["iris"].candidates["v2"].killed == Part.NONE
    assert decisions.read_last(one.folder, 1)[0]["action"] == "revive"


def test_a_remote_kill_refuses_a_revive_that_has_not_seen_it(pair: list[Replica]) -> None:
    """As a kill on the spot does: the page remembers when the last kill came."""
    one, other = pair
    seen = other.page.generation()
    order_kill(one.page, Scope(), Part.DEFAULT, one.source())
    agree(pair)
    assert other.page.read().kill_generation > seen


def test_a_kill_while_control_is_dead_is_told_at_its_next_start(pair: list[Replica]) -> None:
    """Also when it was killed before, and somebody has revived it meanwhile."""
    one, other = pair
    order_kill(one.page, Scope(), Part.DEFAULT, one.source())
    agree(pair)
    order_kill(
        one.page, Scope(), Part.DEFAULT, one.source()
    )  # control of `one` does not look any more
    order_revive(other.page, Scope(), Part.DEFAULT, other.source())
    other.look()
    one.start(one.topic)
    agree(pair)
    assert one.page.read().killed == other.page.read().killed == Part.DEFAULT


def test_a_replica_that_joins_starts_from_the_topic(pair: list[Replica], tmp_path: Path) -> None:
    """It is held until it has read it, and takes weights and kills from it, compacted or not."""
    one, _ = pair
    order_weight(one.page, Scope("iris", "v2"), 2_500, one.source())
    order_kill(one.page, Scope("iris", "v3"), Part.MIRROR, one.source())
    agree(pair)
    for topic in (one.topic, compacted(one.topic)):
        third = Replica("c", tmp_path / str(len(topic)), topic)
        update(third.page, lambda state, folder=third.folder: held(state, folder))  # type: ignore[misc]
        assert third.page.read().killed == Part.DEFAULT
        third.look()
        assert third.told() == one.told()
        assert HOLD_NOTE not in third.page.read().notes.values()
        assert len(third.topic) == len(topic)
        third.page.close()


def test_a_kill_during_the_hold_is_a_kill(tmp_path: Path) -> None:
    """It stays when the hold is opened."""
    only = Replica("a", tmp_path / "a", [])
    update(only.page, lambda state: held(state, only.folder))
    order_kill(only.page, Scope(), Part.DEFAULT, only.source())
    assert not is_held(only.page.read())
    agree([only])
    assert only.page.read().killed == Part.DEFAULT
    only.page.close()


def test_a_replica_that_has_agreed_before_is_not_held(pair: list[Replica]) -> None:
    """After a restart it goes on with what it had."""
    one = pair[0]
    assert held(one.page.read(), one.folder) == one.page.read()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ("kill", "kill", "revive", "weight", "look", "look", "lose", "die", "hear")
        ),
        st.integers(0, 2),
        st.integers(0, 11),
    ),
    max_size=30,
)


@settings(max_examples=40)
@given(steps=STEPS, last=st.integers(0, 2), is_compacted=st.booleans())
def test_they_agree_whatever_happens(
    steps: list[tuple[str, int, int]], last: int, is_compacted: bool
) -> None:
    """And the last kill, which nobody revives after it, holds on every page."""
    with stage("abc") as replicas:
        for what, who, number in steps:
            take_step(replicas[who], what, number)
        order_kill(replicas[last].page, SCOPES[2], Part.DEFAULT, replicas[last].source())
        replicas[last].replica.forget_pending()
        agree(replicas)
        assert len({each.told() for each in replicas}) == 1
        found = replicas[0].page.read().routes["iris"].candidates["v2"].killed
        assert found & Part.DEFAULT == Part.DEFAULT
        if is_compacted:
            replicas[0].start(compacted(replicas[0].topic))
            replicas[0].look()
            assert replicas[0].told() == replicas[1].told()


def take_step(replica: Replica, what: str, number: int) -> None:
    """Do one thing to one replica."""
    scope, part = (
        SCOPES[number % 3],
        (Part.MIRROR, Part.CANARY, Part.RECORD, Part.DEFAULT)[number % 4],
    )
    if what == "kill":
        order_kill(replica.page, scope, part, replica.source())
    elif what == "revive":
        order_revive(replica.page, scope, part, replica.source())
    elif what == "weight":
        try:
            order_weight(
                replica.page,
                Scope("iris", ("v2", "v3")[number % 2]),
                number * 900,
                replica.source(),
            )
        except WeightError:
            return
    elif what == "hear":
        replica.hear(number)
    elif what == "die":
        replica.start(replica.topic)
    else:
        replica.look(is_lost=what == "lose")
