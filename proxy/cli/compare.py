"""`understudy compare`: what differs between candidates and their primary, from recorded pairs."""

from __future__ import annotations

from typing import Annotated

import typer

from proxy.analysis.judging import Judging
from proxy.analysis.summarise import aggregate_of, summary_of
from proxy.analysis.summary import as_dict
from proxy.cli import options
from proxy.cli.kafka_login import KafkaOptions, Login
from proxy.cli.pair_reading import Truth, config_beside, reading_of, selection_of
from proxy.cli.reporting import Html, Markdown, OneLookTests, Reports, tell
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
    kafka_option: KafkaOptions = None,
    html: Html = None,
    markdown: Markdown = None,
    one_look: OneLookTests = False,
    as_json: options.AsJson = False,
) -> None:
    """Compare candidates with their primary: the verdict, and all that it rests on.

    The verdict may be looked at all the time. Where labels say what the right answer was, it is
    about how often each is right. The report goes to the terminal, and to files where asked.
    """
    reports = Reports(html, markdown, with_one_look=one_look)
    reports.check()
    selection = selection_of(route, candidate, since, until, worst=worst)
    judging = Judging(config=config_beside(source, config))
    truth, login = Truth(labels, tolerance), Login(config, kafka_option)
    with reading_of(source, selection, judging, truth, login) as (pairs, reading, advance):
        aggregate = aggregate_of(pairs, reading, advance)
        summary = summary_of(aggregate, reading, pairs.statistics())
    tell(as_dict(summary), reports, as_json=as_json)
