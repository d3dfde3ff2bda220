"""How old what a replica knows may be: as old as the latest beat that came back, by when it was sent."""

from __future__ import annotations

from hypothesis import given, strategies as st

from proxy.replicas.lease import STOP, Lease

LENGTH_S = 6.0


def test_a_beat_that_comes_back_renews_the_lease_from_when_it_was_sent() -> None:
    """However late it comes, and the later ones count."""
    lease = Lease(LENGTH_S)
    assert not lease.holds(0.0)
    assert lease.age_s(0.0) is None
    for number, sent_s in ((1, 0.0), (2, 1.5), (3, 3.0)):
        lease.sent(number, sent_s)
    lease.came_back(2)
    assert lease.holds(1.5 + LENGTH_S)
    assert not lease.holds(1.6 + LENGTH_S)
    lease.came_back(1)  # one that was overtaken says nothing
    lease.came_back(3)
    assert lease.age_s(4.0) == 1.0
    assert lease.holds(3.0 + LENGTH_S)


def test_an_old_beat_that_comes_out_of_a_socket_after_a_stop_renews_nothing() -> None:
    """It says how things were before: only one that was sent since says how they are."""
    lease = Lease(LENGTH_S)
    lease.look(0.0)
    lease.sent(1, 0.0)
    assert lease.look(3.5)
    lease.came_back(1)
    assert not lease.holds(3.5)
    lease.sent(2, 3.5)
    lease.came_back(2)
    assert lease.holds(3.6)


def test_whoever_asks_first_after_a_stop_is_told_no() -> None:
    """Also when nobody has looked yet: a tick may come before all else."""
    lease = Lease(LENGTH_S)
    lease.look(0.0)
    lease.sent(1, 0.0)
    lease.came_back(1)
    assert lease.holds(STOP * LENGTH_S)
    assert not lease.holds(STOP * LENGTH_S + 0.1)
    assert not lease.look(STOP * LENGTH_S)
    assert lease.look(2 * STOP * LENGTH_S + 0.1)


@given(st.lists(st.tuples(st.sampled_from(["look", "beat", "echo", "stop"]), st.floats(0.0, 2.0))))
def test_a_lease_holds_only_on_a_beat_of_the_time_and_of_after_the_last_stop(
    steps: list[tuple[str, float]],
) -> None:
    """Whatever happens in which order."""
    lease, now_s, number, woke_s = Lease(LENGTH_S), 0.0, 0, 0.0
    on_their_way: list[tuple[int, float]] = []
    echoed_s = float("-inf")
    lease.look(now_s)
    for what, pause_s in steps:
        if what == "stop":
            now_s += LENGTH_S * STOP + 0.001 + pause_s
            woke_s = now_s
            assert not lease.holds(now_s)
            assert lease.look(now_s)
            continue
        now_s += pause_s
        assert not lease.look(now_s)
        if what == "beat":
            number += 1
            lease.sent(number, now_s)
            on_their_way.append((number, now_s))
        if what == "echo" and on_their_way:
            found, echoed_s = on_their_way.pop(0)
            lease.came_back(found)
        assert lease.holds(now_s) == (echoed_s >= woke_s and now_s - echoed_s <= LENGTH_S)
