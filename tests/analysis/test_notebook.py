"""What a notebook asks and shows is what the commands say, word for word and number for number."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from html import unescape
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy import analysis
from proxy.errors import ConfigError, ReportError, SourceError
from tests.support.browser import browser, find_browser
from tests.support.deadline import START_PATIENCE_S
from tests.support.records import pair, write_pairs

EVIL = "</script><script>document.title='evil'</script>\"><img src=x onerror=alert(1)>"


def command(*words: str) -> dict[str, Any]:
    """Return what a command prints with --json."""
    done = subprocess.run(
        [sys.executable, "-m", "proxy", *words, "--json"],
        capture_output=True, timeout=START_PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.stderr == b""
    found: dict[str, Any] = orjson.loads(done.stdout)
    return found


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Write pairs of two candidates, one as good, one that differs in every eighth; labels, too."""
    rows = [
        pair(n, 1, 2 if name == "v3" and n % 8 == 0 else 1, candidate=name,
             instance=f"i-{name}", segments={"tier": "gold" if n % 16 else "free"})
        for name in ("v2", "v3") for n in range(1, 801)
    ]  # fmt: skip
    write_pairs(tmp_path / "state" / "pairs" / "1.ndjson.zst", rows)
    lines = [orjson.dumps({"request_id": f"r-{n}", "label": 1}) for n in range(1, 801)]
    (tmp_path / "labels.ndjson").write_bytes(b"\n".join(lines))
    return tmp_path / "state"


def test_a_comparison_is_that_of_the_command(state: Path) -> None:
    """The document to the last field; candidates as values; one of them by its name."""
    findings = analysis.compare(state)
    assert findings.document == command("compare", "--from", str(state))
    assert [each.candidate for each in findings.candidates] == ["v2", "v3"]
    worse = findings["v3"]
    assert (worse.verdict, findings["iris/v2"].verdict) == ("halt", "continue")
    assert worse.sentence == findings.document["candidates"][1]["sentence"]
    assert worse.candidate.agreement.rate == 0.875
    agreement = worse.gates[0]
    assert (agreement.metric, agreement.mean, agreement.counts.worse) == ("agreement", 0.125, 100)
    assert len(worse.document["candidates"]) == len(worse.document["comparisons"]) == 1
    assert repr(worse) == f"<Findings {worse.sentence}>"


def test_a_comparison_takes_a_choice_and_labels(state: Path) -> None:
    """Only the pairs that were chosen, held against the right answers."""
    labels = state.parent / "labels.ndjson"
    findings = analysis.compare(analysis.pairs(state, candidate="v3"), labels=labels, worst=2)
    wanted = command(
        "compare",
        "--from",
        str(state),
        "--candidate",
        "v3",
        "--labels",
        str(labels),
        "--worst",
        "2",
    )
    assert findings.document == wanted
    assert findings.candidate.correctness is not None
    assert findings.candidate.correctness.only_primary == 100
    strict = analysis.compare(state, labels=analysis.Truth(str(labels), tolerance=0.0))
    assert strict["v3"].candidate.correctness == findings.candidate.correctness


def test_a_verdict_is_that_of_the_command(state: Path) -> None:
    """By the same gates, with its record; it is computed again from that."""
    chosen = analysis.pairs(state, candidate="v2")
    found = analysis.verdict(chosen, gates={"agreement": 0.02, "latency": None}, budget="50ms")
    wanted = command(
        "verdict", "--from", str(state), "--candidate", "v2", "--metric", "agreement",
        "--metric", "latency", "--margin", "agreement=0.02", "--budget", "50ms",
    )  # fmt: skip
    assert found.document == wanted
    assert (found.verdict, [gate.margin for gate in found.gates]) == ("promote", [0.02, 0.01])
    assert found.judged.recomputed() == found.judged
    assert analysis.verdict(chosen, gates={"agreement": 0.001}).verdict == "continue"
    assert repr(found) == f"<VerdictFindings {found.sentence}>"
    worse = analysis.pairs(state, candidate="v3")
    assert analysis.verdict(worse, labels=state.parent / "labels.ndjson").verdict == "halt"


def test_several_processes_find_the_same(state: Path) -> None:
    """In a process whose main module can be imported, as pytest's can."""
    assert analysis.compare(state, processes=2).document == analysis.compare(state).document


