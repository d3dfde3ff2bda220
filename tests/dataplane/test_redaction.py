"""What a worker keeps off the disk: secrets in bodies, and the keys that requests are split by."""

from __future__ import annotations

import base64
import gzip
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.config.resolved import (
    Bodies,
    Config,
    HashPolicy,
    RedactAction,
    RedactRule,
    Split,
    SplitKind,
)
from proxy.pairs.expand import Expander
from proxy.state.hash_key import FILE_NAME, kept_key
from tests.support.dataplane import Options, dataplane
from tests.support.upstreams import Behaviour, Upstream, answer, raw_answer

SECRET = "078-05-1120"
MASK_SSN = (RedactRule("ssn", RedactAction.MASK),)
JSON = b"content-type: application/json\r\n"


def with_headers(body: bytes, *headers: bytes) -> Behaviour:
    """Return a behaviour that answers `body` under some header lines."""
    lines = b"".join(line + b"\r\n" for line in headers)
    return raw_answer(
        b"HTTP/1.1 200 OK\r\n%bcontent-length: %d\r\n\r\n%b" % (lines, len(body), body)
    )


async def recorded(
    tmp_path: Path, primary: Behaviour, options: Options, request: bytes = b"{}", extra: bytes = b""
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Send one request; return its journal line and the record that is made of it."""
    async with (
        Upstream(primary) as upstream,
        Upstream(answer(b'{"y":1}')) as candidate,
        dataplane(
            tmp_path, primary=upstream.port, candidates={"v2": candidate.port}, options=options
        ) as plane,
    ):
        await plane.request(b"POST", b"/", body=request, extra=extra)
        (line,) = await plane.pairs(1)
        config = plane.worker.config
        record = Expander(config.routes[0], config.record, "0").expand(dict(line))
    assert SECRET not in str(line)
    return line, record


async def test_a_compressed_answer_is_recorded_inflated_and_redacted(tmp_path: Path) -> None:
    """The record says so: there is no coding any more, and the prediction is read."""
    body = gzip.compress(orjson.dumps({"ssn": SECRET, "y": 1}))
    behaviour = with_headers(body, b"content-type: application/json", b"content-encoding: gzip")
    line, record = await recorded(tmp_path, behaviour, Options(redact=MASK_SSN))
    assert line["primary_body"] == '{"ssn":"***","y":1}'
    assert (line["primary_body_state"], line["primary_content_encoding"]) == ("redacted", None)
    assert line["primary_response_bytes"] == len(body)
    assert record["primary_prediction"] == {"ssn": "***", "y": 1}
    assert record["primary_response_sha256"] is None
    assert record["comparable"]


async def test_a_compressed_request_is_recorded_inflated_and_redacted(tmp_path: Path) -> None:
    """The backends get it as it came."""
    options = Options(bodies=Bodies.FULL, redact=MASK_SSN)
    body = gzip.compress(orjson.dumps({"ssn": SECRET}))
    extra = JSON + b"content-encoding: gzip\r\n"
    line, record = await recorded(tmp_path, answer(b"{}"), options, body, extra)
    assert line["request_body"] == '{"ssn":"***"}'
    assert record["request_sha256"] is None


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (f"ssn={SECRET}".encode(), ()),
        (b"\x89PNG" + SECRET.encode(), ()),
        (b'{"ssn":"%b"}' % SECRET.encode(), (b"content-encoding: gzip",)),
        (b'{"ssn":"%b"}' % SECRET.encode(), (b"content-encoding: x",)),
        (b'data: {"ssn":"%b"\n\n' % SECRET.encode(), (b"content-type: text/event-stream",)),
        (b'{"pad":"%b","ssn":"%b"}' % (b"x" * 4096, SECRET.encode()), ()),
    ],
    ids=["form", "binary", "not gzip", "unknown coding", "cut event", "longer than kept"],
)
async def test_a_body_that_cannot_be_searched_is_not_written(
    tmp_path: Path, body: bytes, headers: tuple[bytes, ...]
) -> None:
    """It is left out, and the record says for which reason nothing was compared."""
    options = Options(
        bodies=Bodies.FULL,
        redact=MASK_SSN,
        limits={"record_body_bytes": 4096, "mirror_body_bytes": 2**20},
    )
    extra = b"".join(line + b"\r\n" for line in headers)
    line, record = await recorded(tmp_path, with_headers(body, *headers), options, body, extra)
    assert (line["primary_body"], line["primary_body_state"]) == (None, "redacted")
    assert line["request_body"] is None
    assert record["primary_response_sha256"] is record["request_sha256"] is None
    assert record["not_comparable_reason"] == "primary_redacted"


async def test_a_secret_that_comes_in_two_chunks_is_one_secret(tmp_path: Path) -> None:
    """Redaction reads events, not what the network made of them."""
    event = b'data: {"x": 1, "ssn": "%b"}\n\n' % SECRET.encode()
    middle = event.index(b"05")
    pieces = b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in (event[:middle], event[middle:]))
    head = (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    line, _ = await recorded(
        tmp_path, raw_answer(head + pieces + b"0\r\n\r\n"), Options(redact=MASK_SSN)
    )
    assert line["primary_body"] == 'data: {"x":1,"ssn":"***"}\n\n'


async def test_what_is_redacted_or_not_kept_has_no_hash(tmp_path: Path) -> None:
    """A hash of a short secret is as good as the secret; who wants one all the same, says so."""

    def always(config: Config) -> Config:
        return replace(config, record=replace(config.record, hash=HashPolicy.ALWAYS))

    body, digest = SECRET.encode(), hashlib.sha256(SECRET.encode()).hexdigest()
    for number, (options, expected) in enumerate(
        [
            (Options(redact=MASK_SSN), None),
            (Options(redact=MASK_SSN, adapt=always), None),
            (Options(bodies=Bodies.NONE), None),
            (Options(bodies=Bodies.NONE, adapt=always), digest),
            (Options(), digest),
        ]
    ):
        line, record = await recorded(tmp_path / str(number), answer(b"{}"), options, body)
        assert line["request_sha256"] == record["request_sha256"] == expected


async def test_binary_bodies_are_base64(tmp_path: Path) -> None:
    """With their content type beside them."""
    body = bytes(range(256))
    line, record = await recorded(
        tmp_path, with_headers(body, b"content-type: image/png"), Options(bodies=Bodies.FULL), body
    )
    for each in line, record:
        assert base64.b64decode(each["primary_body"]) == body
        assert base64.b64decode(each["request_body"]) == body
        assert each["primary_body_encoding"] == each["request_body_encoding"] == "base64"
        assert each["primary_content_type"] == "image/png"


async def test_a_route_may_keep_no_bodies_and_redact_more(tmp_path: Path) -> None:
    """Its own word beats the word for all; its rules come to those for all."""

    def none(config: Config) -> Config:
        return replace(config, routes=(replace(config.routes[0], bodies=Bodies.NONE),))

    def more(config: Config) -> Config:
        rule = RedactRule("name", RedactAction.DROP)
        return replace(config, routes=(replace(config.routes[0], redact=(rule,)),))

    body = orjson.dumps({"ssn": SECRET, "name": SECRET, "y": 1})
    line, record = await recorded(
        tmp_path / "none", answer(body), Options(bodies=Bodies.FULL, adapt=none), body
    )
    assert line["primary_body"] is line["request_body"] is record["primary_prediction"] is None
    assert line["request_sha256"] is None
    line, _ = await recorded(
        tmp_path / "more",
        answer(body),
        Options(bodies=Bodies.FULL, redact=MASK_SSN, adapt=more),
        body,
    )
    assert line["primary_body"] == line["request_body"] == '{"ssn":"***","y":1}'


async def test_a_unit_is_recorded_under_a_key_and_decided_without(tmp_path: Path) -> None:
    """Equal for one user, after a restart too; nobody without the key can try all users."""
    options = Options(split=Split(SplitKind.HEADER, "x-user-id"), weight_bp={"v2": 5000})
    extra = b"x-user-id: %b\r\n" % SECRET.encode()
    first, _ = await recorded(tmp_path, answer(b"{}"), options, extra=extra)
    key = kept_key(tmp_path)
    for path in (tmp_path / "journal").glob("*/*"):
        path.unlink()
    again, _ = await recorded(tmp_path, answer(b"{}"), options, extra=extra)
    assert first["unit_hash"] == again["unit_hash"]
    assert kept_key(tmp_path) == key
    (tmp_path / FILE_NAME).unlink()
    for path in (tmp_path / "journal").glob("*/*"):
        path.unlink()
    other, _ = await recorded(tmp_path, answer(b"{}"), options, extra=extra)
    assert other["unit_hash"] != first["unit_hash"]
    assert other["served_by"] == first["served_by"]


async def test_replicas_with_the_same_key_record_the_same_hash(tmp_path: Path) -> None:
    """A key of the config makes no file; a route's name is a part of the hash."""

    def keyed(config: Config) -> Config:
        return replace(config, record=replace(config.record, hash_key="a key of the whole fleet"))

    hashes = set()
    for name in "ab":
        line, _ = await recorded(
            tmp_path / name, answer(b"{}"), Options(adapt=keyed), extra=b"x-user-id: ada\r\n"
        )
        hashes.add(line["unit_hash"])
        assert not (tmp_path / name / FILE_NAME).exists()
    assert len(hashes) == 1


async def test_without_a_place_for_the_key_users_are_served(tmp_path: Path) -> None:
    """Pairs get hashes that join with those of this run alone."""
    tmp_path.joinpath(FILE_NAME).write_text("cut")
    line, _ = await recorded(tmp_path, answer(b"{}"), Options(), extra=b"x-user-id: ada\r\n")
    assert len(line["unit_hash"]) == 16
