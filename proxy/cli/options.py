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
PairSource = Annotated[
    str,
    typer.Option(
        "--from",
        help="A state directory, a folder or file of pairs (NDJSON, Parquet), or "
        "kafka://HOST:PORT/TOPIC.",
        metavar="SOURCE",
    ),
]
Since = Annotated[
    str, typer.Option(help="Only from then on: 15m, 2h, 7d ago, or an ISO time.", metavar="T")
]
Until = Annotated[str, typer.Option(help="Only before then, written likewise.", metavar="T")]
Labels = Annotated[
    str,
    typer.Option(
        help="Where labels are, written as for --from; by default beside the pairs. none: without.",
        metavar="SOURCE",
    ),
]
Tolerance = Annotated[
    float,
    typer.Option(
        "--label-tolerance",
        help="How far off a number may be, relatively, and still be right.",
        min=0,
        max=1,
        metavar="R",
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="The config whose gates judge, and whose record.kafka.options are the Kafka client's; "
        "by default that of the instance which is read.",
        metavar="CONFIG",
    ),
]
Route = Annotated[str, typer.Option(help=ROUTE_HELP, metavar="ROUTE")]
Candidate = Annotated[str, typer.Option(help=CANDIDATE_HELP, metavar="CANDIDATE")]
