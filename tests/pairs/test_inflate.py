"""Content-Encoding undone within bounds, and never beyond them."""

from __future__ import annotations

import contextlib
import gzip
import random
import zlib

import brotli
import pytest
import zstandard
from hypothesis import given, strategies as st

from proxy.pairs import inflate as inflate_module
from proxy.pairs.inflate import (
    BOMB_BYTES,
    DAMAGED,
    LIMIT_BYTES,
    SAMPLE_BYTES,
    STEP_BYTES,
    TOO_LARGE,
    UNKNOWN,
    InflateError,
    begins_like_a_bomb,
    defused,
    inflate,
)

TEXT = bytes(range(256)) * 4


def raw_deflate(data: bytes) -> bytes:
    """Return a deflate stream without zlib's header, as some servers send it."""
    encoder = zlib.compressobj(wbits=-15)
    return encoder.compress(data) + encoder.flush()


def streamed_zstd(data: bytes) -> bytes:
    """Return a frame that does not say its size."""
    encoder = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return encoder.compress(data) + encoder.flush()


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(TEXT)),
        ("X-GZIP", gzip.compress(TEXT)),
        ("gzip", gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:])),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw_deflate(TEXT)),
        ("zstd", zstandard.compress(TEXT)),
        ("zstd", streamed_zstd(TEXT)),
        ("zstd", zstandard.compress(TEXT[:100]) + streamed_zstd(TEXT[100:])),
        ("br", brotli.compress(TEXT)),
        ("BR", brotli.compress(TEXT, quality=1)),
        ("br, gzip", gzip.compress(brotli.compress(TEXT))),
        ("deflate, gzip", gzip.compress(zlib.compress(TEXT))),
        ("identity", TEXT),
        ("identity, ,gzip", gzip.compress(TEXT)),
    ],
)
def test_codings_are_undone_in_reverse_order(encoding: str, body: bytes) -> None:
    """Also several members or frames after one another."""
    assert inflate(body, encoding) == TEXT


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_an_empty_body_is_empty_in_any_coding(encoding: str) -> None:
    """Answers to HEAD carry the header and no body."""
    assert inflate(b"", encoding) == b""


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"not gzip"),
        ("gzip", gzip.compress(TEXT)[:-3]),
        ("gzip", gzip.compress(TEXT) + b"trailing"),
        ("deflate", zlib.compress(TEXT)[:-5]),
        ("zstd", zstandard.compress(TEXT)[:-2]),
        ("zstd", streamed_zstd(TEXT)[:-2]),
        ("br", b"not brotli"),
        ("br", brotli.compress(TEXT)[:-3]),
        ("br", brotli.compress(TEXT) + b"trailing"),
    ],
)
def test_what_is_damaged_or_cut_is_refused(encoding: str, body: bytes) -> None:
    """With one word for the record."""
    with pytest.raises(InflateError, match=f"^{DAMAGED}$"):
        inflate(body, encoding)


@pytest.mark.parametrize("encoding", ["compress", "gzip, gzip, gzip", "gzip, dcb", "aws-chunked"])
def test_a_coding_that_is_not_known_is_refused(encoding: str) -> None:
    """With another word: there, nothing is wrong with the data."""
    with pytest.raises(InflateError, match=f"^{UNKNOWN}$"):
        inflate(TEXT, encoding)


