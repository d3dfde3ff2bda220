"""Verdicts and comparisons for notebooks and scripts: `compare` and `verdict`, as the commands do.

The same reading, judging and reports as `understudy compare` and `understudy verdict`; nothing is
computed here. What comes back holds the numbers and shows itself in a notebook.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

from proxy.analysis.aggregate import Aggregate, Reading
from proxy.analysis.findings import CandidateFindings, GateFinding
from proxy.analysis.frames import Pairs, pairs
from proxy.analysis.judging import Judging
from proxy.analysis.one_look import OneLook, add_one_look, one_look_tests
from proxy.analysis.opening import Truth, config_beside, opened
from proxy.analysis.reports.build import page_of
from proxy.analysis.reports.page import Page
from proxy.analysis.shown import Shown
from proxy.analysis.source import SourceStatistics
from proxy.analysis.summarise import (
    Judgement,
    aggregate_of,
    judgement_of,
    only_candidate,
    summary_of,
)
from proxy.analysis.summary import Selection, as_dict
from proxy.analysis.verdict_report import document
from proxy.comparison.gates import Metric
from proxy.comparison.verdict import Verdict
from proxy.config.units import seconds
from proxy.errors import SourceError

_T = TypeVar("_T")


class Findings(Shown):
    """What `compare` found about one candidate or several; a notebook shows it as the report.

    Attributes:
        candidates: everything about each, as frozen values: shares in [0, 1], times in milliseconds.
    """

    def __init__(self, document: dict[str, Any], candidates: Sequence[CandidateFindings]) -> None:
        super().__init__(document)
        self.candidates = tuple(candidates)

    @property
    def sentence(self) -> str:
        """The verdict on each candidate, with its numbers."""
        return str(self.document["sentence"])

    @property
    def candidate(self) -> CandidateFindings:
        """Everything about the one candidate.

        Raises:
            SourceError: there are several, or none.
        """
        if len(self.candidates) == 1:
            return self.candidates[0]
        if not self.candidates:
            raise SourceError("there are no pairs, so nothing was found about any candidate")
        raise SourceError(f"there are pairs of {self._names()}: choose by findings['ROUTE/NAME']")

    @property
    def verdict(self) -> str:
        """`promote`, `halt`, `continue` or `no_data`, of the one candidate; raises as `candidate`."""
        return self.candidate.verdict.verdict

    @property
    def gates(self) -> tuple[GateFinding, ...]:
        """What each gate says about the one candidate, with its numbers; raises as `candidate`."""
        return self.candidate.verdict.gates

    def __getitem__(self, name: str) -> Findings:
        """Return the findings about the candidate called `ROUTE/NAME`, or `NAME` if that is enough.

        Raises:
            SourceError: there is none, or more than one.
        """
        chosen = [
            place
            for place, each in enumerate(self.candidates)
            if name in (each.candidate, f"{each.route}/{each.candidate}")
        ]
        if len(chosen) != 1:
            how_many = "several candidates are" if chosen else "no candidate is"
            raise SourceError(f"{how_many} called {name!r}; there are pairs of {self._names()}")
        (place,) = chosen
        found = self.candidates[place]
        parts = {key: [self.document[key][place]] for key in ("candidates", "comparisons")}
        return Findings({**self.document, **parts, "sentence": found.sentence}, [found])

    def one_look(self) -> tuple[OneLook, ...]:
        """Return classical tests of the one candidate's gates: McNemar, bootstrap, TOST.

        They hold for one look, at a number of pairs that was fixed beforehand; see
        `proxy.analysis.one_look`. The verdict never uses them.

        Raises:
            ReportError: statsmodels, the extra `stats`, is not installed.
            SourceError: as `candidate`.
        """
        return _tests(self.gates)

    def with_one_look(self) -> Findings:
        """Return the same with these tests of every candidate in the report.

        Raises:
            ReportError: statsmodels, the extra `stats`, is not installed.
        """
        copied: dict[str, Any] = orjson.loads(orjson.dumps(self.document))
        add_one_look(copied)
        return Findings(copied, self.candidates)

    def _names(self) -> str:
        return ", ".join(f"{each.route}/{each.candidate}" for each in self.candidates) or "none"


class VerdictFindings(Shown):
    """What `verdict` found about one candidate; a notebook shows it as the report's first part.

    Attributes:
        verdict: `promote`, `halt`, `continue` or `no_data`.
        gates: what each gate says, with its numbers: shares in [-1, 1], positive = candidate worse.
        judged: the verdict as a value: it holds the counts that it comes out of, bit for bit.
    """

    frame_height = "38rem"

    def __init__(self, judgement: Judgement, selection: Selection) -> None:
        super().__init__(orjson.loads(orjson.dumps(document(*judgement, selection))))
        self.judged: Verdict = judgement.verdict
        self.verdict = str(judgement.verdict.outcome)
        self.gates = judgement.finding().gates

    @property
    def sentence(self) -> str:
        """The verdict with its numbers."""
        return str(self.document["sentence"])

    def page(self) -> Page:
        """Return the report before anything decides how it looks: verdict, gates, data health."""
        said = self.document
        pairs = sum(each["pairs"] for each in said["versions"] if each["is_deciding"])
        about = {key: said[key] for key in ("route", "candidate", "sentence", "verdict")}
        shared = {key: said[key] for key in ("source", "health")}
        return page_of({"candidates": [{**about, "pairs": pairs}], **shared})

    def one_look(self) -> tuple[OneLook, ...]:
        """Return classical tests of the gates, as `Findings.one_look`.

        Raises:
            ReportError: statsmodels, the extra `stats`, is not installed.
        """
        return _tests(self.gates)


def compare(
    source: Pairs | str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | Truth = "",
    config: str | os.PathLike[str] | None = None,
    worst: int = 5,
    processes: int = 1,
) -> Findings:
    """Compare candidates with their primary, as `understudy compare`.

    Args:
        source: pairs that were chosen by `pairs`, or where pairs are, as for `pairs`.
        labels: where the right answers are; empty: beside the pairs, if there are any; `none`:
            without. A `Truth` also says how far off a number may be and still be right.
        config: the config file whose gates judge; by default that of the instance which is read.
        worst: how many differing pairs to show, 0 to 1,000.
        processes: to read files with; more than 1 starts others, which in a script needs
            `if __name__ == "__main__":` around what calls this. Memory: 150 MB each, whatever
            the number of pairs.

    Raises:
        SourceError: pairs or labels cannot be read.
        ConfigError: the config given is broken.
    """
    if not 0 <= worst <= 1_000:
        raise SourceError(f"worst must be from 0 to 1,000, not {worst}")
    chosen = _chosen(source)
    judging = Judging(config=config_beside(chosen.source, _path(config)))
    summary = _read(_Asked(chosen, judging, _truth(labels), worst, processes), summary_of)
    return Findings(as_dict(summary), summary.candidates)


def verdict(
    source: Pairs | str | os.PathLike[str],
    *,
    gates: Mapping[str, float | None] | None = None,
    budget: str = "",
    labels: str | os.PathLike[str] | Truth = "",
    config: str | os.PathLike[str] | None = None,
    processes: int = 1,
) -> VerdictFindings:
    """Say whether a candidate may be promoted, as `understudy verdict`; ask as often as you like.

    Args:
        source: pairs that were chosen by `pairs`, or where pairs are, as for `pairs`.
        gates: judge by these alone: how much worse the candidate may be, as a share in (0, 1), by
            `agreement`, `correctness`, `availability` or `latency`; None: the config's margin, else
            the default. Without: those of the config, else the defaults.
        budget: what a call may take, for the latency gate, such as `50ms`.
        labels: as for `compare`.
        config: as for `compare`.
        processes: as for `compare`.

    Raises:
        SourceError: pairs or labels cannot be read, they are of several candidates, or a gate or the
            budget is none.
        ConfigError: the config given is broken.
    """
    chosen = _chosen(source)
    given = {_metric(name): margin for name, margin in (gates or {}).items()}
    judging = Judging(
        metrics=tuple(given),
        margins={metric: _margin(m) for metric, m in given.items() if m is not None},
        budget_s=_seconds(budget) if budget else None,
        config=config_beside(chosen.source, _path(config)),
    )

    def found(aggregate: Aggregate, reading: Reading, read: SourceStatistics) -> VerdictFindings:
        name = only_candidate(aggregate, reading.selection, "pairs(…, route=…, candidate=…)")
        return VerdictFindings(judgement_of(aggregate, reading, name, read), reading.selection)

    return _read(_Asked(chosen, judging, _truth(labels), 0, processes), found)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What to read, and how to judge it."""

    chosen: Pairs
    judging: Judging
    truth: Truth
    worst: int
    processes: int


