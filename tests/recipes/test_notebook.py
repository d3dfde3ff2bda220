"""The notebook in config/recipes runs in a real kernel over what the proxy really wrote, and is true."""

from __future__ import annotations

import re
import subprocess
import sys
from html import unescape
from typing import Any

import numpy as np
import pytest

from proxy import analysis
from tests.recipes.kernel import NAME, code_cells, run, shown
from tests.recipes.recorded import Record, Recorded
from tests.recipes.texts import RECIPES, readme_block
from tests.support.deadline import START_PATIENCE_S

pytestmark = pytest.mark.slow


def row_of(table: str, name: str) -> list[str]:
    """Return the cells of a Polars table's row, as HTML, that begins with `name`."""
    (row,) = [row for row in re.findall(r"<tr>(.*?)</tr>", table) if f"<td>&quot;{name}" in row]
    return [unescape(cell).strip('"') for cell in re.findall(r"<td>(.*?)</td>", row)]


def of_the_route(records: list[Record]) -> list[Record]:
    """Return those that the notebook looks at."""
    return [record for record in records if record["route"] == "score"]


@pytest.fixture(scope="module")
def cells(recorded: Recorded) -> list[Any]:
    """Run it once over the local log."""
    return run(recorded.folder)


def test_every_cell_runs_and_nothing_complains(cells: list[Any]) -> None:
    """No warning of a library, and no traceback; each cell in its order."""
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    kinds = {output.output_type for cell in cells for output in cell.outputs}
    assert kinds <= {"execute_result", "display_data"}


def test_it_shows_the_verdict_and_the_report(cells: list[Any], recorded: Recorded) -> None:
    """As frames, which say what the command says; the report is a file beside it, too."""
    chosen = analysis.pairs(recorded.folder / "state", route="score", candidate="v2")
    verdict, findings = analysis.verdict(chosen), analysis.compare(chosen)
    told = shown(cells, "verdict")
    assert told["text/plain"] == f"<VerdictFindings {verdict.sentence}>"
    assert told["text/html"].startswith("<iframe sandbox")
    assert shown(cells, "findings")["text/markdown"].count("\n## ") >= 2
    assert shown(cells, "findings.sentence")["text/plain"] == repr(findings.sentence)
    assert "One-look tests" in (recorded.folder / "report.html").read_text()


def test_its_numbers_are_those_of_the_records(cells: list[Any], recorded: Recorded) -> None:
    """Agreement and failures by tier, counted one by one; the slowest call."""
    records = of_the_route(recorded.records)
    table = shown(cells, "by_tier")["text/html"]
    for tier in ("free", "gold"):
        mine = [record for record in records if record["segments"]["tier"] == tier]
        compared = [record["equal"] for record in mine if record["equal"] is not None]
        failed = [record["candidate_status"] != "ok" for record in mine]
        _, count, agreement, failures = row_of(table, tier)
        assert int(count) == len(mine)
        assert float(agreement) == pytest.approx(np.mean(compared), abs=1e-6)
        assert float(failures) == pytest.approx(np.mean(failed), abs=1e-6)
    slowest = max(record["candidate_latency_ms"] for record in records)
    assert float(re.findall(r"[\d.]+", shown(cells, "slowest_ms")["text/plain"])[-1]) == slowest


def test_it_draws_the_differences(cells: list[Any]) -> None:
    """A picture that is more than a frame."""
    (picture,) = [
        output["data"]["image/png"]
        for cell in cells
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]
    assert len(picture) > 10_000


def test_the_repository_holds_it_without_results() -> None:
    """They would be somebody's pairs, and a difference in every commit."""
    cells = code_cells(RECIPES / NAME)
    assert [(cell.outputs, cell.execution_count) for cell in cells] == [([], None)] * len(cells)


def test_the_readmes_snippet_for_python_runs(recorded: Recorded) -> None:
    """As it stands."""
    done = subprocess.run(
        [sys.executable, "-c", readme_block("python", "from proxy import analysis")],
        cwd=recorded.folder, capture_output=True, text=True, check=True, timeout=START_PATIENCE_S,
    )  # fmt: skip
    assert "score/v2" in done.stdout
