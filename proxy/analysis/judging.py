"""By which gates a candidate is judged, and the verdict on its newest version.

Gates come from options, else from the route's ramp in the config of the instance, else from the
defaults: agreement at 0.01 (where labels tell who is right: correctness instead, since a better
candidate disagrees), availability at 0.001, and latency at 0.01 where a budget is given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from proxy.analysis.judged import JudgedTally, Version, VersionTally, evidence_counts
from proxy.comparison.evidence import EvidenceCounts, EvidenceKey, GateParams, Params, params_of
from proxy.comparison.gates import Metric
from proxy.comparison.verdict import Verdict, judge
from proxy.config.resolved import Config

#: Margins where none is given.
MARGINS: Final[Mapping[Metric, float]] = {
    Metric.AGREEMENT: 0.01,
    Metric.CORRECTNESS: 0.01,
    Metric.AVAILABILITY: 0.001,
    Metric.LATENCY: 0.01,
}


@dataclass(frozen=True, slots=True)
class Judging:
    """How candidates are judged.

    Attributes:
        metrics: gates to judge by; empty: those of the config, else the defaults.
        margins: for those that have none of their own here, the config's, else the defaults.
        budget_s: of the latency gate; None: the config's, else there is no such gate.
        alpha: of each gate; None: the default of `evidence.GateParams`.
        config: of the instance, where it is known.
    """

    metrics: tuple[Metric, ...] = ()
    margins: Mapping[Metric, float] = field(default_factory=dict)
    budget_s: float | None = None
    alpha: float | None = None
    config: Config | None = None

    def budget_of(self, route: str, candidate: str) -> float | None:
        """Return the latency budget of a route, in seconds; None where there is none."""
        if self.budget_s is not None:
            return self.budget_s
        configured = self._configured(route, candidate)
        gates = configured.gates if configured else ()
        return next((gate.budget_s for gate in gates if gate.metric is Metric.LATENCY), None)

    def source_of(self, route: str, candidate: str) -> str:
        """Return where the gates come from: options, config or defaults."""
        if self.metrics or self.margins or self.budget_s is not None:
            return "options"
        configured = self._configured(route, candidate)
        return "config" if configured and configured.gates else "defaults"

    def verdict(
        self, route: str, candidate: str, judged: JudgedTally, offsets: Iterable[tuple[str, int]]
    ) -> Verdict:
        """Return the verdict on what answered last; without pairs it is `no_data`."""
        deciding = judged.deciding()
        if deciding is None:
            key = EvidenceKey("", route, candidate, "", None, None)
            return judge(EvidenceCounts(key), Params(self._gates(route, candidate, VersionTally())))
        version, tally = deciding
        gates = self._gates(route, candidate, tally)
        params = Params(
            gates, floor=self._floor(route, candidate, version, tally.least_probability)
        )
        counts = tuple(
            tally.gate_counts(gate.metric, params.floor, has_noise_floor=gate.has_noise_floor)
            for gate in gates
        )
        arms = judged.arms(version, candidate)
        return judge(evidence_counts((route, candidate), version, counts, arms, offsets), params)

    def _gates(self, route: str, candidate: str, tally: VersionTally) -> tuple[GateParams, ...]:
        configured = self._configured(route, candidate)
        known = {gate.metric: gate for gate in configured.gates} if configured else {}
        metrics = self.metrics or tuple(known) or self._defaults(has_labels=tally.has_labels)
        budget_s = self.budget_of(route, candidate)
        found = []
        for metric in metrics:
            base = known.get(metric)
            margin = base.margin if base else MARGINS[metric]
            found.append(
                GateParams(
                    metric=metric,
                    margin=self.margins.get(metric, margin),
                    budget_s=(budget_s or 0.0) if metric is Metric.LATENCY else 0.0,
                    has_noise_floor=metric is Metric.AGREEMENT and tally.has_replicates,
                    **({} if self.alpha is None else {"alpha": self.alpha}),
                )
            )
        return tuple(found)

    def _defaults(self, *, has_labels: bool) -> tuple[Metric, ...]:
        answers = Metric.CORRECTNESS if has_labels else Metric.AGREEMENT
        latency = () if self.budget_s is None else (Metric.LATENCY,)
        return (answers, Metric.AVAILABILITY, *latency)

    def _floor(self, route: str, candidate: str, version: Version, least: float) -> float:
        """Return the least probability of being recorded: the config's if the pairs are of it."""
        configured = self._configured(route, candidate)
        if configured and self.config and version.config_version == self.config.version:
            return min(configured.floor, 1.0)
        return least

    def _configured(self, route: str, candidate: str) -> Params | None:
        """Return what the config's ramp says; None where the config knows no such candidate."""
        routes = {each.name: each for each in self.config.routes} if self.config else {}
        try:
            return params_of(routes[route], candidate)
        except KeyError:
            return None


def judging_like(params: Params) -> Judging:
    """Return how to read pairs for a verdict by `params`: whose calls are late is known then."""
    budgets = (gate.budget_s for gate in params.gates if gate.metric is Metric.LATENCY)
    return Judging(budget_s=next(budgets, None))


def recounted(written: Verdict, judged: JudgedTally, offsets: Iterable[tuple[str, int]]) -> Verdict:
    """Return the verdict on what `written` was about, by its parameters, from counts of today."""
    key, params = written.counts.key, written.params
    version = Version(
        key.experiment_id, key.config_version, key.primary_version, key.candidate_version
    )
    tally = judged.counted_of(version)
    counts = tuple(
        tally.gate_counts(gate.metric, params.floor, has_noise_floor=gate.has_noise_floor)
        for gate in params.gates
    )
    arms = judged.arms(version, key.candidate)
    name = key.route, key.candidate
    return judge(evidence_counts(name, version, counts, arms, offsets), params)


#: For readers that know of no options and no config.
DEFAULTS: Final = Judging()
