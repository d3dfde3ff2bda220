"""`understudy labels import`: ground truth from a file, to a running instance or to Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from proxy.analysis.kafka_source import parse_topic
from proxy.analysis.label_file import Entry, Format, LabelType, read_labels
from proxy.cli import options
from proxy.cli.admin_api import call_lines
from proxy.cli.instance import find_instance, with_token
from proxy.cli.kafka_of import kafka_of
from proxy.cli.terminal import complain
from proxy.config.resolved import Kafka
from proxy.errors import AdminError, UnderstudyError
from proxy.pairs.label import Label
from proxy.telemetry import wall_ns

#: Of one request to the admin API, and of one batch to Kafka.
_BATCH_BYTES = 1024 * 1024
_BATCH_LABELS = 5_000
_TOLD_FAULTS = 10

labels = typer.Typer(add_completion=False, no_args_is_help=True)


@dataclass(slots=True)
class Import:
    """What has become of a file so far; `errors` holds the first faults, by line."""

    accepted: int = 0
    refused: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)


@labels.callback()
def _labels() -> None:
    """Bring in ground truth: what the right answer to a request was."""


@labels.command("import")
def import_file(  # noqa: PLR0913 - one argument for each option of the command
    file: Annotated[
        Path,
        typer.Argument(
            help="NDJSON or CSV with request_id and label, and maybe ts, source, weight; "
            ".gz and .zst too; - is standard input.",
            metavar="FILE",
        ),
    ],
    *,
    kind: Annotated[
        Format,
        typer.Option("--format", help="auto: by the file's name.", metavar="auto|ndjson|csv"),
    ] = "auto",
    label_type: Annotated[
        LabelType,
        typer.Option(
            help="A CSV's labels. auto: JSON where they are some, else text.",
            metavar="auto|text|json",
        ),
    ] = "auto",
    to: Annotated[
        str,
        typer.Option(help="Write to this topic: kafka://HOST:PORT/TOPIC.", metavar="TOPIC"),
    ] = "",
    config: Annotated[
        Path | None,
        typer.Option(help="With --to: take record.kafka.options from it.", metavar="CONFIG"),
    ] = None,
    admin: options.Admin = "",
    state_dir: Annotated[
        Path | None,
        typer.Option(help="Find the running instance by its state directory.", metavar="FOLDER"),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Send the labels in FILE to the running instance, or with --to straight to Kafka.

    Bad lines are named and left out. A file may be imported again: the latest label of a request
    counts, by its own time. Exit code 1 when a line was left out or not all could be sent.
    """
    found = Import()
    try:
        with _progress(file) as advance:
            batches = _batches(
                read_labels(file, kind=kind, label_type=label_type, now_ms=wall_ns() // 1_000_000),
                found, advance,
            )  # fmt: skip
            if to:
                asyncio.run(_to_kafka(batches, to, config, found))
            else:
                _to_instance(batches, admin, state_dir, found)
    except UnderstudyError as exc:
        if not found.accepted:
            raise
        raise AdminError(f"{exc} (labels taken before: {found.accepted:,})") from exc
    if as_json:
        print(orjson.dumps(asdict(found), option=orjson.OPT_INDENT_2).decode())
    else:
        print(f"{found.accepted:,} labels taken, {found.refused:,} lines left out")
        for fault in found.errors:
            complain(f"line {fault['line']} {fault['error']}")
    raise typer.Exit(1 if found.refused else 0)


def _to_instance(
    batches: Iterator[list[Label]], admin: str, state_dir: Path | None, found: Import
) -> None:
    instance = with_token(find_instance(admin, state_dir))
    for batch in batches:
        body = b"\n".join(label.value for label in batch)
        answer = call_lines(instance, "/api/v1/labels", body)
        found.accepted += int(answer["accepted"])
        found.refused += int(answer["refused"])


async def _to_kafka(
    batches: Iterator[list[Label]], to: str, config: Path | None, found: Import
) -> None:
    # Imported here: aiokafka's producer takes a third of a second.
    from proxy.recorder.label_import import LabelTopic  # noqa: PLC0415

    if not to.startswith("kafka://"):
        raise UnderstudyError(f"--to {to}: write kafka://HOST:PORT/TOPIC")
    topic = parse_topic(to)
    client_options = kafka_of(config).options if config is not None else {}
    target = LabelTopic(Kafka(topic.bootstrap_servers, "", client_options), topic.name)
    try:
        for batch in batches:
            await target.write(batch)
            found.accepted += len(batch)
    finally:
        await target.close()


def _batches(
    entries: Iterator[Entry], found: Import, advance: Callable[[int], object]
) -> Iterator[list[Label]]:
    """Yield the labels, many at a time; count and keep what is wrong with the other lines."""
    batch: list[Label] = []
    size_bytes = 0
    for entry in entries:
        if entry.label is None:
            found.refused += 1
            if len(found.errors) < _TOLD_FAULTS:
                found.errors.append({"line": entry.number, "error": entry.fault})
            continue
        batch.append(entry.label)
        size_bytes += len(entry.label.value)
        if size_bytes >= _BATCH_BYTES or len(batch) >= _BATCH_LABELS:
            yield batch
            advance(entry.done_bytes)
            batch, size_bytes = [], 0
    if batch:
        yield batch


@contextmanager
def _progress(file: Path) -> Iterator[Callable[[int], object]]:
    """Show a bar on stderr, where that is a terminal; give what moves it to a place in the file."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("importing"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        total = file.stat().st_size if file.is_file() else None
        task = bar.add_task("importing", total=total)
        yield lambda done: bar.update(task, completed=done)
