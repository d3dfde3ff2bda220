"""Options that several of typer's commands share, in the words that orders use for theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from proxy.cli.order_options import (
    ADMIN_HELP,
    CANDIDATE_HELP,
    JSON_HELP,
    ROUTE_HELP,
    STATE_DIR_HELP,
)

Admin = Annotated[str, typer.Option(help=ADMIN_HELP, metavar="URL")]
StateDir = Annotated[Path | None, typer.Option(help=STATE_DIR_HELP, metavar="FOLDER")]
AsJson = Annotated[bool, typer.Option("--json", help=JSON_HELP)]
Route = Annotated[str, typer.Option(help=ROUTE_HELP, metavar="ROUTE")]
Candidate = Annotated[str, typer.Option(help=CANDIDATE_HELP, metavar="CANDIDATE")]
