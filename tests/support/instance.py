"""A whole running instance, started as an operator starts it: `python -m proxy serve CONFIG`.

    with running({"backends": …, "routes": […]}, tmp_path) as instance:
        httpx.post(f"{instance.base_url}/v2/models/iris/infer", json={…})

Ports are free ones, `state_dir` lies in `tmp_path`; the end of the block stops it and asserts that it
went with exit code 0. When the block or the stop fails, the processes' stderr is in the report.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml

from tests.support.deadline import PATIENCE_S, START_PATIENCE_S, wait_for

#: How an operator's command is run, in this interpreter.
COMMAND = (sys.executable, "-m", "proxy")


class Instance:
    """A running instance.

    Attributes:
        state_dir: its state directory.
        process: the launcher (it has replaced the CLI by exec).
        token: the admin token, as `UNDERSTUDY_TOKEN` in the environment of its start said.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], state_dir: Path, stderr: Path, token: str
    ) -> None:
        self.process = process
        self.state_dir = state_dir
        self.token = token
        self._stderr = stderr
        self._expected_code = 0

    @property
    def runtime(self) -> dict[str, Any]:
        """What `runtime.json` says now; empty while there is none."""
        with suppress(FileNotFoundError):
            found: dict[str, Any] = json.loads((self.state_dir / "runtime.json").read_bytes())
            return found
        return {}

    @property
    def base_url(self) -> str:
        """Where users send their requests."""
        runtime = self.runtime
        return f"{runtime['scheme']}://{runtime['listen']}"

    @property
    def admin_url(self) -> str:
        """Where the admin API listens."""
        return f"http://{self.runtime['admin']}"

    @property
    def pids(self) -> dict[str, int]:
        """The process ids by name: `worker 0`, `recorder 0`, `control`; 0 while one is down."""
        return {entry["name"]: entry["pid"] for entry in self.runtime.get("processes", [])}

    @property
    def stderr(self) -> str:
        """Everything that all processes wrote to stderr so far."""
        return self._stderr.read_text(errors="replace")

    def log(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of one event; the last line may be half written by now."""
        whole = (line for line in self.stderr.splitlines(keepends=True) if line.endswith("\n"))
        lines = [json.loads(line) for line in whole if line.startswith("{")]
        return [line for line in lines if line.get("event") == event]

    def admin(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Send a request to the admin API, with the token."""
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        url = f"{self.admin_url}{path}"
        # Without TLS there is nothing to verify, and reading the authorities takes 30 ms each time.
        return httpx.request(
            method,
            url,
            json=body,
            headers=headers,
            timeout=PATIENCE_S,
            trust_env=False,
            verify=False,
        )

    def status(self) -> dict[str, Any]:
        """Return the status document."""
        answer = self.admin("GET", "/api/v1/status")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def is_ready(self) -> bool:
        """Return whether users are served."""
        return self._readiness() is not None

    def is_healthy(self) -> bool:
        """Return whether users are served and nothing at all is wrong."""
        return self._readiness() == []

    def _readiness(self) -> list[str] | None:
        """Return the problems, or None while users are not served."""
        with suppress(httpx.TransportError, KeyError):
            if self.runtime["pid"] != self.process.pid:
                return None  # its predecessor left this file
            answer = self.admin("GET", "/readyz")
            if answer.status_code == 200:
                found: list[str] = answer.json()["problems"]
                return found
        return None

    def cli(
        self, *words: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run an `understudy` command that finds this instance by `UNDERSTUDY_ADMIN`."""
        environment = {"UNDERSTUDY_ADMIN": self.admin_url, "UNDERSTUDY_TOKEN": self.token}
        return understudy(*words, env={**environment, **(env or {})}, cwd=cwd)

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to one of the processes, such as `worker 0`."""
        pid = self.pids[name]
        assert pid, f"{name} is down"  # 0 would mean this process and all beside it
        os.kill(pid, number)

    def kill(self) -> None:
        """Kill the launcher with SIGKILL; what it started must find out by itself."""
        self._expected_code = -signal.SIGKILL
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def stop(self) -> None:
        """Stop it with SIGTERM.

        Raises:
            AssertionError: it did not stop in time, or not with exit code 0.
        """
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(PATIENCE_S)
        assert code == self._expected_code, f"the launcher ended with {code}"


def understudy(
    *words: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float = START_PATIENCE_S,
) -> subprocess.CompletedProcess[str]:
    """Run an `understudy` command to its end."""
    return subprocess.run(
        [*COMMAND, *words],
        capture_output=True, text=True, timeout=timeout_s, check=False, cwd=cwd,
        env={**_clean_environment(), **(env or {})},
    )  # fmt: skip


@contextmanager
def running(
    config: str | Mapping[str, Any],
    tmp_path: Path,
    *,
    env: Mapping[str, str] | None = None,
    wait_healthy: bool = True,
    start_timeout_s: float = START_PATIENCE_S,
) -> Iterator[Instance]:
    """Run an instance until the end of the block.

    Args:
        config: YAML as it is (with ports 0 and a `state_dir` of `tmp_path/"state"`), or a mapping
            in which `listen`, `admin` and `state_dir` may be left out. One without `limits.mirror_lag` makes
            all copies, and one without `record.niceness` records as soon as it can, however slow the machine.
        tmp_path: where config, state and stderr go; start it there again to restart an instance.
        env: variables beside the inherited ones.
        start_timeout_s: how long it may take until it is up.
        wait_healthy: wait until nothing is wrong; else only until users are served.

    Raises:
        AssertionError: it does not start, or does not stop with exit code 0.
    """
    path = tmp_path / "understudy.yaml"
    path.write_text(config if isinstance(config, str) else yaml.safe_dump(_whole(config, tmp_path)))
    stderr = tmp_path / "stderr.log"
    environment = {**_clean_environment(), **(env or {})}
    with stderr.open("ab") as file:
        process = subprocess.Popen(
            [*COMMAND, "serve", str(path)],
            stdout=subprocess.DEVNULL, stderr=file, env=environment,
        )  # fmt: skip
    token = environment.get("UNDERSTUDY_TOKEN", "")
    instance = Instance(process, _state_dir(path, tmp_path), stderr, token)
    is_up = instance.is_healthy if wait_healthy else instance.is_ready
    try:
        wait_for(lambda: process.poll() is not None or is_up(), "the instance", start_timeout_s)
        assert process.poll() is None, "it ended while starting"
        yield instance
        instance.stop()
    except BaseException as exc:
        exc.add_note(f"--- stderr of the instance ---\n{instance.stderr[-8000:]}")
        raise
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill whatever is left of the tree."""
    left = []
    with suppress(psutil.NoSuchProcess):
        left = psutil.Process(process.pid).children(recursive=True)
    if process.poll() is None:
        process.kill()
    process.wait()
    for child in left:
        with suppress(psutil.NoSuchProcess):
            child.kill()


def _whole(config: Mapping[str, Any], tmp_path: Path) -> dict[str, Any]:
    defaults = {
        "listen": "127.0.0.1:0",
        "admin": {"listen": "127.0.0.1:0", "token": "${UNDERSTUDY_TOKEN:-}"},
        "state_dir": str(tmp_path / "state"),
    }
    limits = {"mirror_lag": 0, **config.get("limits", {})}
    record = {"niceness": 0, **config.get("record", {})}
    return {**defaults, **config, "limits": limits, "record": record}


def _state_dir(path: Path, tmp_path: Path) -> Path:
    found = yaml.safe_load(path.read_text())
    given = found.get("state_dir") if isinstance(found, dict) else None
    return Path(str(given)).resolve() if given else tmp_path / "state"


def _clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith("UNDERSTUDY_")}
