"""`understudy topics create`: the topics that records, labels, decisions and state go to."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import orjson
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from proxy.cli import options
from proxy.cli.kafka_of import kafka_of
from proxy.config import units
from proxy.config.resolved import Kafka
from proxy.errors import UnderstudyError
from proxy.kafka.cluster import connect
from proxy.recorder.topics import Asked, Fate, Outcome, make_topics

topics = typer.Typer(add_completion=False, no_args_is_help=True)

_STYLES = {Fate.CREATED: "green", Fate.EXISTS: "green", Fate.FAILED: "bold red"}


@topics.callback()
def _topics() -> None:
    """Make the Kafka topics that Understudy writes to."""


@topics.command()
def create(  # noqa: PLR0913 - one argument for each option of the command
    config: Annotated[
        Path | None,
        typer.Argument(help="The config file; left out: the one in this folder.", metavar="CONFIG"),
    ] = None,
    *,
    partitions: Annotated[
        int | None,
        typer.Option(help="Of the topics of pairs and labels (6).", min=1, max=10_000, metavar="N"),
    ] = None,
    replication_factor: Annotated[
        int | None,
        typer.Option(help="Of all topics (3, or the brokers there are).", min=1, metavar="N"),
    ] = None,
    retention: Annotated[
        str, typer.Option(help="How long pairs and labels are kept (7d); 0: for ever.", metavar="T")
    ] = "",
    retention_size: Annotated[
        str,
        typer.Option(help="How much of them each partition keeps, such as 10GiB.", metavar="SIZE"),
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Ask the broker, and create nothing.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Create PREFIX.pairs.v1, .labels.v1, .decisions.v1 and .state.v1 (compacted) where missing.

    A topic that exists is never changed: what it has otherwise than asked is said, and how to mend
    it. Exit code 1 when a topic could not be made, or differs.
    """
    kafka = kafka_of(config)
    asked = Asked(
        partitions, replication_factor, _retention_s(retention), _retention_bytes(retention_size)
    )
    found = asyncio.run(_create(kafka, asked, is_rehearsal=dry_run))
    is_good = not any(each.fate in (Fate.FAILED, Fate.DIFFERS) for each in found)
    if as_json:
        document = {"ok": is_good, "dry_run": dry_run, "topics": found}
        print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    else:
        _print(found, kafka)
    raise typer.Exit(0 if is_good else 1)


async def _create(kafka: Kafka, asked: Asked, *, is_rehearsal: bool) -> list[Outcome]:
    servers = ",".join(kafka.bootstrap_servers)
    async with connect(kafka) as cluster:
        return await make_topics(
            cluster, kafka.topic_prefix, asked, servers=servers, is_rehearsal=is_rehearsal
        )


def _retention_s(text: str) -> float | None:
    try:
        return units.seconds(text) if text else None
    except ValueError as exc:
        raise UnderstudyError(f"--retention: {exc}") from exc


def _retention_bytes(text: str) -> int | None:
    try:
        return units.size_bytes(text) if text else None
    except ValueError as exc:
        raise UnderstudyError(f"--retention-size: {exc}") from exc


def _print(found: list[Outcome], kafka: Kafka) -> None:
    table = Table(title=f"topics at {', '.join(kafka.bootstrap_servers)}", title_justify="left")
    for name in ("topic", "", "partitions", "replicas", "settings"):
        table.add_column(name, overflow="fold")
    for each in found:
        style = _STYLES.get(each.fate, "yellow")
        table.add_row(
            escape(each.topic),
            f"[{style}]{each.fate.replace('_', ' ')}[/]",
            str(each.partitions),
            str(each.replication_factor),
            " ".join(f"{name}={value}" for name, value in each.settings.items()),
        )
    console = Console(highlight=False)
    console.print(table)
    for each in found:
        # Commands to copy: never wrapped by us.
        for unlike in each.differences:
            told = f"{each.topic}: {unlike.what} is {unlike.found}, not {unlike.wanted}"
            console.print(f"{told}; to mend it:\n  {unlike.mend}", markup=False, soft_wrap=True)
        if each.message:
            console.print(f"{each.topic}: {each.message}", markup=False, soft_wrap=True)
