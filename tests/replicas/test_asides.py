"""Asides: the last word on each thing, whoever reads it; what is none changes nothing."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st

from proxy.replicas.asides import (
    Aside,
    Asides,
    Judged,
    NoticesTold,
    Tossed,
    decode,
    encode,
    packed,
    unpacked,
)
from proxy.replicas.messages import Beat, Origin
from proxy.replicas.shared import FORGET_MS

ORIGIN = Origin("a", "f00d", 1_000, "ada", "api 127.0.0.1", "why")
MESSAGES: tuple[Aside, ...] = (
    Tossed("m", "v2", 2_500, "abcd", "key 1", {"hits": [2**64 - 1]}, ORIGIN),
    NoticesTold("m", "v2", ["one", "two"], ORIGIN),
    Judged("m", "v2", 3, 7, "promote", 12, True, "waits", [{"metric": "latency"}], ORIGIN),
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: each.key)
def test_an_aside_is_read_as_it_was_written(message: Aside) -> None:
    """Every kind comes back equal, and is known by its key."""
    assert decode(encode(message)) == message
    assert Asides().takes(message.key)


def test_keys_tell_what_compaction_may_drop() -> None:
    """A later message of the same thing has the same key; what each replica says is its own."""
    assert [each.key for each in MESSAGES] == ["keys/m/v2/2500/a", "told/m/v2", "judged/m/v2"]
    assert not Asides().takes("beat/a")


@pytest.mark.parametrize(
    "change", [{"v": 2}, {"kind": "beat"}, {"route": 1}, {"origin": None}, {"extra": 1}], ids=str
)
@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: each.key)
def test_what_is_no_aside_is_refused(message: Aside, change: dict[str, object]) -> None:
    """A message of another version, with a field of another type, or with one too many is none."""
    said = {**orjson.loads(encode(message)), **change}
    with pytest.raises(ValueError, match="no message"):
        decode(orjson.dumps(said))


@pytest.mark.parametrize(
    ("instance", "version", "now_ms", "is_gone"),
    [
        ("here", "new", 9 * FORGET_MS, False),
        ("here", "old", 0, True),  # it does not run that config any more
        ("late", "old", 0, False),  # it does
        ("gone", "new", FORGET_MS, False),  # what it saw, it saw
        ("gone", "new", FORGET_MS + 1, True),
        ("gone", "old", 0, True),
    ],
)
def test_split_keys_that_nobody_counts_any_more_are_buried(
    instance: str, version: str, now_ms: int, *, is_gone: bool
) -> None:
    """By whoever leads; those of a replica that has ended count for a day."""
    living = {
        name: Beat(1, runs, Origin(name, "1", 0))
        for name, runs in (("here", "new"), ("late", "old"))
    }
    asides = Asides()
    asides.take(Tossed("m", "v2", 100, version, "key 1", {}, Origin(instance, "1", 0)))
    asides.take(MESSAGES[1])
    keys = asides.gone(now_ms, living, "new")
    assert keys == [f"keys/m/v2/100/{instance}"] * is_gone
    for key in keys * 2:
        asides.forget(key)
    assert bool(asides.tossed("m/v2")) == (not is_gone)


@given(st.sets(st.integers(0, 2**64 - 1), max_size=20), st.randoms())
def test_split_keys_are_told_as_they_are(units: set[int], chance: Any) -> None:
    """In an order of their own, so that the same keys are the same message."""
    hits = list(units)
    chance.shuffle(hits)
    notes = {"weight_bp": 100, "hits": hits, "misses": []}
    assert unpacked(packed(notes)) == {**notes, "hits": sorted(hits)}
    assert packed(notes) == packed({**notes, "hits": hits[::-1]})


@pytest.mark.parametrize("text", ["AAAA", "*", 3])
def test_what_are_no_split_keys_is_refused(text: Any) -> None:
    """A hash that is cut, and what is no hash."""
    with pytest.raises((TypeError, ValueError)):
        unpacked({"hits": text, "misses": ""})


def test_what_was_told_of_notices_is_kept_when_the_topic_was_made_anew() -> None:
    """Else all of them would be told again; split keys are told again by those who saw them."""
    asides = Asides()
    for each in MESSAGES:
        asides.take(each)
    asides.lose_log()
    assert asides.notices_told("m/v2") == ["one", "two"]
    assert asides.tossed("m/v2") == []
