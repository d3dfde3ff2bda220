"""`understudy verdict`: whether a candidate may be promoted, from recorded pairs, for people and CI."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Final

import orjson
import typer

from proxy.analysis.as_of import as_of
from proxy.analysis.judged import JudgedTally
from proxy.analysis.judging import Judging, judging_like, recounted
from proxy.analysis.labelled import labels_beside
from proxy.analysis.opening import Truth, config_beside
from proxy.analysis.sentence import verdict_sentence
from proxy.analysis.summarise import aggregate_of, judgement_of, only_candidate
from proxy.analysis.verdict_report import (
    Recomputed,
    document,
    lines_of,
    read_decisions,
    read_record,
    read_selection,
)
from proxy.cli import options
from proxy.cli.kafka_login import KafkaOptions, Login
from proxy.cli.pair_reading import reading_of, selection_of
from proxy.cli.terminal import Ended
from proxy.comparison.correctness import TOLERANCE
from proxy.comparison.gates import Metric
from proxy.comparison.verdict import Outcome, Verdict
from proxy.comparison.verdict_json import dumps
from proxy.config.units import seconds
from proxy.errors import SourceError

#: What a pipeline acts on. No data is no pass, and no proof of harm either.
EXIT_CODES: Final = {
    Outcome.PROMOTE: 0,
    Outcome.HALT: 2,
    Outcome.CONTINUE: 3,
    Outcome.NO_DATA: 3,
}


def verdict(  # noqa: PLR0913 - one argument for each option of the command
    *,
    source: Annotated[
        str,
        typer.Option(
            "--from",
            help="A state directory, a folder or file of pairs (NDJSON, Parquet), or "
            "kafka://HOST:PORT/TOPIC.",
            metavar="SOURCE",
        ),
    ] = "",
    from_record: Annotated[
        Path | None,
        typer.Option(
            help="Instead of pairs: compute the verdict in a file of --json, or in a decision (from the "
            "log or the topic), again from its counts; or all of a log of decisions (decisions.ndjson). "
            "- reads standard input.",
            metavar="FILE",
        ),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            help="Count the pairs of --from again, up to where the verdict in a file of --json had "
            "read, and say whether it comes out the same, bit for bit.",
            metavar="FILE",
        ),
    ] = None,
    route: options.Route = "",
    candidate: options.Candidate = "",
    metric: Annotated[
        list[Metric] | None,
        typer.Option(help="Judge by this gate alone; may be given several times."),
    ] = None,
    margin: Annotated[
        list[str] | None,
        typer.Option(
            help="How much worse the candidate may be: METRIC=SHARE, such as availability=0.002; a "
            "share alone is for every gate given.",
            metavar="[METRIC=]SHARE",
        ),
    ] = None,
    budget: Annotated[
        str, typer.Option(help="What a call may take, for the latency gate.", metavar="DURATION")
    ] = "",
    since: options.Since = "",
    until: options.Until = "",
    labels: options.Labels = "",
    tolerance: options.Tolerance = TOLERANCE,
    config: options.ConfigFile = None,
    kafka_option: KafkaOptions = None,
    as_json: options.AsJson = False,
) -> None:
    """Say whether a candidate may be promoted: promote, halt or continue, with the evidence.

    Exit code 0: promote, 1: error, 2: halt, 3: continue, or no data. It may be asked as often as one
    likes. Gates are those of the route's ramp, or of the options, else agreement (where there are
    labels: correctness) at 0.01, availability at 0.001, and latency at 0.01 if a budget is given.
    """
    if from_record is not None:
        _recompute(from_record, as_json=as_json)
    if not source:
        raise SourceError("say where pairs are (--from SOURCE), or give a verdict (--from-record)")
    if check is not None:
        _check(check, source, Truth(labels, tolerance), Login(config, kafka_option))
    judging = Judging(
        metrics=tuple(dict.fromkeys(metric or ())),
        margins=_margins(margin or [], metric or []),
        budget_s=_seconds(budget) if budget else None,
        config=config_beside(source, config),
    )
    selection = selection_of(route, candidate, since, until)
    truth, login = Truth(labels, tolerance), Login(config, kafka_option)
    with reading_of(source, selection, judging, truth, login) as (pairs, reading, advance):
        aggregate = aggregate_of(pairs, reading, advance)
        name = only_candidate(aggregate, selection, "--route and --candidate")
        found = judgement_of(aggregate, reading, name, pairs.statistics())
    if as_json:
        _write(document(*found, selection))
    else:
        print("\n".join(lines_of(found.verdict, found.gates_from, found.versions)))
    if name not in aggregate.groups:
        print(_nothing_selected(found.health.records, pairs.statistics().name), file=sys.stderr)
    raise Ended(EXIT_CODES[found.verdict.outcome])


def _nothing_selected(records: int, name: str) -> str:
    """Return why there is no data: a name that is misspelt must not wait for data for ever."""
    if not records:
        return f"note: there are no pairs in {name}"
    return f"note: none of the {records:,} in {name} fits --route, --candidate, --since and --until"


def _check(path: Path, source: str, truth: Truth, login: Login) -> None:
    """Count again what a verdict was made from, and end: with its exit code if it is the same.

    Raises:
        SourceError: it is not, or cannot be counted any more.
    """
    try:
        data = path.read_bytes()
        written, selection = read_record(data), read_selection(data)
    except OSError as exc:
        raise SourceError(f"cannot read {path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise SourceError(f"{path}: {exc}") from exc
    key, judging = written.counts.key, judging_like(written.params)
    is_topic = source.startswith("kafka://")
    if not is_topic:  # those of the source, not of what it was
        truth = replace(truth, name=truth.name or labels_beside(source) or "none")
    with (
        as_of(source, dict(written.counts.offsets)) as then,
        reading_of(then, selection, judging, truth, login) as (pairs, reading, advance),
    ):
        groups = aggregate_of(pairs, reading, advance).groups
        group = groups.get((key.route, key.candidate))
        judged = JudgedTally() if group is None else group.tally.judged
        ends = tuple(sorted(pairs.statistics().offsets.items()))
    # A topic cannot be read as it was; what has come since is out of a selection that has an end.
    found = recounted(written, judged, written.counts.offsets if is_topic else ends)
    if dumps(found) != dumps(written):
        is_grown = is_topic and ends != written.counts.offsets
        raise SourceError(
            f"{source} does not give the verdict in {path}"
            f"{', and has grown since' if is_grown else ''}: it says {verdict_sentence(written)} "
            f"Counted again: {verdict_sentence(found)}"
        )
    print(f"{verdict_sentence(written)}\n  counted again from {source}: the same, bit for bit")
    raise Ended(EXIT_CODES[written.outcome])


def _recompute(path: Path, *, as_json: bool) -> None:
    """Show the verdict in a file, made again from its counts, and end.

    Raises:
        SourceError: there is none, or its counts give another one.
    """
    try:
        data = sys.stdin.buffer.read() if path == Path("-") else path.read_bytes()
    except OSError as exc:
        raise SourceError(f"cannot read {path}: {exc.strerror}") from exc
    if path.suffix == ".ndjson":
        _recompute_decisions(path, data.splitlines(), as_json=as_json)
    try:
        found: Verdict = read_record(data)
    except ValueError as exc:
        raise SourceError(f"{path}: {exc}") from exc
    if as_json:
        _write(document(found, "record", (), None, None))
    else:
        print("\n".join(lines_of(found, "record", ())))
    raise Ended(EXIT_CODES[found.outcome])


def _recompute_decisions(path: Path, lines: Iterable[bytes], *, as_json: bool) -> None:
    """Show each decision that carries a verdict, made again, and end: 0 when all are as written.

    Raises:
        SourceError: one is not, or none carries a verdict.
    """
    found = [*read_decisions(lines)]
    for each in found if not as_json else ():
        said = verdict_sentence(each.verdict) if each.verdict else f"NOT AS WRITTEN: {each.fault}"
        print(f"{each.ts} {each.action} {each.scope}: {said}")
    if as_json:
        _write({"decisions": [asdict(each) | {"verdict": _outcome(each)} for each in found]})
    wrong = sum(each.verdict is None for each in found)
    if wrong or not found:
        told = f"{wrong} of {len(found)} decisions do not come out of their counts"
        raise SourceError(f"{path}: {told if found else 'no decision in it carries a verdict'}")
    if not as_json:
        print(f"{len(found)} decisions come out of their counts, bit for bit.")
    raise Ended(0)


def _outcome(found: Recomputed) -> str | None:
    return None if found.verdict is None else str(found.verdict.outcome)


def _write(told: dict[str, object]) -> None:
    form = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    sys.stdout.buffer.write(orjson.dumps(told, option=form))
    sys.stdout.buffer.flush()


def _margins(given: list[str], metrics: list[Metric]) -> dict[Metric, float]:
    """Return the margins that the options say.

    Raises:
        SourceError: one is none.
    """
    found: dict[Metric, float] = {}
    for text in given:
        name, equals, share = text.rpartition("=")
        try:
            meant = [Metric(name)] if equals else metrics
            value = float(share.removesuffix("%")) / (100.0 if share.endswith("%") else 1.0)
        except ValueError as exc:
            raise SourceError(_how_to_write(text)) from exc
        if not 0.0 < value < 1.0 or not meant:
            raise SourceError(_how_to_write(text))
        found.update(dict.fromkeys(meant, value))
    return found


def _how_to_write(text: str) -> str:
    return (
        f"--margin {text}: write METRIC=SHARE with a share between 0 and 1, such as agreement=0.01; "
        "a share alone needs --metric"
    )


def _seconds(text: str) -> float:
    """Return a duration in seconds.

    Raises:
        SourceError: it is none.
    """
    try:
        return seconds(text)
    except ValueError as exc:
        raise SourceError(f"--budget {text}: {exc}") from exc
