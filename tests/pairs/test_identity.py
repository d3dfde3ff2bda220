"""A pair's id and time: the same for ever, sortable, and nobody else's."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, strategies as st

from proxy.pairs.identity import Identities, pair_id

instants = st.integers(0, 253_402_300_799_999_999)


@given(st.lists(st.tuples(instants, st.sampled_from("abc"), st.integers(0, 2**33)), min_size=1))
def test_what_came_before_does_not_matter(pairs: list[tuple[int, str, int]]) -> None:
    """What is kept from one pair to the next is only text that both have."""
    identities = Identities()
    for ts_us, instance, seq in pairs:
        assert identities.of(ts_us, instance, seq, "v2") == Identities().of(
            ts_us, instance, seq, "v2"
        )


@given(instants, st.text(max_size=5), st.integers(0, 2**33), st.text(max_size=5))
def test_an_id_is_a_uuid_of_version_7(ts_us: int, instance: str, seq: int, candidate: str) -> None:
    """With the milliseconds in its first 48 bits."""
    found = pair_id(ts_us, instance, seq, candidate)
    identity = uuid.UUID(found)
    assert str(identity) == found
    assert (identity.version, identity.variant) == (7, uuid.RFC_4122)
    assert identity.int >> 80 == ts_us // 1000


@given(instants, st.integers(0, 2**33))
def test_digits_are_padded(ts_us: int, seq: int) -> None:
    """The number ends the id in eight digits, modulo 2**32; the microseconds are six."""
    found, ts = Identities().of(ts_us, "w0", seq, "v2")
    assert found.endswith(f"{seq % 2**32:08x}")
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=ts_us)
    assert ts == instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_ids_of_one_millisecond_sort_by_number() -> None:
    """A worker's pairs come in its order, wherever ids are sorted."""
    ids = [pair_id(1_700_000_000_000_999, "w0", seq, "v2") for seq in (0, 1, 9, 10, 70_000)]
    assert ids == sorted(ids)


def test_names_are_not_run_together() -> None:
    """Where one name ends and the next begins is part of the name."""
    assert pair_id(0, "a", 1, "b|c") != pair_id(0, "a|b", 1, "c")


@pytest.mark.parametrize("ts_us", [-1, -1_000_000, 253_402_300_800_000_000])
def test_an_instant_that_rfc_3339_cannot_write_is_refused(ts_us: int) -> None:
    """Before 1970 or after the year 9999; also when the instant before was right."""
    identities = Identities()
    identities.of(0, "a", 1, "b")
    with pytest.raises(ValueError, match="is no time"):
        identities.of(ts_us, "a", 1, "b")


def test_many_instances_are_forgotten_and_get_the_same_ids_again() -> None:
    """The names kept are bounded."""
    identities = Identities()
    first = identities.of(5, "w0", 1, "v2")
    for number in range(3_000):
        identities.of(5, f"w{number}", 1, "v2")
    assert identities.of(5, "w0", 1, "v2") == first
