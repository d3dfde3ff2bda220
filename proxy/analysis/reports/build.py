"""From the document of findings to the page of a report: which sections, in which order. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from proxy.analysis.reports import gates, predictions, words
from proxy.analysis.reports.counts import counts
from proxy.analysis.reports.document import Object, object_of, objects_of, text_of
from proxy.analysis.reports.health import health
from proxy.analysis.reports.one_look import one_look
from proxy.analysis.reports.page import CandidatePage, Page
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
    gates.segments,
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
        sentence=text_of(document.get("sentence")),
        source=text_of(source.get("name")),
        candidates=candidates,
        health=health(document),
    )


def _key(found: Object) -> tuple[str, str]:
    return text_of(found.get("route")), text_of(found.get("candidate"))


def _candidate(found: Object, compared: Object) -> CandidatePage:
    verdict, tone = words.verdict_of(found)
    return CandidatePage(
        name="/".join(_key(found)),
        tone=tone,
        verdict=verdict,
        sentence=text_of(found.get("sentence")),
        sections=(
            *(section for part in _ORDER for section in part(found)),
            *counts(compared, found),
        ),
    )


def _title(names: list[str]) -> str:
    if not names:
        return "Comparison without pairs"
    return f"Comparison of {names[0] if len(names) == 1 else f'{len(names)} candidates'}"
