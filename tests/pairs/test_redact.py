"""What redaction takes out, what it leaves, and that it fails closed."""

from __future__ import annotations

import copy
import gzip
import hashlib
import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import pytest
import zstandard
from hypothesis import given, strategies as st

from proxy.config.resolved import Protocol, RedactAction, RedactRule
from proxy.pairs.redact import Redactor, compile_rules

SECRET = "s3cret"
#: Keys that no document of the tests has.
PLACE, BESIDE = "place", "beside"


def compile_paths(paths: Iterable[str]) -> Redactor:
    """Return a redactor that drops."""
    return compile_rules(map(RedactRule, paths))


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


KEY = "a key of sixteen bytes or more"
MASKED = {"s": "***", "i": 0, "f": 0.0, "b": False, "n": None, "o": {}, "a": []}


def apply(value: Any, *rules: RedactRule, key: str = KEY) -> Any:
    """Return `value` after its way through a redactor of some rules."""
    redacted = compile_rules(rules, key).apply(orjson.dumps(value))
    assert redacted is not None
    return orjson.loads(redacted)


def compressed(body: bytes, coding: str) -> bytes:
    """Return `body` in a content coding."""
    if coding == "gzip":
        return gzip.compress(body)
    if coding == "deflate":
        return zlib.compress(body)
    return zstandard.compress(body) if coding == "zstd" else body


def test_a_mask_keeps_the_type_and_nothing_else() -> None:
    """Neither the length of a text nor the keys of an object are told."""
    value = {"s": SECRET, "i": 7, "f": 7.5, "b": True, "n": None, "o": {SECRET: 1}, "a": [SECRET]}
    assert apply(value, RedactRule("*", RedactAction.MASK)) == MASKED
    assert apply([SECRET, 7], RedactRule("[*]", RedactAction.MASK)) == ["***", 0]


def test_a_hash_joins_equal_values_and_needs_the_key_to_be_guessed() -> None:
    """By value, not by spelling: the order of members and the escapes of a text do not count."""
    rules = [RedactRule("a[*]", RedactAction.HASH)]
    body = b'{"a": [{"x": 1, "y": "\\u00e9"}, {"y": "\xc3\xa9", "x": 1}, "1", 1]}'
    redacted = compile_rules(rules, KEY).apply(body)
    assert redacted is not None
    first, same, text, number = orjson.loads(redacted)["a"]
    assert first == same
    assert len({first, text, number}) == 3
    assert re.fullmatch("hash:[0-9a-f]{32}", first)
    assert apply({"a": ["1"]}, *rules)["a"] == [text]
    assert apply({"a": ["1"]}, *rules, key=KEY[::-1])["a"] != [text]


def test_a_hash_can_be_made_again_with_the_key() -> None:
    """As the README says, so that an analyst with the key can look a value up."""
    found = apply({"a": "ada@example.org"}, RedactRule("a", RedactAction.HASH))["a"]
    key = hashlib.blake2b(KEY.encode()).digest()
    made = hashlib.blake2b(b'"ada@example.org"', digest_size=16, key=key)
    assert found == f"hash:{made.hexdigest()}"


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_rules_the_strictest_holds(order: int) -> None:
    """Whichever comes first, and whether it names the value or all values."""
    drop, mask, hashed = RedactAction.DROP, RedactAction.MASK, RedactAction.HASH
    rules = [RedactRule("a", hashed), RedactRule("*", mask), RedactRule("b", drop)][::order]
    assert apply({"a": SECRET, "b": SECRET}, *rules) == {"a": "***"}
    rules = [RedactRule("a.b", drop), RedactRule("a", mask)][::order]
    assert apply({"a": {"b": SECRET, "c": SECRET}}, *rules) == {"a": {}}


@pytest.mark.parametrize("coding", ["gzip", "deflate", "zstd", "gzip, gzip", "identity"])
def test_a_compressed_body_comes_back_inflated_and_redacted(coding: str) -> None:
    """It is never written as it came: there, the secret only looks hidden."""
    body = orjson.dumps({"ssn": SECRET, "x": 2})
    for each in coding.split(", "):
        body = compressed(body, each)
    assert compile_paths(("ssn",)).apply(body, None, coding) == b'{"x":2}'


@pytest.mark.parametrize(
    ("body", "coding"),
    [
        (b'{"ssn":"s3cret"}', "gzip"),
        (gzip.compress(b'{"ssn":"s3cret"}')[:-9], "gzip"),
        (gzip.compress(b'{"ssn":"s3cret"}'), "compress"),
        (gzip.compress(b'{"ssn":"s3cret"}'), "gzip, gzip, gzip"),
        (gzip.compress(b'{"ssn":"s3cret", "pad": "%b"}' % bytes(900).hex().encode()), "gzip"),
    ],
    ids=["plain", "cut", "unknown", "too many", "larger than what is kept"],
)
def test_what_cannot_be_inflated_is_left_out(body: bytes, coding: str) -> None:
    """None, so that nothing of it is written."""
    redactor = compile_rules([RedactRule("ssn")], limit_bytes=1000)
    assert redactor.apply(body, None, coding) is None


