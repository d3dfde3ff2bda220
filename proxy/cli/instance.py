"""Finding the running instance: its state directory, its admin URL, its token.

Order: `--state-dir`, `--admin`, `UNDERSTUDY_ADMIN`, the instance whose state lies in the current
folder, the config in the current folder. Whoever knows the state directory knows the ports (from
`runtime.json`). The token, which no file there holds, is that of `UNDERSTUDY_TOKEN`, or of the
config in the current folder if that is the instance's.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from proxy.cli.state_dirs import (
    DEFAULT_STATE_DIR,
    MARKS,
    is_running,
    is_state_dir,
)
from proxy.errors import AdminError, ConfigError
from proxy.state.instance_config import CONFIG_NAMES, read_runtime


@dataclass(frozen=True, slots=True)
class Instance:
    """Where an instance is reached; an empty URL or a state_dir of None means *not known*.

    Attributes:
        token: for the admin API; empty where none was found yet (see `token_of`).
        is_named: the state directory is the one that `--state-dir` names.
    """

    admin_url: str
    token: str
    state_dir: Path | None
    is_named: bool = False


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
        _check_state_dir(state_dir)
        return replace(_of_state_dir(state_dir, token), is_named=True)
    url = admin or os.environ.get("UNDERSTUDY_ADMIN", "")
    if url:
        return Instance(_checked(url), token, None)
    # Looked at before the config, which takes 0.3 s to load and may be broken while it is edited:
    # neither may keep a kill waiting.
    near = Path(DEFAULT_STATE_DIR)
    if is_running(near):
        return _of_state_dir(near, token)
    for name in CONFIG_NAMES:
        if Path(name).is_file():
            return _of_config(Path(name), token)
    raise AdminError(
        "no running instance found: give --admin URL or --state-dir FOLDER, set UNDERSTUDY_ADMIN, "
        f"or run this in the folder of its config ({', '.join(CONFIG_NAMES)})"
    )


def with_token(instance: Instance) -> Instance:
    """Return `instance` with the token of the config in the current folder, if it has none yet."""
    if instance.token or instance.state_dir is None:
        return instance
    # Imported here because pydantic and YAML take longer than a kill may.
    from proxy.config.load import load_config  # noqa: PLC0415

    for path in map(Path, CONFIG_NAMES):
        try:
            config = load_config(path) if path.is_file() else None
        except ConfigError:
            continue  # edited just now; without a token the answer says what is missing
        if config is not None and Path(config.state_dir) == instance.state_dir.absolute():
            return replace(instance, token=config.admin.token)
    return instance


def _check_state_dir(folder: Path) -> None:
    """Raise unless `folder` is a state directory: elsewhere an order would reach nobody."""
    if not folder.is_dir():
        raise AdminError(f"--state-dir: {folder} is no folder")
    if is_state_dir(folder):
        return
    inside = folder / DEFAULT_STATE_DIR
    hint = (
        f"did you mean {inside}?" if is_state_dir(inside) else "look for `state_dir` in its config"
    )
    raise AdminError(
        f"--state-dir: {folder} is no state directory, so nothing was done: it holds none of "
        f"{', '.join(MARKS)}; {hint}"
    )


def _of_state_dir(state_dir: Path, token: str) -> Instance:
    runtime = read_runtime(state_dir)
    return Instance(f"http://{runtime['admin']}" if runtime else "", token, state_dir)


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