def _read(asked: _Asked, found: Callable[[Aggregate, Reading, SourceStatistics], _T]) -> _T:
    """Return what `found` makes of the counts of all pairs that were asked for.

    Raises:
        SourceError: they cannot be read.
    """
    wanted = asked.chosen.wanted
    selection = Selection(
        route=wanted.route,
        candidate=wanted.candidate,
        since_ms=wanted.since_ms,
        until_ms=wanted.until_ms,
        worst=asked.worst,
    )
    with opened(asked.chosen.source, selection, asked.judging, asked.truth) as opening:
        records, reading, advance = opening
        aggregate = aggregate_of(records, reading, advance, asked.processes)
        return found(aggregate, reading, records.statistics())


def _chosen(source: Pairs | str | os.PathLike[str]) -> Pairs:
    return source if isinstance(source, Pairs) else pairs(source)


def _truth(labels: str | os.PathLike[str] | Truth) -> Truth:
    return labels if isinstance(labels, Truth) else Truth(os.fspath(labels))


def _path(config: str | os.PathLike[str] | None) -> Path | None:
    return None if config is None else Path(config)


def _metric(name: str) -> Metric:
    try:
        return Metric(name)
    except ValueError as exc:
        raise SourceError(f"there is no gate {name!r}; there are {', '.join(Metric)}") from exc


def _margin(share: float) -> float:
    if not 0.0 < share < 1.0:
        raise SourceError(f"a margin is a share between 0 and 1, such as 0.01, not {share}")
    return float(share)


def _seconds(budget: str) -> float:
    try:
        return seconds(budget)
    except ValueError as exc:
        raise SourceError(f"budget: {exc}") from exc


def _tests(gates: Sequence[GateFinding]) -> tuple[OneLook, ...]:
    return tuple(test for gate in gates for test in one_look_tests(asdict(gate)))
