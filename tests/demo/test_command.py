"""`understudy demo` as a person runs it: as a process, whole."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import orjson
import psutil
import pytest

from tests.support.deadline import PATIENCE_S, wait_for

COMMAND = [sys.executable, "-m", "proxy", "demo", "--fast", "--no-browser"]
#: As a shell starts what `&` sends to the background: Ctrl-C is not for it.
IN_BACKGROUND = ["/bin/sh", "-c", 'trap "" INT; exec "$@"', "sh"]
#: On a machine that runs other things, too.
LIMIT_S = 600


@contextmanager
def _demo(*options: str, directory: Path, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the demo on a terminal that is copied to a file; check that nothing is left at the end.

    With `--json` the JSON goes to a file beside it.
    """
    command = [*IN_BACKGROUND, *COMMAND, "--dir", str(directory), *options]
    ours, theirs = pty.openpty()
    with output.with_suffix(".json").open("wb") as document:
        stdout = document if "--json" in options else theirs
        process = subprocess.Popen(command, stdout=stdout, stderr=theirs, cwd=output.parent)
    os.close(theirs)
    output.touch()
    copying = threading.Thread(target=_copy, args=(ours, output))
    copying.start()
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        copying.join()
        os.close(ours)
    wait_for(lambda: not _using(directory), "every process of the demo to be gone")


def _copy(terminal: int, output: Path) -> None:
    with output.open("wb", buffering=0) as stream, suppress(OSError):  # EIO: the other end closed
        while data := os.read(terminal, 65536):
            stream.write(data)


def _runs(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None


def _using(directory: Path) -> list[str]:
    """Return the processes that work in the demo's folder or serve a model of it."""
    found = []
    for process in psutil.process_iter(["cwd", "cmdline", "status"]):
        info = process.info
        words = " ".join(info["cmdline"] or [])
        if info["status"] != psutil.STATUS_ZOMBIE and (
            (info["cwd"] or "").startswith(str(directory)) or f"{directory}/models" in words
        ):
            found.append(words)
    return found


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
def test_the_demo_holds_what_it_promises_and_is_kept_until_ctrl_c(tmp_path: Path) -> None:
    """All checks pass, the board was live, what it says to try works, Ctrl-C ends all with success."""
    directory, output = tmp_path / "demo", tmp_path / "output"
    with _demo("--keep", "--json", directory=directory, output=output) as process:
        wait_for(
            lambda: "Ctrl-C ends it" in output.read_text() or not _runs(process),
            "it",
            LIMIT_S - 300,
        )
        text = output.read_text()
        _check_found(orjson.loads(output.with_suffix(".json").read_bytes()), text)
        for words in ("requests/s", "own tests", "1/6", "all is right"):
            assert words in text
        assert list((directory / "state" / "pairs").glob("*.ndjson.zst"))
        runtime = orjson.loads((directory / "state" / "runtime.json").read_bytes())
        url = f"http://{runtime['listen']}/v2/models/digits/infer"
        assert url in text
        answer = httpx.post(
            url, content=(directory / "request.json").read_bytes(), timeout=PATIENCE_S
        )
        assert answer.json()["model_version"] == "1"
        answer = httpx.get(f"http://{runtime['admin']}/api/v1/routes", timeout=PATIENCE_S)
        (route,) = answer.json()["routes"]
        assert [c["ramp"]["phase"] for c in route["candidates"]] == ["rolled_back", "rolled_back"]
        before = _received(runtime["admin"])
        wait_for(lambda: _received(runtime["admin"]) > before + 5, "the trickle of traffic")
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 0


def _check_found(document: dict[str, Any], text: str) -> None:
    """Check what the demo found; `text` tells more where it is not what it should be."""
    assert [check for check in document["checks"] if not check["is_passed"]] == [], text
    assert document["ok"] is True
    assert document["requests"] == sum(p["requests"] for p in document["phases"].values())
    good, bad = document["comparison"]["comparisons"]
    assert good["agreement"]["rate"] > 0.99 > bad["agreement"]["rate"]
    good, bad = (each["verdict"]["verdict"] for each in document["comparison"]["candidates"])
    assert good != "halt"
    assert bad == "halt"
    assert {name: ramp["phase"] for name, ramp in document["ramps"].items()} == {
        "v3": "rolled_back", "v2": "promoted", "crash": "rolled_back",
    }  # fmt: skip


def _received(admin: str) -> int:
    status: dict[str, Any] = httpx.get(f"http://{admin}/api/v1/status", timeout=PATIENCE_S).json()
    return int(status["totals"]["received"])


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_end_leaves_anything_running(tmp_path: Path, number: signal.Signals) -> None:
    """In the middle of the traffic, politely or not."""
    directory, output = tmp_path / "demo", tmp_path / "output"
    with _demo(directory=directory, output=output) as process:
        wait_for(lambda: "shadow" in output.read_text(), "the first phase to end")
        assert _using(directory)
        process.send_signal(number)
        code = process.wait(PATIENCE_S)
    assert code == (-number if number is signal.SIGKILL else 130)
    if number is not signal.SIGKILL:
        assert "everything is stopped" in output.read_text()
        assert "Traceback" not in output.read_text()


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
def test_a_proxy_that_dies_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    """The demo says what happened and exits with 1."""
    directory, output = tmp_path / "demo", tmp_path / "output"
    with _demo(directory=directory, output=output) as process:
        wait_for((directory / "state" / "runtime.json").exists, "the proxy")
        runtime = orjson.loads((directory / "state" / "runtime.json").read_bytes())
        wait_for(lambda: "500 users ask" in output.read_text(), "the traffic")
        os.kill(runtime["pid"], signal.SIGKILL)
        assert process.wait(120) == 1
    text = output.read_text()
    assert "error:" in text
    assert "Traceback" not in text


def test_without_scikit_learn_it_says_what_to_install(tmp_path: Path) -> None:
    """One line, and the exit code of an error."""
    (tmp_path / "sklearn.py").write_text("raise ModuleNotFoundError(name='sklearn')\n")
    result = subprocess.run(
        [*COMMAND, "--dir", "demo"],
        capture_output=True,
        cwd=tmp_path,
        check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert result.returncode == 1
    assert result.stderr.decode().splitlines() == [
        "error: the demo needs scikit-learn: pip install '.[demo]' in a clone of Understudy"
    ]


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    """Before anything is started."""
    (tmp_path / "mine").write_text("")
    command = [*COMMAND, "--dir", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, cwd=tmp_path, check=False)
    assert result.returncode == 1
    assert b"holds files that no demo made" in result.stderr
