"""Messages between replicas: what is written is read back, and what is none changes nothing."""

from __future__ import annotations

import orjson
import pytest

from proxy.replicas.messages import (
    Beat,
    Counted,
    Kill,
    Lead,
    Message,
    Origin,
    Weight,
    decode,
    encode,
    whole_key,
)

ORIGIN = Origin("a", "f00d", 1_000, "ada", "api 127.0.0.1", "why")
MESSAGES: tuple[Message, ...] = (
    Kill("*", 3, 4, adds=True, origin=ORIGIN),
    Weight(
        "m", "v2", 500, 1, 7, 2, ORIGIN, "advance", {"state": {"step": 1}}, {"outcome": "promote"}
    ),
    Lead(9, ORIGIN),
    Beat(3, "abcd", ORIGIN),
    Counted("m", "v2", "abcd", None, "a recorder hangs", [{"last_ms": 1}], ORIGIN),
)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda each: each.key)
def test_a_message_is_read_as_it_was_written(message: Message) -> None:
    """Every kind of message comes back equal."""
    assert decode(encode(message)) == message


def test_keys_tell_what_compaction_may_drop() -> None:
    """A later message of the same thing has the same key, whoever wrote it; counts are each replica's."""
    assert [whole_key("shop", each).decode() for each in MESSAGES] == [
        "shop/kill/*", "shop/weight/m/v2", "shop/lead", "shop/beat/a", "shop/evidence/m/v2/a",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2},
        {"kind": "coup"},
        {"parts": 8},
        {"parts": "3"},
        {"revision": True},
        {"revision": None},
        {"scope": 1},
        {"origin": None},
        {"origin": {"instance": "a"}},
        {"extra": 1},
    ],
    ids=str,
)
def test_what_is_no_message_is_refused(change: dict[str, object]) -> None:
    """A message of another version, with a field of another type, or with one too many is none."""
    said = {**orjson.loads(encode(MESSAGES[0])), **change}
    with pytest.raises(ValueError, match=r"no message|no parts"):
        decode(orjson.dumps(said))


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"null", b'{"v":1}', b"\xff"])
def test_other_bytes_are_refused(data: bytes) -> None:
    """Whatever else lies in the topic is no message."""
    with pytest.raises(ValueError, match="no message"):
        decode(data)


def test_a_weight_beyond_all_is_refused() -> None:
    """No message can set more than 100%."""
    said = orjson.loads(encode(MESSAGES[1])) | {"weight_bp": 10_001}
    with pytest.raises(ValueError, match="no weight"):
        decode(orjson.dumps(said))
