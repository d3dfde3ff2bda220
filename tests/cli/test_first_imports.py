"""What is imported before a kill has raised its priority."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import proxy
from tests.support.deadline import START_PATIENCE_S

_CHILD = """
import os, sys
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
import proxy.__main__
print(*sorted(set(sys.modules) - before))
"""


def test_nothing_but_itself() -> None:
    """On full processors each import at the usual priority would wait for its turn."""
    folder = Path(proxy.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _CHILD, folder],
        capture_output=True,
        text=True,
        check=True,
        timeout=START_PATIENCE_S,
    )
    assert set(done.stdout.split()) <= {"__future__", "proxy", "proxy.__main__"}
