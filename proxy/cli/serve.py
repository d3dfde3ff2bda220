"""`understudy serve`: checks the config, then becomes the launcher."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

import proxy
from proxy.cli.check import warn
from proxy.config.load import load_config, write_resolved


def serve(
    config: Annotated[Path, typer.Argument(help="The config file (YAML).", metavar="CONFIG")],
) -> None:
    """Run the proxy until SIGTERM or Ctrl-C. A wrong config opens no socket."""
    loaded = load_config(config, looks_at_files=True)
    warn(loaded)
    resolved = write_resolved(loaded)
    # exec, not a call: what it took to check the config is gone from the launcher's memory.
    # -P keeps a folder that is called `proxy` in the current folder from being run instead of us.
    is_source_tree = Path(proxy.__file__).parents[1] == Path.cwd()
    safe_path = () if is_source_tree else ("-P",)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(  # noqa: S606 - no shell is what we want
        sys.executable,
        (
            sys.executable, *safe_path, "-m", "proxy.launcher",
            "--config", str(resolved), "--source", str(config.absolute()),
        ),
    )  # fmt: skip
