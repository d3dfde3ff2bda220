"""The log: one shape for all processes, and nobody waits for its reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress

from hypothesis import given, strategies as st

from proxy import log
from proxy.telemetry import rfc3339
from tests.support.deadline import START_PATIENCE_S

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=6000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip


@given(event=st.text(), fields=st.dictionaries(st.text(), _JSON, max_size=8))
def test_every_line_is_one_json_object_that_fits_a_pipe(
    event: str, fields: dict[str, object]
) -> None:
    """Whatever is logged, and no field takes the place of those that say who speaks."""
    data = log.line("worker 0", "info", event, fields, 1_700_000_000_000)
    assert len(data) <= log.MAX_LINE_BYTES
    assert data.count(b"\n") == 1
    found = json.loads(data)
    assert list(found)[:4] == ["ts", "level", "process", "event"]
    assert found["ts"] == rfc3339(1_700_000_000_000)
    assert (found["process"], found["level"]) == ("worker 0", "info")


def test_what_does_not_fit_loses_its_middle() -> None:
    """The end of a traceback says most, and its beginning where it came from."""
    told = json.loads(log.line("control", "error", "x", {"exception": f"first{'é' * 9000}last"}))
    assert told["exception"].startswith("first")
    assert told["exception"].endswith("last")


_LOGGER = """
import asyncio, logging, sys, warnings
from proxy.log_records import configure
configure("worker 3")
logging.getLogger("understudy.worker").info("hello %s", "you")
logging.getLogger("uvicorn.error").info("not worth a line")
logging.getLogger("uvicorn.error").warning("Exceeded concurrency limit.")
logging.getLogger("asyncio").error("Task exception was never retrieved")
warnings.warn("old")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("understudy.worker").exception("broken")
raise LookupError("nobody caught me")
"""


def test_libraries_tracebacks_and_what_nobody_catches_have_the_same_shape() -> None:
    """One formatter for uvicorn, asyncio, warnings and the interpreter's own last words."""
    done = subprocess.run([sys.executable, "-c", _LOGGER], capture_output=True, check=False)
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert all(list(line)[:4] == ["ts", "level", "process", "event"] for line in lines)
    assert {line["process"] for line in lines} == {"worker 3"}
    assert [(line["level"], line.get("logger")) for line in lines] == [
        ("info", "understudy.worker"),
        ("warning", "uvicorn.error"),
        ("error", "asyncio"),
        ("warning", "py.warnings"),
        ("error", "understudy.worker"),
        ("critical", None),
    ]
    assert "ZeroDivisionError" in lines[4]["exception"]
    assert "nobody caught me" in lines[5]["exception"]


_FLOODER = """
from proxy.log import emit
for number in range(1000):
    emit("launcher", "info", "flood", {"number": number, "text": "x" * 3000})
"""


def test_a_reader_that_does_not_read_stops_nobody() -> None:
    """Lines are dropped whole, and what is in the pipe is whole lines."""
    reader, writer = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-c", _FLOODER], stderr=writer, timeout=START_PATIENCE_S, check=False
        )
        assert done.returncode == 0
        os.set_blocking(reader, False)
        data = b""
        with suppress(BlockingIOError):
            while piece := os.read(reader, 65536):
                data += piece
    finally:
        os.close(reader)
        os.close(writer)
    assert data.endswith(b"\n")
    assert [json.loads(line)["number"] for line in data.splitlines()] == list(
        range(data.count(b"\n"))
    )


def test_a_line_needs_no_logging() -> None:
    """The launcher imports almost nothing."""
    code = "import sys, proxy.launcher.log; sys.exit('logging' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
