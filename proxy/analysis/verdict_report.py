"""A verdict for people and for programs, and back: the record that it is recomputed from. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from proxy.analysis.finding import verdict_finding
from proxy.analysis.findings import GateFinding
from proxy.analysis.judged import VersionPairs
from proxy.analysis.sentence import verdict_sentence
from proxy.analysis.source import SourceStatistics
from proxy.analysis.summary import Health, Selection
from proxy.analysis.wording import number
from proxy.comparison.verdict import Verdict
from proxy.comparison.verdict_json import dumps, loads_verdict

FORMAT: Final = "understudy.verdict/1"


def document(
    verdict: Verdict,
    gates_from: str,
    versions: tuple[VersionPairs, ...],
    source: SourceStatistics | None,
    health: Health | None,
    selection: Selection | None = None,
) -> dict[str, Any]:
    """Return the JSON object of `understudy verdict --json`.

    Its `record` holds counts, parameters and offsets, from which the verdict comes out bit for bit.
    """
    key = verdict.counts.key
    return {
        "format": FORMAT,
        "sentence": verdict_sentence(verdict),
        "route": key.route,
        "candidate": key.candidate,
        "verdict": verdict_finding(verdict, gates_from),
        "versions": versions,
        "source": source,
        "selection": selection,
        "health": health,
        "record": orjson.Fragment(dumps(verdict)),
    }


def read_record(data: bytes) -> Verdict:
    """Return the verdict in a document, in a decision, or in a record alone, made again from its counts.

    Raises:
        ValueError: it is none of them, or its counts give another verdict.
    """
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError as exc:
        raise ValueError(f"no JSON: {exc}") from exc
    record = said
    if isinstance(said, dict):
        if "decision_id" in said and said.get("evidence") is None:
            raise ValueError(f"this decision ({said.get('action')}) carries no verdict")
        record = said.get("record") or said.get("evidence") or said
    return loads_verdict(orjson.dumps(record))


def read_selection(data: bytes) -> Selection:
    """Return which pairs a document's verdict is about; all where it does not say.

    Raises:
        ValueError: it says something else.
    """
    said = orjson.loads(data)
    try:
        return Selection(**(said.get("selection") or {}))
    except TypeError as exc:
        raise ValueError(f"its selection is none: {exc}") from exc


@dataclass(frozen=True, slots=True)
class Recomputed:
    """One decision of a log, and its verdict made again; `fault` says why it could not be."""

    ts: str
    action: str
    scope: str
    verdict: Verdict | None
    fault: str = ""


def read_decisions(lines: Iterable[bytes]) -> Iterator[Recomputed]:
    """Yield the decisions that carry evidence, each made again from its counts.

    Args:
        lines: of `state_dir/decisions.ndjson`, or of the topic; lines that are no JSON are left out,
            since a crash may have cut one.
    """
    for line in lines:
        try:
            said = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if not isinstance(said, dict) or not said.get("evidence"):
            continue
        ts, action, scope = (str(said.get(name, "")) for name in ("ts", "action", "scope"))
        try:
            verdict = loads_verdict(orjson.dumps(said["evidence"]))
            yield Recomputed(ts, action, scope, verdict)
        except ValueError as exc:
            yield Recomputed(ts, action, scope, None, str(exc))


def lines_of(verdict: Verdict, gates_from: str, versions: Iterable[VersionPairs]) -> Iterator[str]:
    """Yield the verdict as lines of text: the sentence first, then each gate, then what was left out."""
    yield verdict_sentence(verdict)
    finding = verdict_finding(verdict, gates_from)
    for gate in finding.gates:
        yield f"  {gate.metric:<13} {gate.verdict:<9} {_evidence(gate)}"
    yield f"  gates from: {finding.gates_from}"
    for version in versions:
        if not version.is_deciding:
            yield (
                f"  left out: {version.pairs:,} pairs of config {version.config_version}, "
                f"primary {version.primary_version or '-'}, "
                f"candidate {version.candidate_version or '-'}"
            )


def _evidence(gate: GateFinding) -> str:
    counts = gate.counts
    noise = ""
    if gate.metric == "agreement":
        noise = ", less the primary's noise" if gate.has_noise_floor else ", noise taken as 0"
    missing = f", {counts.missing:,} missing" if counts.missing else ""
    return (
        f"{gate.n:,} pairs (worse {counts.worse:,}, better {counts.better:,}{missing}){noise}; "
        f"evidence to promote {number(gate.e_promote)}, to halt {number(gate.e_halt)}, "
        f"acts at {number(1 / gate.alpha)}"
    )
