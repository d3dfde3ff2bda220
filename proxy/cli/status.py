"""`understudy status`: what runs, where traffic goes, and whether the books balance."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from proxy.cli import options
from proxy.cli.instance import TIMEOUT_S, Instance, UnreachableError, call, config_of, find_instance
from proxy.cli.status_tables import print_status, watch_status
from proxy.control.snapshot import Observer
from proxy.control.status import status as status_of
from proxy.errors import AdminError

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
    """
    instance = find_instance(admin, state_dir)

    def fetch() -> dict[str, Any]:
        return _from_folder(state_dir) if state_dir else _fetch(instance)

    if as_json:
        while True:
            print(orjson.dumps(fetch()).decode(), flush=True)
            if not watch:
                return
            time.sleep(WATCH_S)
    if watch:
        watch_status(fetch, WATCH_S)
    else:
        print_status(fetch())


def _fetch(instance: Instance) -> dict[str, Any]:
    timeout_s = TIMEOUT_S if instance.state_dir is None else PATIENCE_S
    try:
        return call(instance, "GET", "/api/v1/status", timeout_s=timeout_s)
    except UnreachableError as exc:
        if instance.state_dir is None:
            raise
        print(f"warning: {exc}; read from {instance.state_dir}", file=sys.stderr)
        return _from_folder(instance.state_dir)


def _from_folder(state_dir: Path) -> dict[str, Any]:
    config = config_of(state_dir)
    if config is None:
        raise AdminError(f"{state_dir} holds no config of an instance; is it a state directory?")
    observer = Observer(config)
    try:
        return status_of(observer.snapshot())
    finally:
        observer.close()
