"""What redaction takes out, what it leaves, and that it fails closed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given, strategies as st

from proxy.pairs.redact import compile_paths

SECRET = "s3cret"


def redact(value: Any, *paths: str) -> Any:
    """Return `value` after its way through a redactor."""
    redacted = compile_paths(paths).apply(orjson.dumps(value))
    assert redacted is not None
    return orjson.loads(redacted)


@pytest.mark.parametrize(
    ("paths", "before", "after"),
    [
        (["ssn"], {"ssn": 1, "x": 2}, {"x": 2}),
        (["a.b"], {"a": {"b": 1, "c": 2}}, {"a": {"c": 2}}),
        (["a"], {"a": {"b": 1}}, {}),
        (["a[*].b"], {"a": [{"b": 1}, {"b": 2, "c": 3}, 7]}, {"a": [{}, {"c": 3}, 7]}),
        (["a[0].b"], {"a": [{"b": 1}, {"b": 2}]}, {"a": [{}, {"b": 2}]}),
        (["a[*]"], {"a": [1, 2]}, {"a": []}),
        (["a[0]", "a[2]"], {"a": [1, 2, 3]}, {"a": [2]}),
        (["a[1].b", "a[*].c"], {"a": [{"b": 1, "c": 1}, {"b": 1, "c": 1}]}, {"a": [{"b": 1}, {}]}),
        (["a.b", "a.c"], {"a": {"b": 1, "c": 2, "d": 3}}, {"a": {"d": 3}}),
        (["a", "a.b"], {"a": {"b": 1}, "c": 2}, {"c": 2}),
        (["*.ssn"], {"x": {"ssn": 1, "k": 2}, "y": {"ssn": 3}, "z": 4}, {"x": {"k": 2}, "y": {}, "z": 4}),
        (["[*].ssn"], [{"ssn": 1}, {"x": 2}], [{}, {"x": 2}]),
        (['a."x-y"'], {"a": {"x-y": 1, "z": 2}}, {"a": {"z": 2}}),
        (["inputs[*].parameters.ssn"], {"inputs": [{"parameters": {"ssn": 1, "k": 2}}]},
         {"inputs": [{"parameters": {"k": 2}}]}),
    ],
    ids=str,
)  # fmt: skip
def test_a_path_takes_out_what_it_names(paths: list[str], before: Any, after: Any) -> None:
    """And nothing beside it."""
    assert redact(before, *paths) == after


@pytest.mark.parametrize(
    "value",
    [{}, [], 1, None, "text", {"a": 1}, {"a": None}, {"a": [1]}, {"a": {"b": {}}}, {"b": {"c": 1}}],
    ids=str,
)
def test_a_path_that_meets_something_else_takes_nothing(value: Any) -> None:
    """Missing keys, other types, shorter arrays."""
    assert redact(value, "a.b.c", "a[3]", "a.b[*].c", "a[2].b") == value


def test_an_unchanged_body_is_the_very_same_object() -> None:
    """So the worker can say `full`, and the hash stays that of the answer."""
    body = b'{"x":1}'
    assert compile_paths(("ssn",)).apply(body) is body
    assert compile_paths(("ssn",)).apply(b"") == b""


@pytest.mark.parametrize(
    "body",
    [
        b'{"ssn": "s3cret"',
        b"ssn=s3cret",
        b"\xff\xfe",
        b'{"ssn": NaN}',
        b'\xef\xbb\xbf{"ssn":1}',
        b"[" * 2000,
        b"[" * 400 + b"]" * 400,
    ],
    ids=lambda body: repr(body[:20]),
)
def test_a_body_that_cannot_be_searched_is_left_out(body: bytes) -> None:
    """Cut, another format, too deep: None, so that nothing of it is written."""
    assert compile_paths(("ssn",)).apply(body) is None


def test_a_duplicate_key_carries_no_secret_through() -> None:
    """Parsers keep the last of equal keys; the text would still hold the first."""
    body = b'{"a":{"ssn":"s3cret"},"a":{}, "ssn":"s3cret", "ssn":1}'
    redacted = compile_paths(("a.ssn", "ssn")).apply(body)
    assert redacted == b'{"a":{}}'


def test_an_escaped_key_is_the_same_key() -> None:
    """JSON allows any character to be written as an escape."""
    assert compile_paths(("ssn",)).apply(b'{"s\\u0073n":"s3cret"}') == b"{}"


def test_events_are_redacted_one_by_one() -> None:
    """Comments go, `[DONE]` and the fields of the event stay."""
    body = (
        b': s3cret\n\nevent: token\nid: 7\ndata: {"ssn":"s3cret",\ndata: "x":1}\n\n'
        b'data: {"x":2}\r\n\r\ndata: [DONE]\n\n'
    )
    redacted = compile_paths(("ssn",)).apply(body, "text/event-stream; charset=utf-8")
    assert redacted == (b'event: token\nid: 7\ndata: {"x":1}\n\ndata: {"x":2}\n\ndata: [DONE]\n\n')


def test_an_event_that_is_not_json_leaves_the_stream_out() -> None:
    """The last chunk of a cut stream, for one."""
    redactor = compile_paths(("ssn",))
    assert redactor.apply(b'data: {"x":1}\n\ndata: {"ssn":"s3', "text/event-stream") is None


@pytest.mark.parametrize(
    "path", ["", "a.", ".a", "a[", "a[-1]", "a[b]", "a b", "a..b", "a[*]b", "$.a"]
)
def test_a_path_that_is_none_is_refused(path: str) -> None:
    """Before a socket opens."""
    with pytest.raises(ValueError, match="path"):
        compile_paths((path,))


values = st.recursive(
    st.one_of(st.none(), st.integers(-9, 9), st.just("x")),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    ),
    max_leaves=20,
)
steps = st.lists(st.sampled_from(["a", "b", "*", 0, 1, "[*]"]), min_size=1, max_size=4)


def text_of(path: Sequence[str | int]) -> str:
    """Return the path as operators write it."""
    words = [f"[{s}]" if isinstance(s, int) else s if s == "[*]" else f".{s}" for s in path]
    return "".join(words).removeprefix(".")


def naive(value: Any, path: list[str | int]) -> Any:
    """Return what dropping one path means, as plainly as it can be said."""
    step, rest = path[0], path[1:]

    def members(items: list[tuple[Any, Any]], matches: Any) -> list[tuple[Any, Any]]:
        changed = [
            (key, naive(item, rest) if matches(key) and rest else item) for key, item in items
        ]
        return [(key, item) for key, item in changed if rest or not matches(key)]

    if isinstance(value, dict) and isinstance(step, str) and step != "[*]":
        return dict(members(list(value.items()), lambda key: step in ("*", key)))
    if isinstance(value, list) and (isinstance(step, int) or step == "[*]"):
        return [
            item for _, item in members(list(enumerate(value)), lambda key: step in ("[*]", key))
        ]
    return value


@given(value=values, path=steps)
def test_one_path_does_what_the_plain_definition_says(value: Any, path: list[str | int]) -> None:
    """A second, slow implementation agrees."""
    assert redact(value, text_of(path)) == naive(value, path)


@given(value=values, paths=st.lists(steps, min_size=1, max_size=4))
def test_nothing_survives_at_the_paths(value: Any, paths: list[list[str | int]]) -> None:
    """Paths without indices: redacting again finds nothing more; no leaf is invented."""
    keys = [[step for step in path if not isinstance(step, int)] or ["a"] for path in paths]
    texts = [text_of(path) for path in keys]
    once = redact(value, *texts)
    assert redact(once, *texts) == once
    if SECRET not in str(value):
        assert SECRET not in str(once)
