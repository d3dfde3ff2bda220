"""The options that `pairs tail`, `show` and `export` share: where pairs are, and which are meant."""

from __future__ import annotations

from typing import Annotated

import typer

from proxy.analysis.pair_filter import PairFilter
from proxy.analysis.window import parse_instant_ms
from proxy.cli.instance import find_instance
from proxy.config.resolved import Config
from proxy.errors import AdminError, SourceError
from proxy.state.instance_config import config_of
from proxy.telemetry import wall_ns

From = Annotated[
    str,
    typer.Option(
        "--from",
        help="A state directory, a folder or file of pairs (NDJSON, Parquet), or "
        "kafka://HOST:PORT/TOPIC; else what the instance in the current folder writes to.",
        metavar="SOURCE",
    ),
]
Different = Annotated[bool, typer.Option("--different", help="Only pairs whose answers differ.")]
Failed = Annotated[
    bool, typer.Option("--failed", help="Only pairs in which primary or candidate failed.")
]
Since = Annotated[
    str, typer.Option(help="Only from then on: 15m, 2h, 7d ago, or an ISO time.", metavar="T")
]
Until = Annotated[str, typer.Option(help="Only before then, written likewise.", metavar="T")]


def pair_filter(
    route: str, candidate: str, since: str, until: str, *, different: bool, failed: bool
) -> PairFilter:
    """Return what the options ask for.

    Raises:
        SourceError: a time is none.
    """
    now_ms = wall_ns() // 1_000_000
    return PairFilter(
        route=route,
        candidate=candidate,
        since_ms=parse_instant_ms(since, now_ms=now_ms) if since else None,
        until_ms=parse_instant_ms(until, now_ms=now_ms) if until else None,
        is_different=different,
        is_failed=failed,
    )


def source_named(name: str) -> str:
    """Return `name`, or without one where the instance in the current folder writes to.

    Raises:
        SourceError: there is no such instance.
    """
    if name:
        return name
    try:
        state_dir = find_instance("", None).state_dir
    except AdminError:
        state_dir = None
    if state_dir is None:
        raise SourceError("no instance in the current folder: say --from SOURCE")
    config = config_of(state_dir)
    return str(state_dir) if config is None else _sink_of(config, str(state_dir))


def _sink_of(config: Config, state_dir: str) -> str:
    kafka = config.record.kafka
    if kafka is None:
        return state_dir
    return f"kafka://{','.join(kafka.bootstrap_servers)}/{kafka.topic_prefix}.pairs.v1"
