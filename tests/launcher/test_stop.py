"""The order and the deadlines of a stop, by a clock that the test moves."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from proxy.launcher.children import Role
from proxy.launcher.stop import BRIEF_S, KILLED_S, Stop
from proxy.launcher.supervisor import Supervisor
from tests.support.resolved_config import small_config

LIMIT_S = 100.0
LIMITS = replace(small_config(Path("nowhere")).limits, shutdown_s=LIMIT_S)
BEGAN_S = 7.0


class Tree:
    """What `Supervisor` is to a stop, over children that do as the test says.

    Attributes:
        deaf: those that do not listen to SIGTERM.
        sent: the signals of the stop, by whom they were for.
    """

    def __init__(self, *deaf: Role) -> None:
        self.deaf = set(deaf)
        self.alive = set(Role)
        self.retired: set[Role] = set()
        self.sent: list[tuple[Role, signal.Signals]] = []

    def retire(self, role: Role) -> None:
        """Keep it."""
        self.retired.add(role)

    def send(self, role: Role, number: signal.Signals) -> None:
        """Deliver it to whoever lives."""
        if role in self.alive:
            self.sent.append((role, number))
            if number == signal.SIGKILL or role not in self.deaf:
                self.alive.remove(role)

    def living(self, role: Role) -> dict[int, int]:
        """Return the one child of a role while it lives."""
        return {0: 1} if role in self.alive else {}


def stopping(tree: Tree) -> Stop:
    """Return a stop that has begun."""
    stop = Stop(cast(Supervisor, tree), LIMITS)
    stop.request(BEGAN_S, "SIGTERM")
    assert tree.retired == set(Role)
    return stop


def sent_at(stop: Stop, tree: Tree, by: signal.Signals = signal.SIGKILL) -> dict[Role, float]:
    """Let time go on until all have stopped; return when whom a signal was sent to, from the beginning."""
    found: dict[Role, float] = {}
    for step in range(10 * int(LIMIT_S + KILLED_S)):
        stop.advance(BEGAN_S + step / 10)
        for role, number in tree.sent:
            if number == by:
                found.setdefault(role, step / 10)
        if stop.is_over:
            return found
    raise AssertionError(f"it never ends: {stop.phase}")


def test_whoever_listens_is_told_in_order_and_nobody_is_killed() -> None:
    """Each is told when the one before it has gone; all of it may happen in one look."""
    tree = Tree()
    assert sent_at(stopping(tree), tree) == {}
    order = (Role.WORKER, Role.RECORDER, Role.CONTROL)
    assert tree.sent == [(role, signal.SIGTERM) for role in order]


@pytest.mark.parametrize(
    ("deaf", "killed"),
    [
        ([Role.WORKER], {Role.WORKER: 75.0}),
        ([Role.RECORDER], {Role.RECORDER: 90.0}),
        ([Role.CONTROL], {Role.CONTROL: 100.0}),
        ([*Role], {Role.WORKER: 75.0, Role.RECORDER: 90.0, Role.CONTROL: 100.0}),
    ],
)
def test_whoever_will_not_stop_is_killed_at_its_share_of_the_time(
    deaf: list[Role], killed: dict[Role, float]
) -> None:
    """In time for the next ones, so that the whole ends within `limits.shutdown`."""
    tree = Tree(*deaf)
    assert sent_at(stopping(tree), tree) == killed
    assert tree.alive == set()


def test_a_second_signal_tells_everybody_at_once_and_gives_a_second_each() -> None:
    """The shares of a long shutdown count no more."""
    tree = Tree(*Role)
    stop = stopping(tree)
    stop.request(BEGAN_S, "SIGINT")
    assert set(tree.sent[1:]) == {(role, signal.SIGTERM) for role in Role}
    assert max(sent_at(stop, tree).values()) <= 3 * BRIEF_S + 0.3


@pytest.mark.parametrize("others", [[], [Role.WORKER]])
def test_recorders_are_told_once_when_to_leave_the_rest(others: list[Role]) -> None:
    """They may take all that workers left, and have some time still to put things in order."""
    tree = Tree(Role.RECORDER, *others)
    stop = stopping(tree)
    assert sent_at(stop, tree, signal.SIGALRM) == {Role.RECORDER: 87.0}
    assert tree.sent.count((Role.RECORDER, signal.SIGALRM)) == 1


def test_recorders_in_a_hurry_are_told_within_the_second() -> None:
    """It counts from when the workers have gone: what these flush last is still shipped."""
    tree = Tree(*Role)
    stop = stopping(tree)
    stop.request(BEGAN_S, "SIGINT")
    told = sent_at(stop, tree, signal.SIGALRM)[Role.RECORDER]
    assert BRIEF_S < told < 2 * BRIEF_S
