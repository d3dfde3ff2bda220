"""The notebook in config/recipes runs in a real kernel over what the proxy really wrote, and is true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest

from proxy import analysis
from tests.recipes.recorded import Record, Recorded, Topic
from tests.recipes.texts import RECIPES, readme_block

NAME = "compare.ipynb"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


def run(folder: Path, source: str = "state") -> list[Any]:
    """Run the notebook in `folder` as `jupyter execute` does; return its code cells."""
    text = (RECIPES / NAME).read_text().replace('SOURCE = \\"state\\"', f'SOURCE = \\"{source}\\"')
    path = folder / NAME
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", "from nbclient.cli import main; main()", "--inplace", "--timeout=60", str(path)],
        cwd=folder, capture_output=True, text=True, check=False, timeout=100,
        # A figure is drawn without a screen; nothing of this machine's own settings is read.
        env={**os.environ, "IPYTHONDIR": str(folder / "ipython"), "MPLCONFIGDIR": str(folder / "mpl"),
             "JUPYTER_PREFER_ENV_PATH": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4_000:]
    return code_cells(path)


def code_cells(path: Path) -> list[Any]:
    """Return the code cells of a valid notebook."""
    found: Any = nbformat.reads(path.read_text(), as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(found)
    return [cell for cell in found.cells if cell.cell_type == "code"]


def shown(cells: list[Any], line: str) -> dict[str, Any]:
    """Return what the one cell shows whose last line this is."""
    (cell,) = [c for c in cells if c.source.splitlines()[-1] == line]
    found: dict[str, Any] = cell.outputs[-1]["data"]
    return found


def row_of(table: str, name: str) -> list[str]:
    """Return the cells of a Polars table's row, as HTML, that begins with `name`."""
    (row,) = [row for row in re.findall(r"<tr>(.*?)</tr>", table) if f"<td>&quot;{name}" in row]
    return [cell.strip("&quot;") for cell in re.findall(r"<td>(.*?)</td>", row)]


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


@pytest.mark.kafka
def test_it_reads_a_topic_in_the_kernels_own_event_loop(topic: Topic, tmp_path: Path) -> None:
    """The kernel's loop runs already, which asyncio does not let another one do."""
    cells = run(tmp_path, f"kafka://{topic.bootstrap}/{topic.name}")
    assert (
        f"pairs={len(of_the_route(topic.records))}"
        in shown(cells, "few.statistics()")["text/plain"]
    )


def test_the_repository_holds_it_without_results() -> None:
    """They would be somebody's pairs, and a difference in every commit."""
    cells = code_cells(RECIPES / NAME)
    assert [(cell.outputs, cell.execution_count) for cell in cells] == [([], None)] * len(cells)


def test_the_readmes_snippet_for_python_runs(recorded: Recorded) -> None:
    """As it stands."""
    done = subprocess.run(
        [sys.executable, "-c", readme_block("python", "from proxy import analysis")],
        cwd=recorded.folder, capture_output=True, text=True, check=True, timeout=25,
    )  # fmt: skip
    assert "score/v2" in done.stdout
