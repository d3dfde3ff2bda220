"""The one way from a config file to a `Config`: read, parse, expand, check, resolve.

All faults are collected and told at once, in the order of the file. Nothing here opens a socket or
touches `state_dir`; `write_resolved` does the latter, for `serve` and for a reload.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from proxy.config import secrets, yaml_tree
from proxy.config.cross_checks import cross_check
from proxy.config.extras import missing_extras
from proxy.config.faults import dotted, explain
from proxy.config.resolve import resolve, resolve_tls, resolve_upstream_tls
from proxy.config.resolved import Config, Tls, UpstreamTls
from proxy.config.schema import ConfigFile
from proxy.config.tls_files import tls_faults
from proxy.errors import ConfigError, ConfigFault, StateError


def load_config(
    path: Path | str,
    environ: Mapping[str, str] | None = None,
    *,
    looks_at_files: bool = False,
) -> Config:
    """Return the config in the YAML file at `path`, checked and complete.

    Args:
        path: the file; faults name it as it is given here.
        environ: what `${VAR}` is taken from; the process's environment by default.
        looks_at_files: check what the file names as well (TLS). Whoever only asks what the config
            says may be on another machine, or not be allowed to read a key.

    Raises:
        ConfigError: with every fault found, in the order of the file.
    """
    name = str(path)
    text = _read(Path(path), name)
    tree = yaml_tree.parse(text, os.environ if environ is None else environ)
    if tree.value is None and not tree.faults:
        raise ConfigError([ConfigFault(name, 0, "", "the file is empty; see `understudy init`")])
    file, found = _check(tree)
    if looks_at_files and file is not None:
        found += _check_tls_files(tree, file)
    if found or file is None:
        faults = [ConfigFault(name, line, dotted(at), text) for line, at, text in found]
        raise ConfigError(sorted(dict.fromkeys(faults), key=lambda fault: fault.line))
    return resolve(file, host_name=socket.gethostname(), folder=Path.cwd())


def write_resolved(config: Config) -> Path:
    """Write `config` to `state_dir/config/<version>.json` for a start, and return that path.

    Its secrets are left out: they are put into this process's environment, where `read_whole` of the
    processes that it becomes or starts finds them (`proxy.config.secrets`). Folders are made with
    mode 0700, the file with 0600. It is replaced atomically, so a process that reads it meanwhile
    sees the old one or the new one.

    Raises:
        StateError: it cannot be written, or its secrets are too long; says why.
    """
    data, os.environ[secrets.VARIABLE] = secrets.apart(config)
    return _write(config, data, is_synced=True)


def write_again(config: Config) -> Path:
    """Write `config` as `write_resolved` does, for processes that have their secrets already.

    It is not synced, which may take long: the caller sees to that when nobody waits any more.

    Raises:
        NewSecretsError: it has others; nothing was written.
        StateError: it cannot be written.
    """
    return _write(config, secrets.apart_again(config), is_synced=False)


def _write(config: Config, data: bytes, *, is_synced: bool) -> Path:
    folder = Path(config.state_dir) / "config"
    path = folder / f"{config.version}.json"
    fresh = folder / f".{config.version}.{os.getpid()}.new"
    try:
        for each in (Path(config.state_dir), folder):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                if is_synced:
                    os.fsync(file.fileno())
            fresh.replace(path)
        finally:
            fresh.unlink(missing_ok=True)
    except OSError as exc:
        raise StateError(
            f"cannot write {exc.filename or path}: {exc.strerror}; `state_dir` must be a folder "
            "that Understudy may write"
        ) from exc
    return path


def _read(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(yaml_tree.MAX_BYTES + 1)
    except FileNotFoundError:
        message = "there is no such file; `understudy init` writes one to start from"
        raise ConfigError([ConfigFault(name, 0, "", message)]) from None
    except OSError as exc:
        message = f"cannot be read: {exc.strerror}"
        raise ConfigError([ConfigFault(name, 0, "", message)]) from exc
    if len(data) > yaml_tree.MAX_BYTES:
        message = f"is larger than {yaml_tree.MAX_BYTES // 1024:,} KiB, so it is no config"
        raise ConfigError([ConfigFault(name, 0, "", message)])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        message = f"the byte 0x{data[exc.start]:02x} is not UTF-8; save the file as UTF-8"
        raise ConfigError([ConfigFault(name, line, "", message)]) from exc


#: A fault before it has the file's name: line, path, message.
_Found = tuple[int, yaml_tree.Path, str]


def _check(tree: yaml_tree.Tree) -> tuple[ConfigFile | None, list[_Found]]:
    """Return the file if its values can be read, and everything found wrong with it."""
    found: list[_Found] = [(mark.line, mark.path, mark.message) for mark in tree.faults]
    if tree.value is None:
        return None, found
    # What is wrong already at some place is not told again in other words.
    told = {mark.path for mark in tree.faults if mark.path}
    file, errors = _validate(tree.value)
    for path, message in errors:
        if path not in told:
            found.append((tree.line(path), path, message))
    told |= {path for path, _ in errors}
    # Without one of its backends a config has faults that are none.
    if file is None and not any(path[:-1] == ("backends",) for path in told):
        file, _ = _validate(_without(tree.value, told))
    if file is not None:
        for path, message in (*cross_check(file), *missing_extras(file)):
            if not _is_told(path, told):
                found.append((tree.line(path), path, message))
    return file, found


def _check_tls_files(tree: yaml_tree.Tree, file: ConfigFile) -> list[_Found]:
    named: list[tuple[yaml_tree.Path, Tls | UpstreamTls]] = [
        (("backends", name, "tls"), resolve_upstream_tls(backend.tls, Path.cwd()))
        for name, backend in file.backends.items()
        if any(endpoint.is_tls for endpoint in backend.endpoints)
    ]
    if file.tls is not None:
        named.append((("tls",), resolve_tls(file.tls, Path.cwd())))
    return [
        (tree.line((*path, key)), (*path, key), message)
        for path, tls in named
        for key, message in tls_faults(tls)
    ]


def _validate(value: Any) -> tuple[ConfigFile | None, list[tuple[yaml_tree.Path, str]]]:
    try:
        return ConfigFile.model_validate(value), []
    except ValidationError as exc:
        return None, explain(ConfigFile, exc.errors(include_url=False))


def _is_told(path: yaml_tree.Path, told: set[yaml_tree.Path]) -> bool:
    """Tell whether a fault at `path` may only follow from one that is told already.

    A faulty key was left out of what was checked further, so its default stood in for it: what
    does not fit there, or right beside it, may fit once it is mended.
    """
    return any(
        path[: len(at)] == at or (len(at) > 1 and path[:-1] == _key_of(at)[:-1]) for at in told
    )


def _without(value: Any, faulty: set[yaml_tree.Path]) -> Any:
    """Return `value` without the faulty keys, so that the rest can be checked further.

    A key inside a list goes with its key only: list items keep their places.
    """
    return _pruned(value, (), {_key_of(path) for path in faulty})


def _key_of(path: yaml_tree.Path) -> yaml_tree.Path:
    while path and isinstance(path[-1], int):
        path = path[:-1]
    return path


def _pruned(value: Any, path: yaml_tree.Path, faulty: set[yaml_tree.Path]) -> Any:
    if isinstance(value, dict):
        return {
            key: _pruned(inner, (*path, key), faulty)
            for key, inner in value.items()
            if (*path, key) not in faulty
        }
    if isinstance(value, list):
        return [_pruned(inner, (*path, index), faulty) for index, inner in enumerate(value)]
    return value
