"""The YAML reader: values, lines, the environment, and files that are no YAML."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, strategies as st

from proxy.config.yaml_tree import MAX_VALUES, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no", "no"), ("on", "on"), ("1:30", "1:30"), ("2024-01-01", "2024-01-01"), ("0777", 777),
        ("1e-3", 0.001), ("true", True), ("~", None), ("12", 12), ("-0.5", -0.5), ("0x10", 16),
        ("'12'", "12"), (".inf", float("inf")), ("10%", "10%"), ("0o17", 15), ("1_000", "1_000"),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, expected: Any) -> None:
    """PyYAML alone reads `no` as false, `1:30` as 90 and `1e-3` as text."""
    assert parse(f"key: {text}", {}).value == {"key": expected}


def test_every_value_has_its_line() -> None:
    """Keys have their own line, list items where they start, block mappings their key's."""
    tree = parse("a: 1\n\nb:\n  c: x\n  d:\n    - 1\n    - {e: 2,\n       f: 3}\n", {})
    assert tree.lines[("a",)] == 1
    assert tree.lines[("b",)] == 3
    assert tree.lines[("b", "c")] == 4
    assert tree.lines[("b", "d", 1)] == 7
    assert tree.lines[("b", "d", 1, "f")] == 8
    assert tree.line(("b", "missing", 7)) == 3


def test_the_environment_fills_references() -> None:
    """`${VAR}` wants the variable, `:-` gives a default for an unset or empty one."""
    environ = {"HOST": "10.0.0.7", "EMPTY": ""}
    tree = parse(
        'a: http://${HOST}:1\nb: "${NONE:-x:y}"\nc: ${EMPTY:-d}\nd: "$${HOST} $HOST"', environ
    )
    assert not tree.faults
    assert tree.value == {"a": "http://10.0.0.7:1", "b": "x:y", "c": "d", "d": "${HOST} $HOST"}


def test_the_environment_cannot_change_the_structure() -> None:
    """A value with YAML in it stays text."""
    assert parse("a: ${X}", {"X": "[1, {b: 2}]\nc: 3"}).value == {"a": "[1, {b: 2}]\nc: 3"}


@pytest.mark.parametrize(
    ("text", "line", "telling"),
    [
        ("a: 1\nb: ${NOPE}", 2, "NOPE is not set"), ("a: ${9X}", 1, "is not a reference"),
        ("a: ${X", 1, "is not a reference"), ("a: 1\nb: 2\na: 3", 3, "twice, first in line 1"),
        ("a:\n\t- b", 2, "here is a tab"), ("a: 'x\nb: 1", 2, "not valid YAML"),
        ("a: b: c", 1, "quote text"), ("a: *x", 1, "undefined alias"), ("a: !!python/name:os x", 1, "tag"),
        ("a: 1\n---\nb: 2", 2, "second document"), ("? [a]\n: 1", 1, "must be a word"), ("<<: 3", 1, "merges a mapping"),
        ("a: \0", 1, "U+0000"), ("a: @x", 1, "special character"), ("a: !!float x", 1, "not a number"),
        ("a: " + "1" * 99, 1, "too long"), ("[" * 2000, 0, "nested too deeply"),
        ("a: &x [*x]", 0, "contains itself"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(text: str, line: int, telling: str) -> None:
    """Nothing is raised; the tree holds the fault."""
    faults = parse(text, {}).faults
    assert [fault.line for fault in faults] == [line]
    assert telling in faults[0].message


def test_nested_aliases_cannot_make_millions_of_values() -> None:
    """The billion laughs: a small file, a large tree."""
    text = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
        f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
    )
    assert f"more than {MAX_VALUES:,} values" in parse(text, {}).faults[0].message


def test_aliases_and_merges_repeat_what_was_said_once() -> None:
    """A mapping's own keys win over merged ones; a merge never counts as a duplicate."""
    text = "one: &one {a: 1, b: 2}\ntwo:\n  <<: *one\n  b: 3\nthree: {<<: [*one, {c: 4}]}\n"
    tree = parse(text, {})
    assert not tree.faults
    assert tree.value["two"] == {"a": 1, "b": 3}
    assert tree.value["three"] == {"a": 1, "b": 2, "c": 4}


@given(st.text(max_size=200))
def test_no_text_makes_the_reader_raise(text: str) -> None:
    """Whatever an editor saved, the operator gets a sentence and no traceback."""
    parse(text, {})
