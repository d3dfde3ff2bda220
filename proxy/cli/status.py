"""`understudy status`: what runs, where traffic goes, and whether the books balance."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from proxy.cli import options
from proxy.cli.admin_api import TIMEOUT_S, UnreachableError, call
from proxy.cli.instance import Instance, find_instance, with_token
from proxy.cli.state_dirs import is_state_dir
from proxy.cli.status_tables import print_status, watch_status
from proxy.control.snapshot import Observer
from proxy.control.status import status as status_of
from proxy.errors import AdminError
from proxy.state.instance_config import RUNTIME_NAME, config_of

WATCH_S = 1.0
#: How long control is given when the state directory could be read instead.
PATIENCE_S = 1.0


def status(
    *,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again every second.")] = False,
    as_json: options.AsJson = False,
    admin: options.Admin = "",
    state_dir: options.StateDir = None,
) -> None:
    """Show processes, routes, candidates, counters and the ledger of a running instance.

    With --state-dir, or when the admin API does not answer, it reads the state directory itself.
    Exit code 0: users are served; 1: they are not, nothing runs, or nobody answers.
    """
    instance = with_token(find_instance(admin, state_dir))

    def fetch() -> dict[str, Any]:
        return _from_folder(state_dir) if state_dir else _fetch(instance)

    if watch and not as_json:
        watch_status(fetch, WATCH_S)
        return
    while True:
        found = fetch()
        if as_json:
            print(orjson.dumps(found).decode(), flush=True)
        else:
            print_status(found)
        if not watch:
            raise typer.Exit(0 if found["running"] and found["ready"] else 1)
        time.sleep(WATCH_S)


def _fetch(instance: Instance) -> dict[str, Any]:
    can_read = instance.state_dir is not None and is_state_dir(instance.state_dir)
    try:
        timeout_s = PATIENCE_S if can_read else TIMEOUT_S
        return call(instance, "GET", "/api/v1/status", timeout_s=timeout_s)
    except UnreachableError as exc:
        if instance.state_dir is None or not can_read:
            raise
        print(f"warning: {exc}; read from {instance.state_dir}", file=sys.stderr)
        return _from_folder(instance.state_dir)


def _from_folder(state_dir: Path) -> dict[str, Any]:
    """Return the status as the folder shows it; of a stopped instance, what it left."""
    config = config_of(state_dir)
    if config is None:
        raise AdminError(f"{state_dir} holds no config of an instance; is it a state directory?")
    observer = Observer(config)
    try:
        found = status_of(observer.snapshot())
    finally:
        observer.close()
    # A launcher takes its runtime.json with it; the heartbeats of its workers are fresh for a while.
    if not found["running"] or not (state_dir / RUNTIME_NAME).exists():
        found |= {"running": False, "ready": False}
        found["problems"] = [f"not running: no process of an instance lives on {state_dir}"]
    return found
