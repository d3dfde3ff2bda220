"""`understudy plan`: how many pairs and hours until a decision."""

from __future__ import annotations

from typing import Annotated

import orjson
import typer
from rich.console import Console

from proxy.analysis.pair_filter import PairFilter
from proxy.analysis.plan_text import blocks, document
from proxy.analysis.planning import Assumed, Recorded, answer, measure, question_of
from proxy.analysis.select import Select
from proxy.analysis.sources import open_source
from proxy.analysis.topic import ClientOptions
from proxy.cli import options, pair_options
from proxy.cli.kafka_login import KafkaOptions, Login, LoginConfig
from proxy.cli.progress import ReadingProgress
from proxy.config.units import basis_points
from proxy.errors import UnderstudyError


def plan(  # noqa: PLR0913 - one argument for each option of the command
    *,
    margin: Annotated[
        float, typer.Option(help="Of the gate: how much worse may pass.", metavar="M")
    ] = 0.01,
    disagreement: Annotated[
        str, typer.Option(help="Share of pairs whose difference is not 0.", metavar="PERCENT")
    ] = "",
    rate: Annotated[
        float | None, typer.Option(help="Requests per second of the route.", min=0, metavar="N")
    ] = None,
    mirror: Annotated[
        str, typer.Option(help="Share of the requests that is mirrored.", metavar="PERCENT")
    ] = "100%",
    replicate: Annotated[
        str,
        typer.Option(
            help="Share of the pairs that the gate looks at: the route's `replicate`, where it "
            "samples the primary's noise.",
            metavar="PERCENT",
        ),
    ] = "100%",
    true_difference: Annotated[
        float | None,
        typer.Option(help="How much worse the candidate is in truth; else 0.", metavar="D"),
    ] = None,
    harm: Annotated[
        list[float] | None,
        typer.Option(
            help="A candidate that is so much worse, and should be halted; may be repeated. Else 2 "
            "and 3 times the margin.",
            metavar="D",
        ),
    ] = None,
    max_pairs: Annotated[
        int, typer.Option(help="Give up after so many.", min=100, max=100_000_000, metavar="N")
    ] = 1_000_000,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="Take disagreement and rate from these pairs: a path or kafka://HOST:PORT/TOPIC.",
            metavar="SOURCE",
        ),
    ] = "",
    route: options.Route = "",
    candidate: options.Candidate = "",
    since: pair_options.Since = "",
    until: pair_options.Until = "",
    config: LoginConfig = None,
    kafka_option: KafkaOptions = None,
    as_json: options.AsJson = False,
) -> None:
    """Say how many pairs, and how long, until the evidence decides.

    By simulation with the evidence of the gates, looked at all the time. The same question gets the
    same answer.
    """
    assumed = Assumed(
        margin=margin,
        disagreement=_share("--disagreement", disagreement) if disagreement else None,
        rate=rate,
        mirror=_share("--mirror", mirror),
        replicate=_share("--replicate", replicate),
        difference=true_difference,
        harms=tuple(harm or ()),
        max_pairs=max_pairs,
    )
    wanted = pair_options.pair_filter(route, candidate, since, until, different=False, failed=False)
    login = Login(config, kafka_option)
    recorded = _recorded(source, wanted, login.options_for(source)) if source else None
    question = question_of(assumed, recorded)
    forecasts = answer(question)
    if as_json:
        found = document(question, recorded, forecasts)
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return
    console = Console(highlight=False)
    for block in blocks(question, recorded, forecasts):
        console.print(block)


def _recorded(source: str, wanted: PairFilter, client_options: ClientOptions) -> Recorded:
    found = open_source(
        source, since_ms=wanted.since_ms, until_ms=wanted.until_ms, options=client_options
    )
    with ReadingProgress(found.statistics):
        return measure(Select(wanted).pairs(found))


def _share(option: str, text: str) -> float:
    try:
        return basis_points(text) / 10_000
    except ValueError as exc:
        raise UnderstudyError(f"{option}: {exc}") from exc
