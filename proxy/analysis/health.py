"""What to know about the data before believing the numbers: one sentence for each weakness. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.analysis.sources import SourceStatistics
from proxy.analysis.summary import Comparison, Health, Summary
from proxy.analysis.wording import percent


def findings(summary: Summary) -> tuple[str, ...]:
    """Return everything that weakens the comparison, the most general first; empty is good."""
    found = [*_of_reading(summary.health)]
    if summary.source is not None:
        found += _of_source(summary.source)
    if summary.labels is not None and summary.labels.bad:
        labels = summary.labels
        found.append(
            f"{labels.bad:,} records in {labels.source} are no labels; the first: "
            f"{labels.bad_example}"
        )
    for comparison in summary.comparisons:
        name = f"{comparison.route}/{comparison.candidate}"
        found += (f"{name}: {sentence}" for sentence in _of_comparison(comparison))
    return tuple(found)


def _of_reading(health: Health) -> Iterator[str]:
    if health.missing:
        worst = ", ".join(f"{gap.instance} {gap.missing:,}" for gap in health.gaps)
        yield (
            f"{health.missing:,} pairs are missing between the first and the last of their "
            f"instances (lost, or not in this log): {worst}"
        )
    if health.duplicates:
        yield f"{health.duplicates:,} pairs were delivered again and counted once"
    if not health.is_exact:
        yield "numbers of pairs are too scattered to remember: duplicates may be left"
    if health.bad_records:
        yield (
            f"{health.bad_records:,} records are no pairs that this version reads; the first: "
            f"{health.bad_example}"
        )
    if health.not_tabulated:
        yield f"{health.not_tabulated:,} pairs of further candidates are left out: choose by --route"


def _of_source(source: SourceStatistics) -> Iterator[str]:
    if source.is_window:
        yield "gaps were not looked for, because the topic was read from --since on"
    if source.bad_lines:
        yield f"{source.bad_lines:,} lines are not JSON objects"
    if source.corrupt:
        yield f"{source.corrupt:,} damaged regions were skipped"
    if source.torn:
        yield f"{source.torn:,} files end in the middle of a record (still written, or cut)"
    yield from source.examples


def _of_comparison(comparison: Comparison) -> Iterator[str]:
    for side, leg in (("primary", comparison.primary_leg), ("candidate", comparison.candidate_leg)):
        if leg.truncated_bodies:
            yield (
                f"{leg.truncated_bodies:,} answers of the {side} "
                f"({percent(leg.truncated_bodies, comparison.pairs)}) were longer than is recorded"
            )
        if len(leg.model_versions) > 1:
            yield f"the {side} answered with {len(leg.model_versions)} model versions"
    if len(comparison.config_versions) > 1:
        yield f"recorded under {len(comparison.config_versions)} configurations"
    if len(comparison.sample_probabilities) > 1:
        yield (
            "pairs were recorded with different probabilities; plain counts lean towards what was "
            "recorded more"
        )
