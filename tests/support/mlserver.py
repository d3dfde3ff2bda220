"""A real MLServer (Seldon's model server) with its scikit-learn runtime, as processes.

Its dependencies clash with nobody's, because it has a virtual environment of its own in
`.cache/mlserver`. That takes a minute or two to make and is made once; the file `.done` in it says
of what, so that another requirement makes it anew.

    with mlservers(environment, tmp_path) as servers:
        servers["logistic"].url
"""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import httpx

from proxy.demo.processes import Child, start
from tests.support.deadline import PATIENCE_S, START_PATIENCE_S, wait_for

ROOT = Path(__file__).parent.parent.parent
ENVIRONMENT = ROOT / ".cache" / "mlserver"
REQUIREMENTS = ("mlserver>=1.7,<1.8", "mlserver-sklearn>=1.7,<1.8")
INSTALL_TIMEOUT_S = 540

#: What uvicorn writes once it listens; the port is a free one.
_LISTENS = re.compile(r"Uvicorn running on (http://127\.0\.0\.1:[0-9]+)")


class InstallError(Exception):
    """MLServer cannot be installed here; the text is the end of what pip said."""


def install(environment: Path = ENVIRONMENT) -> Path:
    """Return MLServer's environment, made if there is none of these requirements yet.

    Raises:
        InstallError: pip could not do it.
    """
    wanted = "\n".join((*REQUIREMENTS, sys.version))
    stamp = environment / ".done"
    environment.parent.mkdir(exist_ok=True)
    with (environment.parent / f"{environment.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one makes it, the others wait
        if stamp.exists() and stamp.read_text() == wanted:
            return environment
        shutil.rmtree(environment, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(environment)])
        _run([str(environment / "bin" / "pip"), "install", "--quiet", *REQUIREMENTS])
        stamp.write_text(wanted)
    return environment


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_TIMEOUT_S)
    except subprocess.CalledProcessError as exc:
        raise InstallError(exc.stderr.decode(errors="replace")[-2_000:]) from exc
    except subprocess.TimeoutExpired as exc:
        raise InstallError(f"not done within {INSTALL_TIMEOUT_S} s") from exc


@contextmanager
def mlservers(environment: Path, folder: Path) -> Iterator[dict[str, Child]]:
    """Serve both models of `iris_models`, each as `iris`, until the block ends.

    Args:
        environment: that `install` returned.
        folder: where models, settings and logs go.
    """
    python = str(environment / "bin" / "python")
    script = Path(__file__).parent / "iris_models.py"
    subprocess.run([python, str(script), str(folder)], check=True, timeout=START_PATIENCE_S)
    with ExitStack() as stack:
        servers = {}
        for name in ("logistic", "tree"):
            _write_settings(folder / name, version=name)
            command = [str(environment / "bin" / "mlserver"), "start", str(folder / name)]
            servers[name] = start(name, command, folder / f"{name}.log")
            stack.callback(servers[name].stop)
        for child in servers.values():
            wait_for(partial(_is_ready, child), f"MLServer {child.name}", START_PATIENCE_S)
        yield servers


def _write_settings(folder: Path, *, version: str) -> None:
    model = {
        "name": "iris",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": "./model.joblib", "version": version},
    }
    server = {
        "host": "127.0.0.1", "http_port": 0, "grpc_port": 0, "metrics_endpoint": None,
        "parallel_workers": 0, "debug": False,
    }  # fmt: skip
    (folder / "model-settings.json").write_text(json.dumps(model))
    (folder / "settings.json").write_text(json.dumps(server))


def _is_ready(child: Child) -> bool:
    child.fail_if_ended()
    found = _LISTENS.search(child.log.read_text(errors="replace"))
    if found is None:
        return False
    child.url = found[1]
    answer = httpx.get(f"{child.url}/v2/models/iris/ready", trust_env=False, timeout=PATIENCE_S)
    return answer.status_code == 200


if __name__ == "__main__":
    install()
