"""Finding the running instance, and talking to its admin API.

Order: `--state-dir`, `--admin`, `UNDERSTUDY_ADMIN`, the instance whose state lies in the current
folder, the config in the current folder. Whoever knows the state directory knows the ports (from
`runtime.json`) and, if it may read the config there, the token.

It speaks HTTP with the standard library, because `kill` must be quick: importing httpx took 200 ms
where `http.client` took 40 ms (two cores, warm cache).
"""

from __future__ import annotations

import http.client
import os
import pwd
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson

from proxy.config.resolved import Config, loads
from proxy.errors import AdminError, ConfigError

#: Config files looked for in the current folder, in this order.
CONFIG_NAMES = ("understudy.yaml", "understudy.yml", "config/understudy.yaml")
DEFAULT_STATE_DIR = "state"
TIMEOUT_S = 5.0


class UnreachableError(AdminError):
    """The admin API did not answer: control may be dead, hung or being replaced."""


@dataclass(frozen=True, slots=True)
class Instance:
    """Where an instance is reached; an empty URL or a state_dir of None means *not known*."""

    admin_url: str
    token: str
    state_dir: Path | None


def find_instance(admin: str, state_dir: Path | None) -> Instance:
    """Return the instance that the options, the environment or the current folder name.

    Args:
        admin: the value of `--admin`, or empty.
        state_dir: the value of `--state-dir`, or None.

    Raises:
        AdminError: there is none; says where it was looked for.
    """
    token = os.environ.get("UNDERSTUDY_TOKEN", "")
    if state_dir is not None:
        if not state_dir.is_dir():
            raise AdminError(f"--state-dir: {state_dir} is no folder")
        return _of_state_dir(state_dir, token)
    url = admin or os.environ.get("UNDERSTUDY_ADMIN", "")
    if url:
        return Instance(_checked(url), token, None)
    # Looked at before the config, which takes 0.3 s to load and may be broken while it is edited:
    # neither may keep a kill waiting.
    near = Path(DEFAULT_STATE_DIR)
    if _is_running(near):
        return _of_state_dir(near, token)
    for name in CONFIG_NAMES:
        if Path(name).is_file():
            return _of_config(Path(name), token)
    raise AdminError(
        "no running instance found: give --admin URL or --state-dir FOLDER, set UNDERSTUDY_ADMIN, "
        f"or run this in the folder of its config ({', '.join(CONFIG_NAMES)})"
    )


def call(
    instance: Instance,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> dict[str, Any]:
    """Return the JSON answer of the admin API.

    Raises:
        UnreachableError: it did not answer within `timeout_s`.
        AdminError: it refused; the text is its own.
    """
    if not instance.admin_url:
        raise UnreachableError("no instance runs here (no runtime.json in its state directory)")
    status, data = _exchange(instance, method, path, body, timeout_s)
    try:
        answer = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise AdminError(
            f"{instance.admin_url} is no Understudy admin API: it answered {status} without JSON"
        ) from exc
    if not isinstance(answer, dict) or status >= 400:
        reason = answer.get("error", "no reason given") if isinstance(answer, dict) else answer
        hint = "; set UNDERSTUDY_TOKEN" if status == 401 else ""
        raise AdminError(f"{instance.admin_url} refused ({status}): {reason}{hint}")
    return answer


def operator() -> str:
    """Return who runs this command, as `user@host`."""
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # an arbitrary user id in a container
        user = f"uid {os.getuid()}"
    return f"{user}@{os.uname().nodename}"


def config_of(state_dir: Path) -> Config | None:
    """Return the resolved config that an instance runs or last ran; None if there is none."""
    runtime = _read_runtime(state_dir)
    folder = state_dir / "config"
    paths = [folder / f"{runtime['config_version']}.json"] if runtime else []
    try:
        if not paths:
            paths = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)[-1:]
        return loads(paths[0].read_bytes()) if paths else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _exchange(
    instance: Instance, method: str, path: str, body: dict[str, Any] | None, timeout_s: float
) -> tuple[int, bytes]:
    parts = urlsplit(instance.admin_url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout_s)
    headers = {"accept": "application/json", "x-understudy-actor": operator()}
    if instance.token:
        headers["authorization"] = f"Bearer {instance.token}"
    if body is not None:
        headers["content-type"] = "application/json"
    data = None if body is None else orjson.dumps(body)
    try:
        connection.request(method, parts.path.rstrip("/") + path, data, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException) as exc:
        reason = f"no answer within {timeout_s:g} s" if isinstance(exc, TimeoutError) else str(exc)
        raise UnreachableError(f"cannot reach {instance.admin_url}: {reason}") from exc
    finally:
        connection.close()


def _of_state_dir(state_dir: Path, token: str) -> Instance:
    runtime = _read_runtime(state_dir)
    url = f"http://{runtime['admin']}" if runtime else ""
    if not token and (config := config_of(state_dir)) is not None:
        token = config.admin.token
    return Instance(url, token, state_dir)


def _of_config(path: Path, token: str) -> Instance:
    # Imported here because pydantic and YAML take longer than a kill may.
    from proxy.config.load import load_config  # noqa: PLC0415

    try:
        config = load_config(path)
    except ConfigError as exc:
        raise AdminError(
            f"{path} in the current folder is broken, so it does not say where the instance is; "
            f"give --admin URL or --state-dir FOLDER\n{exc}"
        ) from exc
    found = _of_state_dir(Path(config.state_dir), token or config.admin.token)
    if found.admin_url:
        return found
    return replace(found, admin_url=f"http://{config.admin.listen}")


def _checked(url: str) -> str:
    full = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(full)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise AdminError(f"{url!r} is no admin URL; one looks like http://127.0.0.1:9090")
    return full


def _is_running(state_dir: Path) -> bool:
    runtime = _read_runtime(state_dir)
    if runtime is None:
        return False
    try:
        os.kill(int(runtime["pid"]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read_runtime(state_dir: Path) -> dict[str, Any] | None:
    try:
        found = orjson.loads((state_dir / "runtime.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None
