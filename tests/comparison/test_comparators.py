"""What each comparator says, against golden vectors and laws."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given, strategies as st

from proxy.comparison import comparators
from proxy.comparison.comparators import compare
from proxy.comparison.result import against_noise, not_comparable
from proxy.config.resolved import Compare

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "vectors.json").read_text(encoding="utf-8")
)
NAMES = ("exact", "json", "label", "numeric", "ranking", "text", "top_k", "vector")
#: Why a value is nothing that a comparator can judge.
WRONG_KINDS = ("not_a_label", "not_a_ranking", "not_a_text", "not_a_vector")
SETTINGS = {
    "ulp", "ignore", "unordered", "inside_text", "k", "measure", "min_similarity", "ignore_case",
}  # fmt: skip

numbers = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5), st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=20,
)


def spec(name: str, rel_tol: float = 0.0, abs_tol: float = 0.0, **settings: Any) -> Compare:
    """Return the settings of a comparator; arrays become tuples, as they are in a config."""
    frozen: dict[str, Any] = {
        key: tuple(value) if type(value) is list else value for key, value in settings.items()
    }
    return Compare("", name, rel_tol, abs_tol, **frozen)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['comparator']}: {v['case']}")
def test_golden_vectors(vector: dict[str, Any]) -> None:
    """Each vector gives exactly what it says; what it does not name is null."""
    settings = spec(
        vector["comparator"],
        vector.get("rel_tol", 0.0),
        vector.get("abs_tol", 0.0),
        **{key: value for key, value in vector.items() if key in SETTINGS},
    )
    found = compare(settings, vector["primary"], vector["candidate"], "y")
    assert found.reason == vector.get("reason")
    assert found.comparable is ("reason" not in vector)
    assert found.equal is vector.get("equal")
    assert found.loss_diff == (None if "reason" in vector else float(not vector["equal"]))
    assert found.first_diff_path == vector.get("path")
    assert_about(found.abs_diff, vector.get("abs_diff"))
    assert_about(found.rel_diff, vector.get("rel_diff"))


def assert_about(found: float | None, expected: float | None) -> None:
    """Fail unless both are None, or the same to nine digits."""
    assert (found is None) is (expected is None)
    if found is not None and expected is not None:
        assert math.isclose(found, expected, rel_tol=1e-9, abs_tol=1e-15)


@pytest.mark.parametrize("name", NAMES)
@given(value=values)
def test_every_value_agrees_with_its_copy(name: str, value: Any) -> None:
    """An answer never differs from itself, read twice."""
    found = compare(spec(name), value, orjson.loads(orjson.dumps(value)))
    assert found.equal is True or found.reason in WRONG_KINDS


@pytest.mark.parametrize("name", NAMES)
@given(left=values, right=values)
def test_what_a_comparator_says_is_consistent(name: str, left: Any, right: Any) -> None:
    """A path if and only if they differ; a loss of 0 or 1; numbers that JSON can hold."""
    found = compare(spec(name, rel_tol=0.01), left, right)
    if not found.comparable:
        assert found.reason
        assert (found.equal, found.loss_diff, found.first_diff_path) == (None, None, None)
        return
    assert found.loss_diff == (0.0 if found.equal else 1.0)
    assert (found.first_diff_path is None) is found.equal
    for number in (found.abs_diff, found.rel_diff):
        assert number is None or (number >= 0 and math.isfinite(number))
    assert found.rel_diff is None or found.rel_diff <= 2


@given(left=values, right=values)
def test_exact_equality_is_symmetric_and_strict_about_booleans(left: Any, right: Any) -> None:
    """Both ways the same, and the same as comparing canonical texts of equal number types."""
    forth, back = compare(spec("exact"), left, right), compare(spec("exact"), right, left)
    assert forth.equal == back.equal
    if orjson.dumps(left, option=orjson.OPT_SORT_KEYS) == orjson.dumps(
        right, option=orjson.OPT_SORT_KEYS
    ):
        assert forth.equal


@given(
    pairs=st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8),
    rel_tol=st.floats(0, 2),
    abs_tol=st.floats(0, 1e6),
)
def test_vectors_agree_when_every_element_is_close(
    pairs: list[tuple[float, float]], rel_tol: float, abs_tol: float
) -> None:
    """The short way for flat vectors says what math.isclose says, and what the walk says."""
    left, right = [a for a, _ in pairs], [b for _, b in pairs]
    close = [math.isclose(a, b, rel_tol=rel_tol, abs_tol=abs_tol) for a, b in pairs]
    settings = spec("numeric", rel_tol, abs_tol)
    flat = compare(settings, left, right)
    assert flat.equal is all(close)
    assert flat.first_diff_path == (None if all(close) else f"[{close.index(False)}]")
    nested = compare(settings, {"v": left}, {"v": right})
    assert (flat.equal, flat.abs_diff, flat.rel_diff) == (
        nested.equal,
        nested.abs_diff,
        nested.rel_diff,
    )


@given(
    rows=st.lists(
        st.tuples(*[st.one_of(st.floats(-1, 1), numbers, st.booleans(), st.none())] * 2),
        max_size=8,
    ),
    longer=st.lists(numbers, max_size=1),
)
@example(rows=[(0.0, -0.0)], longer=[])
@example(rows=[(5e-324, 0.0), (1.7e308, -1.7e308)], longer=[])
@example(rows=[(1.0, 1.0), (True, 1.0)], longer=[])
def test_a_vector_is_judged_as_the_same_inside_a_document(
    rows: list[tuple[Any, Any]], longer: list[float]
) -> None:
    """Whatever stands between its numbers: the short way is for floats alone, and says no less."""
    left, right = [a for a, _ in rows], [b for _, b in rows] + longer
    settings = spec("numeric", 1e-3, 1e-9)
    flat, nested = compare(settings, left, right), compare(settings, {"v": left}, {"v": right})
    assert flat[:-1] == nested[:-1]
    assert (flat.first_diff_path or "") == (nested.first_diff_path or "").removeprefix("v")


@pytest.mark.parametrize("name", NAMES)
def test_values_as_deep_as_the_log_can_hold_are_compared(name: str) -> None:
    """250 levels do not exhaust the stack."""
    left: Any = [0.5, "x"]
    right: Any = [0.5, "y"]
    for level in range(250):
        left, right = ([left], [right]) if level % 2 else ({"k": left}, {"k": right})
    found = compare(spec(name), left, right)
    assert found.equal is False or found.reason in WRONG_KINDS


def test_whole_documents_that_differ_at_the_root_say_so() -> None:
    """Without a prediction path the place of such a difference is `$`."""
    for name in ("exact", "json", "label", "numeric"):
        assert compare(spec(name), "a", "b").first_diff_path == "$"
    assert compare(spec("top_k", k=1), ["a"], ["b"]).first_diff_path == "$"
    assert compare(spec("ranking"), ["a"], ["b"]).first_diff_path == "$"
    assert compare(spec("vector"), [1], [-1]).first_diff_path == "$"
    assert compare(spec("text"), "a b", "a c").first_diff_path == "[1]"


def test_the_replicate_takes_its_noise_away() -> None:
    """Loss of the candidate minus loss of the replicate: -1, 0 or 1."""
    same, other = compare(spec("exact"), 1, 1), compare(spec("exact"), 1, 2)
    assert against_noise(other, same).loss_diff == 1
    assert against_noise(other, other).loss_diff == 0
    assert against_noise(same, other).loss_diff == -1
    assert against_noise(same, other).equal is True


def test_a_replicate_that_failed_takes_nothing_away() -> None:
    """And one beside a pair that is not comparable changes nothing."""
    other, failed = compare(spec("exact"), 1, 2), not_comparable("replicate_failed")
    assert against_noise(other, failed) == other
    assert against_noise(failed, other) == failed


def test_an_unknown_comparator_names_the_known_ones() -> None:
    """The operator's mistake, said so that it can be mended."""
    with pytest.raises(ValueError, match=r"no comparator 'exakt'; there are: .*exact.*numeric"):
        compare(spec("exakt"), 1, 1)


def test_a_new_comparator_is_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name then works like any other, and cannot be taken again."""
    monkeypatch.setattr(comparators, "_FACTORIES", dict(comparators._FACTORIES))
    comparators.register("never", lambda _: lambda *_args: not_comparable("never"))
    assert comparators.build(spec("never"))(1, 1, "").reason == "never"
    assert "never" in comparators.names()
    with pytest.raises(ValueError, match="already"):
        comparators.register("exact", lambda _: lambda *_args: not_comparable("never"))


@given(value=values)
@example(value=["text"])
@example(value=[None, 1.5])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_object_compares_as_an_equal_one_does(name: str, value: Any) -> None:
    """Legs that answered the same bytes are read once, and take a short way here."""
    copy = orjson.loads(orjson.dumps(value))
    assert compare(spec(name), value, value, "y") == compare(spec(name), value, copy, "y")
