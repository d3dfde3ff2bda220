"""`understudy decisions`: who decided what, why, from what to what; and what was refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from proxy.cli import options
from proxy.cli.admin_api import call
from proxy.cli.decision_table import decision_table
from proxy.cli.instance import Instance, find_instance, with_token
from proxy.cli.state_dirs import is_state_dir
from proxy.state.decisions import read_last

#: As many as the admin API gives at once.
MOST = 1_000


def decisions(
    *,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, max=MOST, help="So many of the last ones.")
    ] = 20,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="The whole records, one JSON object a line, as the log has them."
        ),
    ] = False,
    admin: options.Admin = "",
    state_dir: options.StateDir = None,
) -> None:
    """Show the last decisions, the newest at the end: weights, verdicts, kills, revives, reloads, refusals.

    It reads the log of the instance, which need not run; with --admin it asks the admin API.
    """
    found = _fetch(with_token(find_instance(admin, state_dir)), limit)[::-1]
    if as_json:
        sys.stdout.buffer.writelines(orjson.dumps(each) + b"\n" for each in found)
        sys.stdout.buffer.flush()
    elif found:
        Console().print(decision_table(found))
    else:
        print("nothing has been decided yet")


def _fetch(instance: Instance, limit: int) -> list[dict[str, Any]]:
    """Return the last decisions, newest first."""
    folder: Path | None = instance.state_dir
    if folder is not None and is_state_dir(folder):
        return read_last(folder, limit)
    answer = call(instance, "GET", f"/api/v1/decisions?limit={limit}")
    found: list[dict[str, Any]] = answer["decisions"]
    return found