def test_without_its_library_brotli_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra; so is one that is too old to set bounds."""
    monkeypatch.setattr(inflate_module, "_HAS_BROTLI", False)
    with pytest.raises(InflateError, match=f"^{UNKNOWN}$"):
        inflate(brotli.compress(TEXT), "br")


BOMB = bytes(16 * 1024 * 1024)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", gzip.compress(BOMB)),
        ("deflate", zlib.compress(BOMB)),
        ("zstd", zstandard.compress(BOMB)),
        ("zstd", streamed_zstd(BOMB)),
        ("br", brotli.compress(BOMB)),
        ("gzip, gzip", gzip.compress(gzip.compress(BOMB))),
        ("gzip", gzip.compress(bytes(10_000)) * 3),
    ],
    ids=["gzip", "deflate", "zstd", "zstd without size", "brotli", "gzip in gzip", "members"],
)
def test_a_bomb_is_left_alone(encoding: str, body: bytes) -> None:
    """Neither beyond 8 MiB nor beyond 100 times its size; before the memory is taken."""
    with pytest.raises(InflateError, match=f"^{TOO_LARGE}$"):
        inflate(body, encoding)


def test_eight_mebibytes_are_allowed_and_no_byte_more() -> None:
    """Data that compresses about 50:1, so that the ratio is not what refuses it."""
    noise = random.Random(1).randbytes(LIMIT_BYTES // 50)
    data = noise + bytes(LIMIT_BYTES)
    whole, more = gzip.compress(data[:LIMIT_BYTES], 1), gzip.compress(data[: LIMIT_BYTES + 1], 1)
    assert 100 * len(whole) > LIMIT_BYTES
    assert len(inflate(whole, "gzip")) == LIMIT_BYTES
    with pytest.raises(InflateError, match=TOO_LARGE):
        inflate(more, "gzip")
    whole, more = (
        brotli.compress(data[:size], quality=1) for size in (LIMIT_BYTES, LIMIT_BYTES + 1)
    )
    assert 100 * len(whole) > LIMIT_BYTES
    assert len(inflate(whole, "br")) == LIMIT_BYTES
    with pytest.raises(InflateError, match=TOO_LARGE):
        inflate(more, "br")


@given(
    body=st.binary(max_size=60),
    encoding=st.sampled_from(("gzip", "deflate", "br", "zstd", "zstd,gzip")),
)
def test_any_bytes_inflate_or_are_refused(body: bytes, encoding: str) -> None:
    """Never another error, never more than the bound."""
    with contextlib.suppress(InflateError):
        assert len(inflate(body, encoding)) <= 100 * len(body)


def test_others_get_a_turn_while_a_bomb_is_inflated() -> None:
    """It is refused after so many steps, and between any two somebody else may go on."""
    bomb = gzip.compress(random.Random(2).randbytes(SAMPLE_BYTES) + bytes(64 << 20))
    assert turns_of(bomb, TOO_LARGE) == 100 * len(bomb) // STEP_BYTES


def test_a_bomb_that_says_its_size_is_not_inflated() -> None:
    """A look at its begin is enough: a candidate that sends many must not keep a core busy."""
    assert turns_of(gzip.compress(bytes(64 << 20)), TOO_LARGE) == 0


@pytest.mark.parametrize(
    "text", [repr(list(range(9999))).encode(), random.Random(3).randbytes(4096)]
)
def test_what_was_cut_is_not_called_a_bomb(text: bytes) -> None:
    """Its last four bytes are no length, whatever number they make."""
    body = gzip.compress(text)[:-12]
    cut = body[:-4] + b"\xff\xff\xff\xff"
    with pytest.raises(InflateError, match=f"^{DAMAGED}$"):
        inflate(cut, "gzip")


BOMB = gzip.compress(bytes(64 << 20))


@pytest.mark.parametrize("encoding", ["gzip", " X-GZIP "])
def test_of_a_bomb_only_the_begin_is_kept(encoding: str) -> None:
    """As much as tells that it was one."""
    begin = defused(BOMB, encoding)
    assert begin == BOMB[:BOMB_BYTES]
    assert begins_like_a_bomb(begin, encoding)


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (BOMB, "br"),
        (BOMB, "gzip, gzip"),
        (b"x" * 2000, "gzip"),
        (gzip.compress(repr(list(range(9999))).encode()), "gzip"),
        (gzip.compress(random.Random(3).randbytes(4096))[:-4] + b"\xff\xff\xff\xff", "gzip"),
        (BOMB[:BOMB_BYTES], "gzip"),
        (b"", "gzip"),
    ],
)
def test_what_may_be_an_honest_answer_is_kept_as_it_is(body: bytes, encoding: str) -> None:
    """Also what is damaged, or only says that it is so large."""
    assert defused(body, encoding) is body


@given(body=st.binary(max_size=2000), encoding=st.sampled_from(("gzip", "x-gzip", "", "br")))
def test_no_bytes_make_the_look_for_bombs_fail(body: bytes, encoding: str) -> None:
    """They come from anybody."""
    assert body.startswith(defused(body, encoding))
    begins_like_a_bomb(body, encoding)


def turns_of(body: bytes, reason: str) -> int:
    """Return how often others had a turn before a body was refused."""
    turns: list[int] = []
    with pytest.raises(InflateError, match=f"^{reason}$"):
        inflate(body, "gzip", between=lambda: turns.append(1))
    return len(turns)
