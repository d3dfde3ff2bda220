"""The section on the data: what to know before believing the numbers. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from proxy.analysis.reports import words
from proxy.analysis.reports.document import (
    Object,
    count_of,
    list_of,
    object_of,
    objects_of,
    text_of,
)
from proxy.analysis.reports.page import Section, Table
from proxy.analysis.wording import percent


def health(document: Mapping[str, Any]) -> Section | None:
    """Return how sound the data is, the most general first; None when the document does not say."""
    found = object_of(document.get("health"))
    if not found or not (count_of(found.get("records")) or document.get("candidates")):
        return None
    sentences = [
        *_weaknesses(found),
        *_damage(object_of(document.get("source"))),
        *_labels(object_of(document.get("labels"))),
    ]
    for comparison in objects_of(document.get("comparisons")):
        name = f"{text_of(comparison.get('route'))}/{text_of(comparison.get('candidate'))}"
        sentences += (f"{name}: {sentence}" for sentence in _of_comparison(comparison))
    counts = tuple(
        (words.named(key), f"{value:,}")
        for key, value in found.items()
        if isinstance(value, int) and not isinstance(value, bool)
    )
    table = Table("What was read", ("", "count"), counts, is_detail=True)
    sound = "No gaps, duplicates, damage or truncated answers."
    blocks = (*(sentences or [sound]), *_split(document), *((table,) if counts else ()))
    return Section("Data health", blocks)


def no_pairs(document: Mapping[str, Any]) -> str:
    """Return why there are no pairs, and how to get some."""
    source, found = object_of(document.get("source")), object_of(document.get("health"))
    name = text_of(source.get("name")) or "the records"
    if count_of(found.get("records")) and not count_of(found.get("bad_records")):
        return (
            f"No pairs selected: none of the {count_of(found['records']):,} in {name} fits --route, "
            "--candidate, --since and --until."
        )
    hint = (
        "the topic is `<topic_prefix>.pairs.v1` of record.kafka in the config"
        if source.get("kind") == "kafka"
        else "with record.kafka in the config they are in the topic: kafka://HOST:PORT/TOPIC"
    )
    return (
        f"No pairs in {name}. Pairs are written while `understudy serve` mirrors requests (a "
        f"candidate needs mirror above 0%); {hint}. `understudy demo` makes some."
    )


def _split(document: Mapping[str, Any]) -> Iterator[Table]:
    """Yield which share of the keys each canary got, where there was one."""
    rows: list[tuple[str, ...]] = []
    flagged: set[int] = set()
    for candidate in objects_of(document.get("candidates")):
        found = object_of(candidate.get("verdict"))
        for arm in objects_of(found.get("split")):
            if found.get("reason") == "sample_ratio":
                flagged.add(len(rows))
            rows.append(
                (
                    f"{text_of(candidate.get('route'))}: {text_of(arm.get('name'))}",
                    f"{count_of(arm.get('keys')):,}",
                    words.share(arm.get("declared")),
                    words.share(arm.get("seen")),
                    words.evidence(arm.get("e")),
                )
            )
    if rows:
        yield Table(
            "Keys that the candidate served, each counted once, against the share that was declared",
            ("", "keys", "declared", "seen", "e-value"),
            tuple(rows),
            extra=frozenset({4}),
            flagged=frozenset(flagged),
        )


def _labels(found: Object) -> Iterator[str]:
    if count_of(found.get("bad")):
        yield (
            f"{count_of(found['bad']):,} records in {text_of(found.get('source'))} are no labels; the "
            f"first: {text_of(found.get('bad_example'))}."
        )


def _of_comparison(comparison: Object) -> Iterator[str]:
    for side in ("primary", "candidate"):
        leg = object_of(comparison.get(f"{side}_leg"))
        cut = count_of(leg.get("truncated_bodies"))
        if cut:
            share = percent(cut, count_of(comparison.get("pairs")))
            yield f"{cut:,} answers of the {side} ({share}) were longer than is recorded."
        versions = len(object_of(leg.get("model_versions")))
        if versions > 1:
            yield f"The {side} answered with {versions} model versions."
    configs = len(object_of(comparison.get("config_versions")))
    if configs > 1:
        yield f"Recorded under {configs} configurations."
    if len(object_of(comparison.get("sample_probabilities"))) > 1:
        yield (
            "Pairs were recorded with different probabilities; plain counts lean towards what was "
            "recorded more."
        )


def _weaknesses(found: Object) -> Iterator[str]:
    if count_of(found.get("missing")):
        gaps = objects_of(found.get("gaps"))
        worst = ", ".join(
            f"{text_of(gap.get('instance'))} {count_of(gap.get('missing')):,}" for gap in gaps
        )
        yield (
            f"{count_of(found['missing']):,} pairs are missing between the first and the last of "
            f"their instances (lost, or not in this log){f': {worst}' if worst else ''}."
        )
    if count_of(found.get("duplicates")):
        yield f"{count_of(found['duplicates']):,} pairs were delivered again and counted once."
    if found.get("is_exact") is False:
        yield "Numbers of pairs are too scattered to remember: duplicates may be left."
    if count_of(found.get("bad_records")):
        example = text_of(found.get("bad_example"))
        yield (
            f"{count_of(found['bad_records']):,} records are no pairs that this version reads"
            f"{f'; the first: {example}' if example else ''}."
        )
    if count_of(found.get("not_tabulated")):
        left_out = f"{count_of(found['not_tabulated']):,} pairs of further candidates"
        yield f"{left_out} are left out: choose by --route."


def _damage(source: Object) -> Iterator[str]:
    if source.get("is_window") is True:
        yield "Gaps were not looked for, because the topic was read from --since on."
    for key, what in (
        ("bad_lines", "lines are not JSON objects"),
        ("corrupt", "damaged regions were skipped"),
        ("torn", "files end in the middle of a record (still written, or cut)"),
    ):
        if count_of(source.get(key)):
            yield f"{count_of(source[key]):,} {what}."
    yield from map(text_of, list_of(source.get("examples")))
