"""Virtual environments for peers that are Python programs, each with packages of its own.

They lie in `.cache/peers/` of this tree, are made on first use, and are kept. What cannot be
installed is said and left out of the run.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / ".cache" / "peers"
_LIMIT_S = 600


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment's interpreter, or why there is none."""

    python: Path
    missing: str | None = None


@functools.cache
def environment(name: str, packages: tuple[str, ...]) -> Environment:
    """Return the environment of that name with these packages, making it where it is not there."""
    folder = CACHE / name
    python, done = folder / "bin" / "python", folder / ".done"
    wanted = "\n".join(packages)
    if done.exists() and done.read_text() == wanted:
        return Environment(python)
    print(f"making {folder} with {', '.join(packages)}", file=sys.stderr, flush=True)
    commands = (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(python), "-m", "pip", "install", "--quiet", *packages],
    )
    for command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=_LIMIT_S)
        except (OSError, subprocess.SubprocessError) as error:
            said = (getattr(error, "stderr", "") or str(error)).strip().splitlines()
            reason = said[-1] if said else repr(error)
            return Environment(python, f"{name} cannot be installed and is left out: {reason}")
    done.write_text(wanted)
    return Environment(python)


def package_version(python: Path, package: str) -> str:
    """Return the version of a package that is installed in an environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    run = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    return run.stdout.strip() or "unknown"
