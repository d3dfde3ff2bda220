"""`understudy pairs`: the recorded pairs themselves: the newest, one of them, or all in a file."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import orjson
import typer
from rich.console import Console

from proxy.analysis.export import Exported, Format, columns_named, whole_file, write_pairs
from proxy.analysis.find import find_pairs
from proxy.analysis.pair_view import line, page
from proxy.analysis.select import Select
from proxy.analysis.source import Record, Source
from proxy.analysis.sources import open_source
from proxy.analysis.tail import open_tail
from proxy.cli import options, pair_options
from proxy.cli.kafka_login import KafkaOptions, Login, LoginConfig
from proxy.cli.progress import ReadingProgress
from proxy.cli.terminal import complain
from proxy.errors import ExportError

#: As the shell reports a command that Ctrl-C, or SIGTERM, has ended.
INTERRUPTED, TERMINATED = 130, 143

STDOUT = Path("-")

pairs = typer.Typer(
    add_completion=False, no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Show the newest recorded pairs, or one of them, or write them to a file.",
)  # fmt: skip


@pairs.command()
def tail(  # noqa: PLR0913 - one argument for each option of the command
    *,
    source: pair_options.From = "",
    config: LoginConfig = None,
    kafka_option: KafkaOptions = None,
    count: Annotated[
        int, typer.Option("-n", help="How many of the newest.", min=0, metavar="N")
    ] = 10,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    route: options.Route = "",
    candidate: options.Candidate = "",
    different: pair_options.Different = False,
    failed: pair_options.Failed = False,
    since: pair_options.Since = "",
    until: pair_options.Until = "",
    as_json: options.AsJson = False,
) -> None:
    """Show the newest pairs, one a line: time, candidate, how both ended, whether they agree, id."""
    wanted = pair_options.pair_filter(
        route, candidate, since, until, different=different, failed=failed
    )
    name = pair_options.source_named(source)
    end = open_tail(name, wanted, Login(config, kafka_option).options_for(name))
    try:
        with ReadingProgress(end.statistics):
            newest = end.last(count)
        _print(newest, as_json=as_json)
        if not newest and count and not follow:
            print(f"no such pairs in {end.statistics().name}", file=sys.stderr)
        if follow:
            for pair in end.following():
                _print([pair], as_json=as_json)
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None


@pairs.command()
def show(
    identity: Annotated[str, typer.Argument(help="The pair_id, or the request_id.", metavar="ID")],
    *,
    source: pair_options.From = "",
    config: LoginConfig = None,
    kafka_option: KafkaOptions = None,
    whole: Annotated[
        bool, typer.Option("--all", help="All values, however many and long.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Show a pair: both answers side by side, what differs marked with ≠, and everything else.

    A request_id shows the pair of each candidate. Exit code 1: there is none.
    """
    name = pair_options.source_named(source)
    found = find_pairs(name, identity, Login(config, kafka_option).options_for(name))
    with ReadingProgress(found.statistics):
        records = list(found)
    if not records:
        complain(f"no pair {identity} in {found.statistics().name}")
        raise typer.Exit(1)
    if as_json:
        _print(records, as_json=True)
        return
    console = Console(highlight=False)
    for record in records:
        console.print(page(record, is_whole=whole))


@pairs.command()
def export(  # noqa: PLR0913 - one argument for each option of the command
    *,
    to: Annotated[Format, typer.Option(help="What the file is written as.")],
    out: Annotated[
        Path,
        typer.Option(
            help="The file, which is replaced; NDJSON and CSV are packed when it ends with .zst or "
            ".gz. `-` is stdout, not for Parquet.",
            metavar="FILE",
        ),
    ],
    source: pair_options.From = "",
    config: LoginConfig = None,
    kafka_option: KafkaOptions = None,
    columns: Annotated[
        str, typer.Option(help="Only these fields, in this order: a,b,c.", metavar="FIELDS")
    ] = "",
    route: options.Route = "",
    candidate: options.Candidate = "",
    different: pair_options.Different = False,
    failed: pair_options.Failed = False,
    since: pair_options.Since = "",
    until: pair_options.Until = "",
    as_json: options.AsJson = False,
) -> None:
    """Write pairs to one file, each pair once: the file is whole, or it is not there."""
    wanted = pair_options.pair_filter(
        route, candidate, since, until, different=different, failed=failed
    )
    fields = columns_named([name.strip() for name in columns.split(",")] if columns else [])
    if out == STDOUT and (as_json or to is Format.PARQUET):
        raise ExportError("stdout takes NDJSON and CSV, and not beside --json; give --out FILE")
    name = pair_options.source_named(source)
    login = Login(config, kafka_option).options_for(name)
    found = open_source(name, since_ms=wanted.since_ms, until_ms=wanted.until_ms, options=login)
    select = Select(wanted)
    signal.signal(signal.SIGTERM, _leave)  # so that what is written so far is taken away again
    with ReadingProgress(found.statistics):
        if out == STDOUT:
            done = write_pairs(select.pairs(found), sys.stdout.buffer, to, columns=fields)
            sys.stdout.buffer.flush()
        else:
            with whole_file(out, to) as stream:
                done = write_pairs(select.pairs(found), stream, to, columns=fields)
    _tell(out, found, select, done, as_json=as_json)


def _print(records: Iterable[Record], *, as_json: bool) -> None:
    if as_json:
        for record in records:
            sys.stdout.buffer.write(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
        sys.stdout.buffer.flush()
        return
    console = Console(highlight=False, soft_wrap=True)
    for record in records:
        console.print(line(record))


def _leave(*_: object) -> NoReturn:
    raise SystemExit(TERMINATED)


def _tell(out: Path, source: Source, select: Select, done: Exported, *, as_json: bool) -> None:
    """Say what was written, and what was left out and why."""
    reading, selection = source.statistics(), select.statistics()
    said: dict[str, Any] = {
        "file": str(out),
        "bytes": out.stat().st_size if out != STDOUT else None,
        "source": reading.name,
        "pairs": done.pairs,
        "duplicates": selection.duplicates,
        "bad_records": selection.bad + done.bad,
        "bad_lines": reading.bad_lines,
        "torn": reading.torn,
        "corrupt": reading.corrupt,
        "is_exact": selection.is_exact,
    }
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE))
        return
    left_out = (
        ("duplicates", "delivered again and left out"),
        ("bad_records", "records are no pairs that this version writes"),
        ("bad_lines", "lines are no JSON objects"),
        ("torn", "files end in the middle (still written, or cut)"),
        ("corrupt", "damaged regions were skipped"),
    )
    notes = [f"{said[name]:,} {words}" for name, words in left_out if said[name]]
    if not selection.is_exact:
        notes.append("numbers of pairs are too scattered to remember: duplicates may be left")
    print("; ".join((f"{done.pairs:,} pairs in {out}", *notes)), file=sys.stderr)
