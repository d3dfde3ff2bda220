"""`understudy replay`: logged requests sent again, to any backend."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import orjson
import typer

from proxy.analysis.pair_filter import PairFilter
from proxy.analysis.replay import Pacing, Pairing, Replay
from proxy.analysis.replay_log import Purpose, ReplayLog
from proxy.analysis.replay_pair import Place
from proxy.analysis.replay_request import Skip
from proxy.analysis.replay_tally import ReplayTally, document, lines, progress_words
from proxy.analysis.replay_target import Limits, Sender, backend_of, changes_of
from proxy.analysis.source import Source
from proxy.analysis.sources import open_source
from proxy.cli import options, pair_options
from proxy.cli.instance import config_of
from proxy.cli.kafka_login import KafkaOptions, Login
from proxy.cli.kafka_of import config_path
from proxy.cli.progress import ReadingProgress
from proxy.cli.state_dirs import is_state_dir
from proxy.config.load import load_config
from proxy.config.resolved import Backend, Config
from proxy.errors import ReplayError

#: As the shell reports a command that Ctrl-C has ended.
INTERRUPTED = 130


def replay(  # noqa: PLR0913 - one argument for each option of the command
    *,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="A state directory, a folder or file of pairs (NDJSON, Parquet), or "
            "kafka://HOST:PORT/TOPIC.",
            metavar="SOURCE",
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            help="Whom to ask: http://HOST:PORT, or a backend or candidate of the config.",
            metavar="BACKEND",
        ),
    ],
    rate: Annotated[
        str, typer.Option(help="Requests started per second, at most.", metavar="N/s")
    ] = "10/s",
    max_in_flight: Annotated[
        int,
        typer.Option(help="Requests under way at once, at most.", min=1, max=10_000, metavar="N"),
    ] = 16,
    limit: Annotated[
        int | None, typer.Option(help="Send so many, and no more.", min=1, metavar="N")
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Where the pairs go: zstd frames of NDJSON.", metavar="FILE")
    ] = Path("replay.ndjson.zst"),
    name: Annotated[
        str, typer.Option("--as", help="The candidate's name in the pairs.", metavar="NAME")
    ] = "replay",
    config: Annotated[
        Path | None,
        typer.Option(
            help="Has the routes, with how to compare, and the settings of the Kafka client; else "
            "that of a state directory as SOURCE, or of the current folder.",
            metavar="CONFIG",
        ),
    ] = None,
    kafka_option: KafkaOptions = None,
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header", "-H", help="Set on each request; may be repeated.", metavar="NAME:VALUE"
        ),
    ] = None,
    route: options.Route = "",
    candidate: options.Candidate = "",
    since: pair_options.Since = "",
    until: pair_options.Until = "",
    as_json: options.AsJson = False,
) -> None:
    """Send recorded requests to a backend, and compare its answers with the recorded primary's.

    Needs records with `record.bodies: full`. Each request is sent once, however many candidates it
    had. After Ctrl-C or a crash the same command goes on where it stopped. Exit code 130 when stopped.
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)
    wanted = pair_options.pair_filter(route, candidate, since, until, different=False, failed=False)
    resolved = _config(config, source)
    backend = backend_of(to, resolved)
    log = ReplayLog(out, Purpose(source, to, name, route, resolved.version))
    job = _Job(
        config=resolved,
        backend=backend,
        headers=_fields(header or []),
        pacing=Pacing(_rate(rate), max_in_flight, limit),
        source=open_source(
            source,
            since_ms=wanted.since_ms,
            until_ms=wanted.until_ms,
            options=Login(config, kafka_option).options_for(source),
        ),
        wanted=wanted,
        name=name,
    )
    tally = ReplayTally()
    try:
        for pair in log.open():
            tally.note(pair)
        tally.resumed, tally.again = log.resumed, log.again
        with ReadingProgress(job.source.statistics, lambda: progress_words(tally)):
            asyncio.run(_run(job, log, tally))
    finally:
        log.close(is_complete=tally.is_complete)
    _tell(tally, log, as_json=as_json)
    if not tally.is_complete:
        raise typer.Exit(INTERRUPTED)


@dataclass(frozen=True, slots=True)
class _Job:
    """What is asked for."""

    config: Config
    backend: Backend
    headers: dict[str, str]
    pacing: Pacing
    source: Source
    wanted: PairFilter
    name: str


async def _run(job: _Job, log: ReplayLog, tally: ReplayTally) -> None:
    """Send until the end, or until SIGINT or SIGTERM; what is in flight then is waited for."""
    place = Place(log.instance, job.config.version, job.name, job.backend.name)
    sizes = Limits(job.config.limits.mirror_response_bytes, job.config.limits.record_body_bytes)
    changes = changes_of(job.backend, job.config)
    sender = Sender(job.backend, changes, job.headers, sizes, job.pacing.max_in_flight)
    try:
        run = Replay(Pairing(job.config, place), log, sender, job.pacing, tally)
        loop = asyncio.get_running_loop()

        def stop(number: signal.Signals) -> None:
            loop.remove_signal_handler(number)  # the second one ends it at once
            run.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        await run.run(job.source, job.wanted)
    finally:
        await sender.close()


def _tell(tally: ReplayTally, log: ReplayLog, *, as_json: bool) -> None:
    """Print the summary.

    Raises:
        ReplayError: nothing could be sent, for want of bodies.
    """
    # Those that an earlier run sent are in the source again.
    tally.skipped[Skip.REPEATED] = max(0, tally.skipped[Skip.REPEATED] - tally.resumed)
    missing = tally.skipped[Skip.NO_BODY]
    if missing and not tally.sent and tally.is_complete:
        raise ReplayError(
            f"none of {missing:,} records has a request body, so nothing was sent: set "
            "`bodies: full` below `record` in the config (or on the route), and record anew"
        )
    if as_json:
        found = document(tally, str(log.path), log.instance)
        sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_INDENT_2))
        sys.stdout.buffer.write(b"\n")
        sys.stdout.buffer.flush()
    else:
        print("\n".join(lines(tally, str(log.path))))
    if not tally.is_complete:
        print("stopped; the same command goes on from here", file=sys.stderr)


def _config(given: Path | None, source: str) -> Config:
    """Return the config whose routes the records are compared by."""
    if given is None and is_state_dir(Path(source)):
        found = config_of(Path(source))
        if found is not None:
            return found
    return load_config(config_path(given))


def _rate(text: str) -> float:
    try:
        rate = float(text.removesuffix("/s"))
    except ValueError:
        rate = 0.0
    if not 0.0 < rate < 1e6:
        raise ReplayError(f"--rate {text}: write a number per second, such as 50/s")
    return rate


def _fields(headers: list[str]) -> dict[str, str]:
    found = {}
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            # Not repeated: it may be a credential.
            raise ReplayError("--header: write NAME:VALUE")
        found[name.strip().lower()] = value.strip()
    return found
