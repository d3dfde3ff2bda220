"""`python -m proxy.launcher --config STATE/config/VERSION.json`: the root of the process tree."""

from __future__ import annotations

import sys
from pathlib import Path

from proxy.errors import UnderstudyError
from proxy.launcher.run import run

USAGE = "usage: python -m proxy.launcher --config STATE_DIR/config/VERSION.json"


def main(arguments: list[str]) -> int:
    """Run until a signal ends it; return the exit code."""
    match arguments:
        case ["--config", path]:
            pass
        case _:
            sys.stderr.write(f"{USAGE}\n")
            return 2
    try:
        return run(Path(path))
    except UnderstudyError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
