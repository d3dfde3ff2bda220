"""`understudy doctor`: whether machine, backends and Kafka will carry a config."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from proxy.cli import options
from proxy.cli.state_dirs import is_running
from proxy.config.load import load_config
from proxy.config.resolved import Config
from proxy.doctor.examine import count, examine
from proxy.doctor.findings import Finding, Level, worst
from proxy.doctor.sample import Sample
from proxy.errors import UnderstudyError
from proxy.state.instance_config import read_runtime

_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.FAULT: "bold red"}


def doctor(
    config: Annotated[Path, typer.Argument(help="The config file (YAML).", metavar="CONFIG")],
    *,
    path: Annotated[
        str,
        typer.Option(
            help="Send one request to this path of primary and candidates, and compare how they "
            "answer. Only when given.",
        ),
    ] = "",
    method: Annotated[str, typer.Option(help="The method of that request.")] = "POST",
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header", "-H", help="A header field of it; may be repeated.", metavar="NAME:VALUE"
        ),
    ] = None,
    body: Annotated[
        str, typer.Option(help="Its body; @FILE reads a file.", metavar="TEXT|@FILE")
    ] = "",
    as_json: options.AsJson = False,
) -> None:
    """Look at backends, Kafka, disk, clock, ports and limits, and say what to mend.

    Harmless: it connects, asks the health paths of the config, and writes nothing. Exit code 1 when
    there is a fault.
    """
    resolved = load_config(config, looks_at_files=True)
    sample = Sample(method, path, _fields(header or []), _body(body)) if path else None
    state_dir = Path(resolved.state_dir)
    runtime = read_runtime(state_dir) if is_running(state_dir) else None
    found = _examine(resolved, runtime, sample)
    level = worst(found)
    if as_json:
        document = {"ok": level is not Level.FAULT, "worst": level, "findings": found}
        print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    else:
        _print(found)
    raise typer.Exit(1 if level is Level.FAULT else 0)


def _examine(
    config: Config, runtime: dict[str, Any] | None, sample: Sample | None
) -> list[Finding]:
    console = Console(stderr=True)
    with Progress(
        TextColumn("looking at {task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as progress:
        task = progress.add_task("everything", total=count(config, sample))
        return asyncio.run(
            examine(
                config, runtime=runtime, sample=sample,
                on_done=lambda name: progress.update(task, advance=1, description=name),
            )
        )  # fmt: skip


def _fields(lines: list[str]) -> dict[str, str]:
    found = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise UnderstudyError(f"--header {line!r}: write NAME:VALUE")
        found[name.strip().lower()] = value.strip()
    return found


def _body(text: str) -> bytes:
    if not text.startswith("@"):
        return text.encode()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as exc:
        raise UnderstudyError(f"--body: cannot read {text[1:]}: {exc.strerror}") from exc


def _print(found: list[Finding]) -> None:
    table = Table(show_lines=False, pad_edge=False)
    for name in ("", "check", "of", "what"):
        table.add_column(name, overflow="fold")
    for each in found:
        table.add_row(
            Text(each.level, _STYLES[each.level]), each.check, Text(each.subject), Text(each.what)
        )
    console = Console(highlight=False)
    console.print(table)
    for each in found:
        if each.level is Level.OK:
            continue
        lines = [Text(f"{each.level}: {each.subject}: {each.what}", _STYLES[each.level])]
        lines += [Text(f"  so: {each.why}")] if each.why else []
        lines += [Text(f"  mend: {each.mend}")] if each.mend else []
        for line in lines:
            console.print(line, soft_wrap=True)
    counts = {level: sum(each.level is level for each in found) for level in Level}
    console.print(
        f"{counts[Level.FAULT]} faults, {counts[Level.WARNING]} warnings, {counts[Level.OK]} well"
    )
