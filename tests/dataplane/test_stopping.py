"""The graceful stop of client connections: who is still answered."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.dataplane import dataplane, read_answer, request_bytes
from tests.support.upstreams import Upstream, echo

IDLE_FIRST = (True, False)


async def test_a_request_that_has_come_and_is_not_read_is_answered(tmp_path: Path) -> None:
    """On a new connection as on one that was idle; and the answer says that it is the last."""
    async with (
        Upstream(echo) as primary,
        dataplane(tmp_path, primary=primary.port, candidates={}) as plane,
    ):
        clients = [await plane.connect() for _ in IDLE_FIRST]
        for was_idle, (reader, writer) in zip(IDLE_FIRST, clients, strict=True):
            if was_idle:
                writer.write(request_bytes(b"POST", b"/", b"first", b""))
                assert (await read_answer(reader))[2] == b"first"
        for _, writer in clients:  # at once: the loop has no turn before the stop
            os.write(
                writer.get_extra_info("socket").fileno(),
                request_bytes(b"POST", b"/", b"last", b""),
            )
        for connection in tuple(plane.connections):
            connection.shutdown()
        for reader, writer in clients:
            status, fields, body = await read_answer(reader)
            assert (status, fields[b"connection"], body) == (200, b"close", b"last")
            assert await reader.read() == b""
            writer.close()


async def test_a_connection_without_a_request_ends_at_once(tmp_path: Path) -> None:
    """Nobody waits for an answer there."""
    async with (
        Upstream(echo) as primary,
        dataplane(tmp_path, primary=primary.port, candidates={}) as plane,
    ):
        reader, writer = await plane.connect()
        writer.write(request_bytes(b"POST", b"/", b"first", b""))
        await read_answer(reader)
        (connection,) = plane.connections
        connection.shutdown()
        assert await reader.read() == b""
        writer.close()
