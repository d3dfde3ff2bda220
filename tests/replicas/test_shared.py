"""The fold of the topic: of two orders on the same sight one holds, and a kill always does."""

from __future__ import annotations

from hypothesis import given, strategies as st

from proxy.replicas.messages import Beat, Counted, Kill, Lead, Message, Origin, Weight
from proxy.replicas.shared import FORGET_MS, Shared

ORIGIN = Origin("a", "f00d", 1_000)


def kill(parts: int, revision: int) -> Kill:
    """A kill of parts of everything."""
    return Kill("*", parts, revision, adds=True, origin=ORIGIN)


def revive(parts: int, revision: int) -> Kill:
    """A revive that leaves parts killed."""
    return Kill("*", parts, revision, adds=False, origin=ORIGIN)


def weight(weight_bp: int, revision: int, term: int = 0) -> Weight:
    """A weight of m/v2."""
    return Weight("m", "v2", weight_bp, -1, revision, term, ORIGIN)


def other(weight_bp: int, revision: int) -> Weight:
    """A weight of m/v3, the route's other candidate."""
    return Weight("m", "v3", weight_bp, -1, revision, 0, ORIGIN)


def fold(*messages: Message) -> Shared:
    """Return what holds after the messages."""
    shared = Shared()
    for message in messages:
        shared.take(message)
    return shared


def compacted(*messages: Message) -> list[Message]:
    """Return the messages that compaction leaves: the latest of each key."""
    latest = {message.key: message for message in messages}
    return [message for message in messages if latest[message.key] is message]


def test_of_two_weights_on_the_same_sight_the_first_holds() -> None:
    """The second was decided on a state that is over."""
    shared = fold(weight(100, 1), weight(500, 2), weight(900, 2))
    assert shared.weights["m/v2"].weight_bp == 500


def test_a_kill_holds_however_old_its_sight() -> None:
    """It adds to what is killed, and its revision is above all before it."""
    shared = fold(kill(1, 1), revive(0, 2), kill(2, 1))
    assert (shared.killed_parts("*"), shared.kills["*"].revision) == (2, 3)


def test_a_revive_does_not_open_a_kill_that_it_has_not_seen() -> None:
    """It holds on sight of the latest kill only."""
    late = fold(kill(3, 1), kill(3, 2), revive(0, 2))
    assert late.killed_parts("*") == 3
    late.take(revive(0, 3))
    assert late.killed_parts("*") == 0


def test_what_a_leader_decides_after_its_term_does_not_hold() -> None:
    """Nobody else has moved the weight, and yet it stays; its place is taken, so all look again."""
    shared = fold(Lead(1, ORIGIN), weight(100, 1, term=1), Lead(2, ORIGIN), weight(500, 2, term=1))
    assert shared.weights["m/v2"].weight_bp == 100
    assert not shared.take(weight(500, 2, term=2))
    assert shared.take(weight(500, 3, term=2))


def test_of_two_weights_that_do_not_fit_together_the_first_holds() -> None:
    """The other candidate keeps what it had, and everybody is told why; also after compaction."""
    log: list[Message] = [weight(2_000, 1), other(4_500, 1), weight(7_200, 2)]
    shared = fold(*log)
    stands = shared.weights["m/v2"]
    assert (stands.weight_bp, stands.revision, stands.event) == (2_000, 2, "")
    assert "72%, and the route's other candidates leave 55%" in stands.origin.reason
    assert shared.take(other(2_800, 2))
    log += [other(2_800, 2), *shared.unsettled(ORIGIN)]
    assert fold(*compacted(*log)).weights["m/v2"].weight_bp == 2_000
    assert shared.take(weight(7_200, 3))


def test_a_first_weight_that_does_not_fit_is_none() -> None:
    """A candidate that has just come to the config of a replica, with a weight in it."""
    shared = fold(other(4_500, 1), weight(7_200, 1))
    assert shared.weights["m/v2"].weight_bp == 0


