"""From the document of findings to the page of a report: which sections, in which order. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from proxy.analysis.more_pairs import more_pairs
from proxy.analysis.reports import gates, predictions, words
from proxy.analysis.reports.counts import counts, instant
from proxy.analysis.reports.document import (
    Object,
    count_of,
    number_of,
    object_of,
    objects_of,
    text_of,
)
from proxy.analysis.reports.health import health, no_pairs
from proxy.analysis.reports.one_look import one_look
from proxy.analysis.reports.page import CandidatePage, Page
from proxy.analysis.reports.segments import segments
from proxy.analysis.reports.streams import streams
from proxy.analysis.reports.worst import worst

#: What a person needs first comes first.
_ORDER: Final = (
    gates.agreement,
    one_look,
    predictions.correctness,
    gates.statuses,
    gates.latency,
    streams,
    segments,
    predictions.drift,
    predictions.differences,
    predictions.confusion,
    predictions.calibration,
    worst,
)


def page_of(document: Mapping[str, Any]) -> Page:
    """Return the page of a document; parts that are null, empty or unknown are left out."""
    compared = {_key(each): each for each in objects_of(document.get("comparisons"))}
    candidates = tuple(
        _candidate(each, compared.get(_key(each), {}))
        for each in objects_of(document.get("candidates"))
    )
    source = object_of(document.get("source"))
    return Page(
        title=_title([each.name for each in candidates]),
        sentence="" if candidates else no_pairs(document),
        source=_source(source, object_of(document.get("selection"))),
        candidates=candidates,
        health=health(document),
    )


def _key(found: Object) -> tuple[str, str]:
    return text_of(found.get("route")), text_of(found.get("candidate"))


def _candidate(found: Object, compared: Object) -> CandidatePage:
    name = "/".join(_key(found))
    verdict, tone = words.verdict_of(found)
    return CandidatePage(
        name=name,
        tone=tone,
        verdict=f"{verdict}{_forecast(found)}",
        sentence=_without_name(text_of(found.get("sentence")), name, found),
        sections=(
            *(section for part in _ORDER for section in part(found)),
            *counts(compared, found),
        ),
    )


def _forecast(found: Object) -> str:
    """Return about how many more pairs it takes, where that is the question."""
    said = object_of(found.get("verdict"))
    if said.get("verdict") != "continue":
        return ""
    more = more_pairs(objects_of(said.get("gates")), count_of(found.get("pairs")))
    return "" if more is None else f": about {more:,} more pairs, if they come like those so far"


def _without_name(sentence: str, name: str, found: Object) -> str:
    """Return a sentence without what stands above it already: whose it is, and the verdict's word."""
    rest = sentence.removeprefix(f"{name}: ")
    return rest.removeprefix(f"{object_of(found.get('verdict')).get('verdict')}. ")


def _source(source: Object, selection: Object) -> str:
    """Return where pairs came from, and which were chosen."""
    since, until = (number_of(selection.get(key)) for key in ("since_ms", "until_ms"))
    parts = (
        text_of(source.get("name")),
        *(
            f"{key} {text_of(selection[key])}"
            for key in ("route", "candidate")
            if selection.get(key)
        ),
        "" if since is None else f"since {instant(since)}",
        "" if until is None else f"until {instant(until)}",
    )
    return ", ".join(filter(None, parts))


def _title(names: list[str]) -> str:
    if not names:
        return "Comparison without pairs"
    return f"Comparison of {names[0] if len(names) == 1 else f'{len(names)} candidates'}"
