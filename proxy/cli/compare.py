"""`understudy compare`: what differs between candidates and their primary, from recorded pairs."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console

from proxy.analysis.judging import Judging
from proxy.analysis.report import render
from proxy.analysis.summarise import aggregate_of, summary_of
from proxy.analysis.summary import as_json as summary_json
from proxy.cli import options
from proxy.cli.pair_reading import config_beside, reading_of, selection_of
from proxy.comparison.correctness import TOLERANCE


def compare(  # noqa: PLR0913 - one argument for each option of the command
    *,
    source: options.PairSource,
    route: options.Route = "",
    candidate: options.Candidate = "",
    worst: Annotated[
        int, typer.Option(help="How many differing pairs to show.", min=0, max=1000, metavar="N")
    ] = 5,
    since: options.Since = "",
    until: options.Until = "",
    labels: options.Labels = "",
    tolerance: options.Tolerance = TOLERANCE,
    config: options.ConfigFile = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare candidates with their primary: agreement, errors, latency, and the worst differences.

    Where labels say what the right answer was, also how often each is right. The counts are of one
    look; the verdict beside them may be looked at all the time.
    """
    selection = selection_of(route, candidate, since, until, worst=worst)
    judging = Judging(config=config_beside(source, config))
    with reading_of(source, selection, judging, labels, tolerance) as (pairs, reading, advance):
        aggregate = aggregate_of(pairs, reading, advance)
        summary = summary_of(aggregate, reading, pairs.statistics())
    if as_json:
        sys.stdout.buffer.write(summary_json(summary))
        sys.stdout.buffer.flush()
    else:
        render(summary, Console())
