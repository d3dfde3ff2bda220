"""curl and httpx through a whole instance: what they do by habit works, and is recorded.

Against a server that gives every tensor back; the candidate is the same.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.support.deadline import PATIENCE_S
from tests.support.identity_server import CODINGS, identity_server
from tests.support.instance import Instance, running
from tests.support.shadowed import records_of, shadow_config

pytestmark = pytest.mark.slow

PATH = "/v2/models/identity/infer"
CURL = shutil.which("curl") or ""
needs_curl = pytest.mark.skipif(not CURL, reason="no curl on the path")
#: Longer than a client that is not told to go on waits before it sends its body anyway.
EXPECT_TIMEOUT_S = 180
CURL_TIMEOUT_S = 60


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Instance]:
    """Run a proxy that keeps answers of some megabytes for the comparison."""
    folder = tmp_path_factory.mktemp("http")
    route = {"name": "identity", "protocol": "open-inference"}
    limits = {"record_body": "4MiB"}
    with (
        identity_server(folder) as server,
        running(shadow_config(route, server.url, server.url, limits=limits), folder) as instance,
    ):
        yield instance


def _ask(size: int) -> tuple[bytes, list[float]]:
    """Return a request with a tensor of `size` numbers, and the numbers."""
    numbers = [number / 8 for number in range(size)]
    tensor = {"name": "x", "datatype": "FP64", "shape": [size], "data": numbers}
    return orjson.dumps({"inputs": [tensor]}), numbers


def _curl(instance: Instance, body: Path, name: str, *flags: str) -> tuple[dict[str, Any], str]:
    """Post `body`; return the answer, and what curl tells of the exchange."""
    command = [
        CURL, "--silent", "--show-error", "--verbose", "--fail", "--noproxy", "*",
        "--max-time", str(CURL_TIMEOUT_S),
        "--header", "content-type: application/json", "--header", f"x-request-id: {name}",
        "--data-binary", f"@{body}", *flags, f"{instance.base_url}{PATH}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=2 * CURL_TIMEOUT_S, check=False)
    told = done.stderr.decode(errors="replace")
    assert done.returncode == 0, told
    answer: dict[str, Any] = orjson.loads(done.stdout)
    return answer, told


def _check(instance: Instance, name: str, request_bytes: int, numbers: list[float]) -> None:
    """Check the one record of an exchange that both models answered alike."""
    (record,) = records_of(instance, name, 1)
    assert record["request_bytes"] == request_bytes
    assert (record["primary_status"], record["candidate_status"]) == ("ok", "ok")
    assert record["primary_prediction"] == record["candidate_prediction"] == numbers
    assert (record["comparable"], record["equal"]) == (True, True)


@needs_curl
def test_curl_waits_for_100_continue_before_a_megabyte(proxied: Instance, tmp_path: Path) -> None:
    """It is told to go on at once; it would else wait longer than it may."""
    body, numbers = _ask(140_000)
    assert len(body) > 1_000_000
    (tmp_path / "body").write_bytes(body)
    flags = ("--header", "Expect: 100-continue", "--expect100-timeout", str(EXPECT_TIMEOUT_S))
    answer, told = _curl(proxied, tmp_path / "body", "expect", *flags)
    assert "100 Continue" in told
    assert answer["outputs"][0]["data"] == numbers
    _check(proxied, "expect", len(body), numbers)


@needs_curl
@pytest.mark.parametrize("is_chunked", [False, True])
def test_curl_speaks_http_1_0(proxied: Instance, tmp_path: Path, is_chunked: bool) -> None:
    """An answer without a length ends with the connection, and is never chunked."""
    body, numbers = _ask(5_000)
    (tmp_path / "body").write_bytes(body)
    name = f"old-{is_chunked}"
    flags = ("--header", "x-chunked: yes") if is_chunked else ()
    answer, told = _curl(proxied, tmp_path / "body", name, "--http1.0", *flags)
    assert answer["outputs"][0]["data"] == numbers
    assert "HTTP/1.0\r\n" in told or "HTTP/1.0\n" in told
    assert "transfer-encoding" not in told.lower()
    assert ("< content-length" in told.lower()) is not is_chunked
    _check(proxied, name, len(body), numbers)


@needs_curl
@pytest.mark.parametrize("coding", CODINGS)
def test_curl_compressed_is_answered_in_any_coding(
    proxied: Instance, tmp_path: Path, coding: str
) -> None:
    """Curl decodes what the server sent; the record holds the numbers all the same."""
    body, numbers = _ask(500)
    (tmp_path / "body").write_bytes(body)
    flags = ("--compressed", "--header", f"x-coding: {coding}")
    answer, told = _curl(proxied, tmp_path / "body", f"coded-{coding}", *flags)
    offered = next(line for line in told.lower().splitlines() if "accept-encoding" in line)
    if coding not in offered:
        pytest.skip(f"this curl does not know {coding}")
    assert answer["outputs"][0]["data"] == numbers
    assert f"< content-encoding: {coding}" in told.lower()
    _check(proxied, f"coded-{coding}", len(body), numbers)
    (record,) = records_of(proxied, f"coded-{coding}", 1)
    assert record["primary_content_encoding"] == coding


@needs_curl
def test_curl_sends_chunks_both_ways(proxied: Instance, tmp_path: Path) -> None:
    """A body of unknown length there, an answer of unknown length back."""
    body, numbers = _ask(20_000)
    (tmp_path / "body").write_bytes(body)
    flags = ("--header", "transfer-encoding: chunked", "--header", "x-chunked: yes")
    answer, told = _curl(proxied, tmp_path / "body", "chunks", *flags)
    assert answer["outputs"][0]["data"] == numbers
    assert "< transfer-encoding: chunked" in told.lower()
    _check(proxied, "chunks", len(body), numbers)


@needs_curl
def test_curl_keeps_its_connection(proxied: Instance, tmp_path: Path) -> None:
    """Two requests, one connection."""
    body, _ = _ask(10)
    (tmp_path / "body").write_bytes(body)
    url = f"{proxied.base_url}{PATH}"
    command = [
        CURL, "--silent", "--verbose", "--noproxy", "*", "--max-time", str(CURL_TIMEOUT_S),
        "--data-binary", f"@{tmp_path / 'body'}", url, url,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=2 * CURL_TIMEOUT_S, check=True)
    told = done.stderr.decode(errors="replace")
    assert told.count("< HTTP/1.1 200") == 2
    assert re.search("re-?using existing", told, re.IGNORECASE)
    assert done.stdout.count(b'"outputs"') == 2


def test_httpx_asks_for_many_at_once(proxied: Instance) -> None:
    """Its pool gets each answer where it belongs, bodies of known and of unknown length alike."""

    async def pieces(body: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(body), 1_000):
            yield body[start : start + 1_000]

    async def ask(client: httpx.AsyncClient, number: int) -> httpx.Response:
        body, _ = _ask(number * 50)
        content = pieces(body) if number % 2 else body
        headers = {"x-request-id": f"httpx-{number:02}", "content-type": "application/json"}
        return await client.post(f"{proxied.base_url}{PATH}", content=content, headers=headers)

    async def ask_all() -> list[httpx.Response]:
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
            return await asyncio.gather(*(ask(client, number) for number in range(32)))

    answers = asyncio.run(ask_all())
    records = {record["request_id"]: record for record in records_of(proxied, "httpx-", 32)}
    for number, answer in enumerate(answers):
        body, numbers = _ask(number * 50)
        assert answer.status_code == 200
        assert answer.json()["outputs"][0]["data"] == numbers
        record = records[f"httpx-{number:02}"]
        assert record["request_bytes"] == len(body)
        assert record["primary_prediction"] == record["candidate_prediction"] == numbers
