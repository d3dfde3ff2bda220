"""The notebook in config/recipes, run in a real kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat

from tests.recipes.texts import RECIPES

NAME = "compare.ipynb"


def run(folder: Path, source: str = "state", last: str = "") -> list[Any]:
    """Run the notebook in `folder` as `jupyter execute` does; return its code cells.

    Args:
        folder: where the kernel runs and the notebook is written to, with its results.
        source: where its pairs are.
        last: end with the cell that has this as its last line; else with its last.
    """
    notebook = json.loads((RECIPES / NAME).read_text())
    cells = notebook["cells"]
    for place, cell in enumerate(cells):
        cell["source"] = [
            line.replace('SOURCE = "state"', f'SOURCE = "{source}"') for line in cell["source"]
        ]
        if cell["source"][-1] == last:
            del cells[place + 1 :]
    path = folder / NAME
    path.write_text(json.dumps(notebook))
    done = subprocess.run(
        [sys.executable, "-c", "from nbclient.cli import main; main()", "--inplace",
         "--timeout=120", str(path)],
        cwd=folder, capture_output=True, text=True, check=False, timeout=200,
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
