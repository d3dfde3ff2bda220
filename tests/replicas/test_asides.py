"""Asides: the last word on each thing, whoever reads it; what is none changes nothing."""

from __future__ import annotations

import orjson
import pytest

from proxy.replicas.asides import Aside, Asides, Judged, NoticesTold, Tossed, decode, encode
from proxy.replicas.messages import Origin
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


def test_what_a_replica_has_told_that_is_gone_for_a_day_is_buried() -> None:
    """By whoever leads; what the living have told stays, however old it is."""
    asides = Asides()
    for instance in ("here", "gone"):
        asides.take(Tossed("m", "v2", 100, "abcd", "key 1", {}, Origin(instance, "1", 0)))
    assert asides.gone(FORGET_MS, ["here"]) == []
    (key,) = asides.gone(FORGET_MS + 1, ["here"])
    assert key == "keys/m/v2/100/gone"
    asides.forget(key)
    asides.forget(key)
    assert [each.origin.instance for each in asides.tossed("m/v2")] == ["here"]


def test_what_was_told_of_notices_is_kept_when_the_topic_was_made_anew() -> None:
    """Else all of them would be told again; split keys are told again by those who saw them."""
    asides = Asides()
    for each in MESSAGES:
        asides.take(each)
    asides.lose_log()
    assert asides.notices_told("m/v2") == ["one", "two"]
    assert asides.tossed("m/v2") == []