@pytest.mark.parametrize(
    ("path", "event", "after"),
    [
        ("choices[*].message.content", {"choices": [{"delta": {"content": SECRET}}]},
         {"choices": [{"delta": {"content": "***"}}]}),
        ("choices[0].message", {"choices": [{"delta": {"content": SECRET}}]},
         {"choices": [{"delta": {}}]}),
        ("output[*].content[*].text", {"type": "response.output_text.delta", "delta": SECRET},
         {"type": "response.output_text.delta", "delta": "***"}),
        ("output[*].content[*].text", {"text": SECRET}, {"text": "***"}),
        ("output[*].content[*].text", {"part": {"text": SECRET}}, {"part": {"text": "***"}}),
        ("output[*].content[*].text", {"item": {"content": [{"text": SECRET}]}},
         {"item": {"content": [{"text": "***"}]}}),
        ("output[*].content", {"response": {"output": [{"content": [SECRET]}]}},
         {"response": {"output": [{"content": []}]}}),
        ("output[*].arguments", {"delta": SECRET, "arguments": SECRET},
         {"delta": "***", "arguments": "***"}),
        ("output", {"delta": SECRET, "refusal": SECRET, "item": {"x": SECRET}},
         {"delta": "***", "refusal": "***", "item": {}}),
        ("output[*].id", {"delta": "words", "item": {"id": SECRET}},
         {"delta": "words", "item": {"id": "***"}}),
        ("metadata.user", {"response": {"metadata": {"user": SECRET}}},
         {"response": {"metadata": {"user": "***"}}}),
    ],
    ids=str,
)  # fmt: skip
def test_a_rule_for_an_answer_holds_for_the_stream_of_it(
    path: str, event: dict[str, Any], after: dict[str, Any]
) -> None:
    """Nobody who hides the words of an answer means to write them token by token."""
    redactor = compile_rules([RedactRule(path, RedactAction.MASK)], protocol=Protocol.OPENAI)
    body = b"data: " + orjson.dumps(event) + b"\n\ndata: [DONE]\n\n"
    redacted = redactor.apply(body, "text/event-stream")
    assert redacted == b"data: " + orjson.dumps(after) + b"\n\ndata: [DONE]\n\n"


documents = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**53), 2**53),
        st.floats(-1e9, 1e9),
        st.text('xyé\\"'),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from("abcd"), inner, max_size=4)
    ),
    max_leaves=20,
)
actions = st.sampled_from(RedactAction)


@given(document=documents, data=st.data(), action=actions, coding=st.sampled_from(["", "gzip"]))
@pytest.mark.parametrize("is_stream", [False, True])
def test_a_planted_secret_goes_and_all_else_stays(
    document: Any, data: st.DataObject, action: RedactAction, coding: str, is_stream: bool
) -> None:
    """Wherever it is planted, whatever it is; the rule names the place, with or without wildcards."""
    secret = data.draw(st.sampled_from([SECRET, [SECRET], {SECRET: 1}, {"k": [{"l": SECRET}]}]))
    planted, path = plant(document, secret, data)
    body = orjson.dumps(planted)
    if is_stream:
        body = b"event: token\ndata: " + body + b"\n\ndata: [DONE]\n\n"
    body = compressed(body, coding)
    redactor = compile_rules([RedactRule(path, action)], KEY)
    kind = "text/event-stream" if is_stream else None
    redacted = redactor.apply(body, kind, coding or None)
    assert redacted is not None
    assert SECRET.encode() not in redacted
    if is_stream:
        lines = redacted.split(b"\n")
        assert (lines[0], lines[3]) == (b"event: token", b"data: [DONE]")
        redacted = lines[1].removeprefix(b"data: ")
    # The place is unknown to `document`, so taking it out again leaves what was there.
    left = without_place(orjson.loads(redacted))
    assert (left if isinstance(document, dict | list) else left[BESIDE]) == document


def plant(document: Any, secret: Any, data: st.DataObject) -> tuple[Any, str]:
    """Return the document with a secret at a new place of it, and a path to the place."""
    steps, value = [], copy.deepcopy(document)
    if not isinstance(value, dict | list):
        return {PLACE: secret, BESIDE: value}, PLACE
    inner = value
    while True:
        children = list(inner.items() if isinstance(inner, dict) else enumerate(inner))
        deeper = [(key, item) for key, item in children if isinstance(item, dict | list)]
        if not deeper or data.draw(st.booleans()):
            break
        key, inner = data.draw(st.sampled_from(deeper))
        is_wild = data.draw(st.booleans())
        steps.append(
            ("*" if is_wild else key) if isinstance(key, str) else f"[{'*' if is_wild else key}]"
        )
    if isinstance(inner, dict):
        inner[PLACE] = secret
        steps.append(PLACE)
    else:
        inner.append({PLACE: secret, BESIDE: None})
        steps += ["[*]", PLACE]
    return value, "".join(s if s.startswith("[") else f".{s}" for s in steps).removeprefix(".")


def is_planted(value: Any) -> bool:
    """Tell whether an element of a list was put there by `plant`."""
    return isinstance(value, dict) and BESIDE in value


def without_place(value: Any) -> Any:
    """Return a document as it was before `plant`."""
    if isinstance(value, dict):
        return {key: without_place(item) for key, item in value.items() if key != PLACE}
    if isinstance(value, list):
        return [without_place(item) for item in value if not is_planted(item)]
    return value
