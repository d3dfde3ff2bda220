"""Claim: a verdict may be looked at after every pair, and errs in 5% of experiments at most.

Simulated experiments of a candidate that differs from the primary in 4% of pairs, judged by the
product's own evidence with a margin of 0.01 after each of up to 20,000 pairs: at no difference, at a
difference of exactly the margin (where both claims are false) and at 0.03. Beside it McNemar's test
at 5%, looked at every 100 pairs. Then a primary that answers 2% of requests differently when asked
again, and a candidate that is as noisy; and ten groups of users, one of which is served 3 points worse
by a candidate that is better for all others. And whether pairs spread over five processes give the
verdict of one, bit for bit. It needs one core and no load generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks import claims
from benchmarks.charts import Chart, Kind, Series
from benchmarks.claims import Claim, judged
from benchmarks.experiments import Decisions, Design, Law, Pairs, decide, mcnemar_alarms
from benchmarks.figures import Spread, spread
from benchmarks.groups import Findings, Groups, find_groups, noisy_law
from benchmarks.options import Options
from benchmarks.report import Report, Table
from proxy.comparison.counts import Tally
from proxy.comparison.evidence import (
    EvidenceCounts,
    EvidenceKey,
    GateCounts,
    GateParams,
    Params,
    add_up,
)
from proxy.comparison.gates import Metric
from proxy.comparison.reproducible import Floats
from proxy.comparison.verdict import judge
from proxy.comparison.verdict_json import dumps

NAME = "evidence"
EXPERIMENTS, QUICK_EXPERIMENTS = 10_000, 500
DISCORDANCE = 0.04
DESIGN = Design(margin=0.01, alpha=0.05, looks=20_000)
DIFFERENCES = (0.0, DESIGN.margin, 0.03)
MCNEMAR_STEP = 100
NOISE = 0.02
GROUPS = Groups(
    good=Law(-0.005, DISCORDANCE), bad=Law(0.03, DISCORDANCE), count=10,
    looks=range(100, 4_001, 100), margin=DESIGN.margin, alpha=DESIGN.alpha,
)  # fmt: skip
GROUP_EXPERIMENTS, QUICK_GROUP_EXPERIMENTS = 1_000, 100
SHARDS, SHARDED_EXPERIMENTS = 5, 100
_SEED = 20_260_101
_CHART_PAIRS = (100, 200, 500, 1_000, 2_000, 3_000, 5_000, 7_500, 10_000, 15_000, 20_000)


@dataclass(frozen=True, slots=True)
class Sample:
    """What the experiments with one true difference did.

    Attributes:
        promoted, halted: share of the experiments.
        median_promoted, median_halted: pairs until then; None where none did.
        decided: share of the experiments that had decided after so many pairs.
    """

    difference: float
    experiments: int
    promoted: float
    halted: float
    median_promoted: float | None
    median_halted: float | None
    decided: dict[int, float]


def run(options: Options, _folder: Path, say: Callable[[str], None]) -> Report:
    """Simulate experiments at each true difference, the naive test, and shards."""
    experiments = QUICK_EXPERIMENTS if options.is_quick else EXPERIMENTS
    samples = []
    for number, difference in enumerate(DIFFERENCES):
        say(f"{experiments:,} experiments, true difference {difference:g}")
        rng = np.random.default_rng([_SEED, number])
        decisions = decide(Pairs(Law(difference, DISCORDANCE), rng), experiments, DESIGN)
        samples.append(sample_of(difference, decisions))
    say("McNemar's test, looked at again and again")
    looks = range(MCNEMAR_STEP, DESIGN.looks + 1, MCNEMAR_STEP)
    rng = np.random.default_rng([_SEED, len(DIFFERENCES)])
    naive = mcnemar_alarms(Law(0.0, DISCORDANCE), experiments, looks, rng)
    say(f"a primary that differs from itself in {NOISE:.0%} of requests")
    rng = np.random.default_rng([_SEED, len(DIFFERENCES) + 1])
    noisy = sample_of(0.0, decide(Pairs(noisy_law(NOISE), rng), experiments, DESIGN))
    group_experiments = QUICK_GROUP_EXPERIMENTS if options.is_quick else GROUP_EXPERIMENTS
    say(f"{group_experiments:,} experiments with {GROUPS.count} groups, one of them worse")
    rng = np.random.default_rng([_SEED, len(DIFFERENCES) + 2])
    found = find_groups(GROUPS, group_experiments, rng)
    say(f"{SHARDS} shards")
    unlike = sum(not shards_agree(number) for number in range(SHARDED_EXPERIMENTS))
    return Report(
        name=NAME,
        conditions=(
            f"{experiments:,} experiments of up to {DESIGN.looks:,} pairs, a look after every pair",
            f"{DISCORDANCE:.0%} of the pairs differ; margin {DESIGN.margin:g}",
            f"McNemar's test: two-sided at 5%, a look every {MCNEMAR_STEP} pairs",
            f"noisy: two calls to the same model differ in {NOISE:.0%}; the noise floor is taken away",
            f"{group_experiments:,} experiments with {GROUPS.count} groups, judged together",
            f"groups: a look every {GROUPS.looks.step} pairs of each, up to {GROUPS.looks[-1]:,}",
            f"{SHARDED_EXPERIMENTS} experiments of {DESIGN.looks:,} pairs spread over {SHARDS} shards",
        ),
        tables=(_table(samples, noisy, naive), _group_table(found)),
        samples=(*samples, noisy, found),
        summary={"mcnemar_false_alarms": naive, "shards_unlike": unlike},
        claims=tuple(_claims(samples, noisy, found, unlike)),
        charts=(_chart(samples),),
        faults=(f"{unlike} sharded verdicts differ from the unsharded",) if unlike else (),
    )


def sample_of(difference: float, decisions: Decisions) -> Sample:
    """Return what the decisions of experiments with one true difference say."""
    first = np.minimum(decisions.promoted, decisions.halted)
    return Sample(
        difference=difference,
        experiments=first.size,
        promoted=float(np.isfinite(decisions.promoted).mean()),
        halted=float(np.isfinite(decisions.halted).mean()),
        median_promoted=_median(decisions.promoted),
        median_halted=_median(decisions.halted),
        decided={pairs: float((first <= pairs).mean()) for pairs in _CHART_PAIRS},
    )


def shards_agree(number: int) -> bool:
    """Return whether pairs spread over shards give the verdict of one process, bit for bit."""
    rng = np.random.default_rng([_SEED, 99, number])
    differences = rng.choice([-1.0, 0.0, 1.0], DESIGN.looks, p=[0.02, 0.96, 0.02])
    shard_of = rng.integers(SHARDS, size=differences.size)
    shards = [_counts(differences[shard_of == shard], f"pairs/{shard}") for shard in range(SHARDS)]
    params = Params((GateParams(Metric.AGREEMENT, DESIGN.margin),))
    merged = add_up([shards[place] for place in rng.permutation(SHARDS)])
    # Only where the pairs were read from may differ.
    whole = replace(_counts(differences, "pairs"), offsets=merged.offsets)
    return dumps(judge(whole, params)) == dumps(judge(merged, params))


def _counts(differences: Floats, source: str) -> EvidenceCounts:
    tally = Tally()
    tally.add_all(differences)
    key = EvidenceKey("bench", "bench", "v2", "", None, None)
    gates = (GateCounts(Metric.AGREEMENT, tally.counts()),)
    return EvidenceCounts(key, gates, offsets=((source, differences.size),))


def _median(pairs: Floats) -> float | None:
    """Return the median over the experiments that decided so."""
    finite = pairs[np.isfinite(pairs)]
    return float(np.median(finite)) if finite.size else None


def _claims(samples: list[Sample], noisy: Sample, found: Findings, unlike: int) -> list[Claim]:
    """Return the claims about errors and about how soon a verdict comes."""
    none, margin, worse = samples
    return [
        judged("false halts, no difference", claims.ERRORS, _percent(none.halted)),
        judged(
            "false promotes, difference at the margin", claims.ERRORS, _percent(margin.promoted)
        ),
        judged("false halts, difference at the margin", claims.ERRORS, _percent(margin.halted)),
        judged(
            "median pairs to promote, no difference",
            claims.PROMOTE_PAIRS,
            _pairs(none.median_promoted),
        ),
        judged(
            "median pairs to halt, 3 points worse", claims.HALT_PAIRS, _pairs(worse.median_halted)
        ),
        judged("halts for noise alone", claims.ERRORS, _percent(noisy.halted)),
        judged("the worse group of ten is named", claims.GROUP_NAMED, _percent(found.named)),
        judged("another group is named", claims.ERRORS, _percent(found.misnamed)),
        judged(
            "verdicts of five shards unlike the unsharded", claims.NOTHING_LOST, spread([unlike])
        ),
    ]


def _percent(share: float) -> Spread:
    return spread([share * 100])


def _pairs(median: float | None) -> Spread | None:
    return None if median is None else spread([median])


def _table(samples: list[Sample], noisy: Sample, naive: float) -> Table:
    named = [(f"Understudy, true difference {one.difference:g}", one) for one in samples]
    named.append((f"Understudy, no difference, primary {NOISE:.0%} noisy", noisy))
    rows = [
        (
            name,
            f"{one.promoted:.1%}",
            f"{one.halted:.1%}",
            "" if one.median_promoted is None else f"{one.median_promoted:,.0f}",
            "" if one.median_halted is None else f"{one.median_halted:,.0f}",
        )
        for name, one in named
    ]
    rows.append(("McNemar again and again, no difference", "", f"{naive:.1%} (alarms)", "", ""))
    columns = ("", "promoted", "halted", "median pairs to promote", "to halt")
    return Table("Experiments", columns, tuple(rows))


def _group_table(found: Findings) -> Table:
    row = (
        f"{GROUPS.bad.difference:.1%} worse, the others {-GROUPS.good.difference:.1%} better",
        f"{found.named:.1%}",
        f"{found.misnamed:.1%}",
        "" if found.median_pairs is None else f"{found.median_pairs:,.0f}",
    )
    columns = (f"one group of {GROUPS.count}", "named", "another named", "median pairs of each")
    return Table("Groups", columns, (row,))


def _chart(samples: list[Sample]) -> Chart:
    """Return the share of experiments that have decided, by pairs."""
    return Chart(
        name=NAME,
        title="How soon a verdict comes (margin 0.01, 4% of pairs differ)",
        x_label="pairs",
        y_label="experiments decided, %",
        kind=Kind.LINES,
        series=tuple(
            Series(
                f"true difference {one.difference:g}",
                tuple((float(pairs), _percent(share)) for pairs, share in one.decided.items()),
            )
            for one in samples
        ),
        is_log_x=True,
        limits=((5.0, "5%: errors at the margin"),),
    )
