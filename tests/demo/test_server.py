"""The model server, as a process, with real clients."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from tritonclient import http as triton

from proxy.demo.processes import Child, ProcessError, start, start_model, wait_url
from proxy.telemetry import monotonic_s
from tests.support.deadline import PATIENCE_S, START_PATIENCE_S, wait_for
from tests.support.models import digits, trained


def _payload(row: int, **more: object) -> dict[str, object]:
    data = digits().held_out_rows[row].tolist()
    tensor = {"name": "pixels", "shape": [1, 64], "datatype": "FP64", "data": data}
    return {"inputs": [tensor], **more}


@pytest.mark.parametrize("is_binary", [False, True])
def test_tritonclient_gets_what_the_model_says(servers: dict[str, Child], is_binary: bool) -> None:
    """NVIDIA's client, in JSON and in its default, the binary tensor extension."""
    rows = digits().held_out_rows[:4]
    labels, probabilities = trained("digits-v2").model.predict(rows)
    with triton.InferenceServerClient(servers["digits-v2"].url.removeprefix("http://")) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("digits")
        assert client.is_model_ready("digits", "2")
        assert client.get_model_metadata("digits")["versions"] == ["2"]
        pixels = triton.InferInput("pixels", [4, 64], "FP64")
        pixels.set_data_from_numpy(rows, binary_data=is_binary)
        wanted = [
            triton.InferRequestedOutput(name, binary_data=is_binary)
            for name in ("label", "probabilities")
        ]
        answer = client.infer("digits", [pixels], outputs=wanted, request_id="r-1")
        default = client.infer("digits", [pixels])
    assert answer.get_response()["id"] == "r-1"
    assert answer.get_response()["model_version"] == "2"
    assert answer.as_numpy("label").tolist() == labels.tolist()
    assert np.allclose(answer.as_numpy("probabilities"), probabilities, atol=1e-9)
    assert default.as_numpy("label").tolist() == labels.tolist()


def test_every_version_is_served_under_one_name(servers: dict[str, Child]) -> None:
    """The answers differ in model_version alone, so a proxy needs to rewrite nothing."""
    for name, version in (("digits-v1", "1"), ("digits-v2", "2")):
        answer = httpx.post(
            f"{servers[name].url}/v2/models/digits/infer",
            json=_payload(0, id="x"),
            timeout=PATIENCE_S,
        )
        assert answer.status_code == 200
        body = answer.json()
        assert (body["model_name"], body["model_version"], body["id"]) == ("digits", version, "x")
        assert [output["name"] for output in body["outputs"]] == ["label", "probabilities"]
        assert [output["datatype"] for output in body["outputs"]] == ["INT64", "FP64"]


@pytest.mark.parametrize(
    ("path", "content", "status"),
    [
        ("/v2/models/digits/infer", b"{", 400),
        ("/v2/models/digits/infer", b"{}", 400),
        ("/v2/models/other/infer", b"{}", 404),
        ("/v2/models/digits/versions/9/infer", b"{}", 404),
        ("/v2/models/digits/infer", b" " * 2_000_000, 413),
    ],
)
def test_errors_are_json_with_a_reason(
    servers: dict[str, Child], path: str, content: bytes, status: int
) -> None:
    """The protocol's error object, never a page."""
    answer = httpx.post(f"{servers['digits-v1'].url}{path}", content=content, timeout=PATIENCE_S)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]


def test_the_server_counts_what_arrives(servers: dict[str, Child]) -> None:
    """Copies are told apart by the mark that the proxy puts on them."""
    server = servers["digits-v1"]
    before = httpx.get(f"{server.url}/stats", timeout=PATIENCE_S).json()
    started_s = monotonic_s()
    for headers in ({}, {"x-understudy-mirror": "1"}):
        url = f"{server.url}/v2/models/digits/infer"
        httpx.post(url, json=_payload(0), headers=headers, timeout=PATIENCE_S).raise_for_status()
    after = httpx.get(f"{server.url}/stats", timeout=PATIENCE_S).json()
    assert after["infer"] - before["infer"] == 2
    assert after["mirrored"] - before["mirrored"] == 1
    assert started_s <= after["last_infer_s"] <= monotonic_s()


def test_a_bad_server_is_slow_and_fails_as_told(servers: dict[str, Child]) -> None:
    """Half of the answers are 503, all take their time."""
    url = f"{servers['digits-v3'].url}/v2/models/digits/infer"
    started_s = monotonic_s()
    with httpx.Client(timeout=PATIENCE_S) as client:
        statuses = [client.post(url, json=_payload(row)).status_code for row in range(10)]
    assert sorted(statuses) == [200] * 5 + [503] * 5
    assert monotonic_s() - started_s >= 10 * 0.020


def test_a_server_that_cannot_start_shows_why(tmp_path: Path) -> None:
    """The end of its log is in the error."""
    child = start_model("lost", "1", tmp_path / "missing", tmp_path / "log")
    with pytest.raises(ProcessError, match="FileNotFoundError"):
        wait_url(child)


def test_sigterm_ends_a_server_with_success(tmp_path: Path) -> None:
    """And `stop` says so."""
    path = tmp_path / "model"
    trained("digits-v3").model.save(path)
    child = start_model("brief", "3", path, tmp_path / "log")
    wait_url(child, START_PATIENCE_S)
    assert child.stop() == 0


def test_sigterm_while_a_callback_runs_ends_a_server_too() -> None:
    """An exception that a signal handler raises in the callback of a weak reference is lost."""
    script = (
        "import io, signal, sys, weakref\nfrom starlette.applications import Starlette\n"
        "from proxy.demo.listener import serve\n"
        "class Output(io.StringIO):\n"
        "    def write(self, _text):\n"
        "        weakref.ref(set(), lambda _: signal.raise_signal(signal.SIGTERM))\n"
        "sys.stdout = Output()\n"
        "serve(Starlette(), '127.0.0.1', 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, timeout=START_PATIENCE_S)
    assert done.returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """Even SIGKILL leaves nothing running."""
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom proxy.demo.processes import start\n"
        "child = start('sleeper', ['/bin/sleep', '60'], Path(sys.argv[1]))\n"
        "print(child.process.pid, flush=True)\ntime.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        sleeper = psutil.Process(int(parent.stdout.readline()))
        wait_for(lambda: sleeper.name() == "sleep", "the leash to become sleep")
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    wait_for(lambda: not _runs(sleeper), "the sleeper to end")


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_stubborn_child_is_killed_in_the_end(tmp_path: Path) -> None:
    """`stop` always returns."""
    child = start("deaf", ["/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"],
                  tmp_path / "log")  # fmt: skip
    wait_for(lambda: child.log.read_text() == "up\n", "the shell to set its trap")
    assert child.stop(timeout_s=0.3) == -signal.SIGKILL