def test_one_look_tests_are_asked_for_and_come_into_the_report(state: Path) -> None:
    """The report of before is not changed by it."""
    findings = analysis.compare(state)
    tests = findings["v3"].one_look()
    assert [test.test for test in tests[:3]] == ["McNemar", "bootstrap, 95%", "TOST, 90%"]
    assert tests[0].says == "a difference"
    more = findings.with_one_look()
    assert "One-look tests" in more.markdown()
    assert "One-look tests" not in findings.markdown()
    assert more.document["candidates"][1]["one_look"][0] == asdict(tests[0])
    chosen = analysis.pairs(state, candidate="v3")
    assert analysis.verdict(chosen).one_look() == tests


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"gates": {"agrement": 0.01}}, "there is no gate 'agrement'; there are agreement, "),
        ({"gates": {"agreement": 2}}, "a margin is a share between 0 and 1, such as 0.01, not 2"),
        ({"budget": "soon"}, "budget: "),
        ({}, r"there are pairs of iris/v2, iris/v3: choose by pairs\("),
        ({"labels": "gone.ndjson"}, "there is nothing at gone.ndjson"),
    ],
)
def test_a_verdict_that_cannot_be_is_an_error_that_says_why(
    state: Path, asked: dict[str, Any], words: str
) -> None:
    """And how to mend it."""
    with pytest.raises(SourceError, match=words):
        analysis.verdict(state, **asked)


def test_findings_of_several_candidates_have_no_single_verdict(state: Path) -> None:
    """One is chosen by its name; none is there where there are no pairs."""
    findings = analysis.compare(state)
    with pytest.raises(SourceError, match="choose by"):
        _ = findings.verdict
    with pytest.raises(
        SourceError, match="no candidate is called 'v4'; there are pairs of iris/v2"
    ):
        _ = findings["v4"]
    nothing = analysis.compare(analysis.pairs(state, route="other"))
    with pytest.raises(SourceError, match="there are no pairs"):
        _ = nothing.gates
    assert "No pairs selected" in nothing.markdown()
    with pytest.raises(SourceError, match="worst must be"):
        analysis.compare(state, worst=-1)


def test_the_gates_of_a_config_judge(state: Path, tmp_path: Path) -> None:
    """A broken one is the operator's error, as everywhere."""
    path = tmp_path / "understudy.yaml"
    path.write_text(
        "backends: {a: {endpoints: ['http://127.0.0.1:1']}, b: {endpoints: ['http://127.0.0.1:2']}}\n"
        "routes: [{name: iris, primary: a, candidates: [{name: v2, backend: b}], ramp: {steps: "
        "[{weight: 10%}], gates: [{metric: availability, margin: 0.05}]}}]\n"
    )
    found = analysis.verdict(analysis.pairs(state, candidate="v2"), config=path)
    assert [(gate.metric, gate.margin) for gate in found.gates] == [("availability", 0.05)]
    assert found.document["verdict"]["gates_from"] == "config"
    path.write_text("routes: [")
    with pytest.raises(ConfigError):
        analysis.compare(state, config=path)


def test_a_report_is_saved_as_its_name_says(state: Path, tmp_path: Path) -> None:
    """Markdown or HTML, as the command writes them."""
    findings = analysis.compare(state)
    findings.save(tmp_path / "report.md")
    findings.save(str(tmp_path / "report.html"))
    assert (tmp_path / "report.md").read_text() == findings.markdown() == findings._repr_markdown_()
    assert (tmp_path / "report.html").read_text() == findings.html()
    with pytest.raises(ReportError, match="cannot write"):
        findings.save(tmp_path / "gone" / "report.html")


def test_a_notebook_shows_the_report_in_a_frame_that_nothing_leaves(tmp_path: Path) -> None:
    """In a real browser: the whole report, and no script of a hostile answer outside or inside."""
    path = find_browser()
    if path is None:
        pytest.skip("no chromium on the path")
    rows = [pair(n, 1, EVIL if n % 2 else 1, segments={"q": EVIL}) for n in range(1, 41)]
    findings = analysis.compare(write_pairs(tmp_path / f"{EVIL[:9].replace('/', '')}.zst", rows))
    found = analysis.verdict(tmp_path)
    cells = (findings._repr_html_(), found._repr_html_())
    page = tmp_path / "cells.html"
    page.write_text(f"<!doctype html><title>notebook</title>{'<p>'.join(cells)}")
    with browser(path, tmp_path / "profile") as window:
        window.open(page.as_uri())
        frames = window.value("[...document.querySelectorAll('iframe')].map(f => f.srcdoc)")
        assert window.value("document.title") == "notebook"
        assert window.value("document.querySelectorAll('img, script').length") == 0
    assert frames == [findings.html(), found.html()]
    assert all("sandbox" in cell and unescape(cell) != cell for cell in cells)
    assert [each.title for each in found.page().candidates[0].sections] == [
        "Agreement, and what the gates say"
    ]