def test_a_candidate_that_no_config_has_gives_its_room_back() -> None:
    """The leader ends its weight and ramp."""
    shared = fold(other(4_500, 1), weight(5_000, 1))
    assert shared.orphans({"m/v2", "m/v3"}, ORIGIN) == []
    (message,) = shared.orphans({"m/v2"}, ORIGIN)
    assert shared.take(message)
    assert shared.take(weight(10_000, 2))
    assert shared.orphans({"m/v2"}, ORIGIN) == []


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 10_000), st.booleans()), max_size=20),
    st.data(),
)
def test_whoever_reads_a_compacted_topic_comes_to_the_same(
    orders: list[tuple[str, int, bool]], data: st.DataObject
) -> None:
    """Wherever compaction has stopped, once the leader has written again what holds; and all fit."""
    shared = Shared()
    log: list[Message] = []
    for name, weight_bp, is_fresh in orders:
        before = shared.weights.get(f"m/{name}")
        revision = (before.revision if before is not None else 0) + is_fresh
        message = Weight("m", name, weight_bp, -1, revision, 0, ORIGIN)
        shared.take(message)
        log.append(message)
        assert sum(each.weight_bp for each in shared.weights.values()) <= 10_000
    for again in shared.unsettled(ORIGIN):
        assert shared.take(again)
        log.append(again)
    assert shared.unsettled(ORIGIN) == []
    end = data.draw(st.integers(0, len(log)))
    joined = fold(*compacted(*log[:end]), *log[end:])
    assert {name: each.weight_bp for name, each in joined.weights.items()} == {
        name: each.weight_bp for name, each in shared.weights.items()
    }


def test_of_two_who_claim_the_same_term_the_first_leads() -> None:
    """Terms only go up."""
    shared = fold(Lead(1, Origin("a", "1", 0)), Lead(1, Origin("b", "2", 0)))
    assert shared.lead is not None
    assert shared.lead.origin.instance == "a"


def test_the_leader_writes_again_what_compaction_would_lose() -> None:
    """A replica that joins after it comes to the same, though the latest message did not hold."""
    log: list[Message] = [kill(3, 1), revive(0, 1), weight(100, 1), weight(900, 1)]
    before = fold(*log)
    assert fold(*compacted(*log)).killed_parts("*") == 0  # this is what it is about
    log += before.unsettled(ORIGIN)
    joined = fold(*compacted(*log))
    assert joined.killed_parts("*") == 3
    assert joined.weights["m/v2"].weight_bp == 100
    after = fold(*log)
    assert after.unsettled(ORIGIN) == []
    assert after.killed_parts("*") == 3


def test_after_the_topic_was_made_anew_everything_is_written_again() -> None:
    """Who joins then finds what the others have."""
    shared = fold(Lead(1, ORIGIN), kill(3, 1), weight(100, 1))
    shared.lose_log()
    joined = fold(*shared.unsettled(ORIGIN))
    assert (joined.killed_parts("*"), joined.weights["m/v2"].weight_bp) == (3, 100)
    assert joined.term > shared.term


def test_a_replica_that_is_gone_for_a_day_is_forgotten() -> None:
    """Its beat and its counts are buried, and only its."""
    gone, here = Origin("gone", "1", 0), Origin("here", "2", FORGET_MS + 2)
    shared = fold(
        *(Beat(1, "v", each) for each in (gone, here)),
        *(Counted("m", "v2", "v", 1, "", [], each) for each in (gone, here)),
    )
    keys = shared.gone(FORGET_MS + 1)
    assert keys == ["beat/gone"]
    for key in keys:
        shared.forget(key)
    assert shared.gone(FORGET_MS + 1) == ["evidence/m/v2/gone"]
    shared.forget("evidence/m/v2/gone")
    assert (list(shared.beats), list(shared.counted["m/v2"])) == (["here"], ["here"])
    assert shared.gone(FORGET_MS + 1) == []
