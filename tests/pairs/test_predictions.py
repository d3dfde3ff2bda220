"""Prediction paths: the short way says what JMESPath says."""

from __future__ import annotations

from typing import Any

import jmespath
import jsonpath
import pytest
from hypothesis import example, given, strategies as st

from proxy.pairs.paths import parse
from proxy.pairs.predictions import finder, is_plain, plain_steps

documents = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.just("s")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=20,
)
plain_paths = st.lists(st.sampled_from(["a", "b", 0, 1, 2]), min_size=1, max_size=5).map(
    lambda steps: "".join(
        f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps
    ).removeprefix(".")
)


@given(document=documents, path=plain_paths)
@example(document={"outputs": [{"data": [1]}]}, path="outputs[0].data")
@example(document={"a": "text"}, path="a[0]")
@example(document={"a": ["text"]}, path="a[0][1][0]")
def test_a_plain_path_finds_what_jmespath_finds(document: Any, path: str) -> None:
    """Walked directly, because it is most of what operators write."""
    assert plain_steps(path) is not None
    found, expected = finder(path)(document), jmespath.search(path, document)
    assert (type(found), found) == (type(expected), expected)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("", {"a": [{"b": 1}, {"b": 2}]}),
        ("a[*].b", [1, 2]),
        ("a[-1].b", 2),
        ("a[?b==`2`] | [0]", {"b": 2}),
        ("sum(a[*].b)", 3),
        ("sum(a)", None),
        ("nothing", None),
        ("abs('x')", None),
        ("avg(`[]`)", None),
    ],
)
def test_expressions(expression: str, expected: Any) -> None:
    """Anything of JMESPath; one that does not fit the document finds nothing."""
    assert finder(expression)({"a": [{"b": 1}, {"b": 2}]}) == expected


@pytest.mark.parametrize("expression", ["a[", "a..b", "foo(", "@@"])
def test_an_expression_that_is_none_is_refused(expression: str) -> None:
    """Before a socket opens, with the expression in the text."""
    with pytest.raises(ValueError, match="is not a JMESPath expression"):
        finder(expression)


@given(document=documents, path=plain_paths)
@example(document={"a": "text"}, path="a[0]")
def test_a_plain_path_finds_what_jsonpath_finds(document: Any, path: str) -> None:
    """The same places, written from `$` on."""
    expression = f"${path}" if path.startswith("[") else f"$.{path}"
    found = finder(expression)(document)
    assert [found] == (jsonpath.findall(expression, document) or [None])


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("$", {"a": [{"b": 1}, {"b": 2}], "c d": [3]}),
        ("$['c d'][0]", 3),
        ("$.a[-1].b", 2),
        ("$.a[*].b", [1, 2]),
        ("$..b", [1, 2]),
        ("$.a[?@.b > 1]", [{"b": 2}]),
        ("$.a[?@.b > 2]", None),
        ("$.nothing", None),
        ("$.nothing[0]", None),
    ],
)
def test_json_paths(expression: str, expected: Any) -> None:
    """One value where only one can match, else the list of those that do."""
    assert finder(expression)({"a": [{"b": 1}, {"b": 2}], "c d": [3]}) == expected


@pytest.mark.parametrize("expression", ["$.a[", "$.a[?", "$["])
def test_a_json_path_that_is_none_is_refused(expression: str) -> None:
    """As JMESPath is."""
    with pytest.raises(ValueError, match="is not a JSONPath expression"):
        finder(expression)


def test_what_is_plain() -> None:
    """Keys and indices; no wildcards, no functions."""
    assert plain_steps('a."x-y"[0]') == ("a", "x-y", 0)
    assert [is_plain(e) for e in ("", "a.b", "a[*]", "max(a)", "a[-1]")] == [
        True,
        True,
        *[False] * 3,
    ]


def test_quoted_keys_may_hold_quotes_and_backslashes() -> None:
    """As in JMESPath."""
    assert parse(r'"a\"b\\c"') == ('a"b\\c',)
