"""`python -m proxy.launcher --config STATE/config/VERSION.json --source FILE`: the root of the tree."""

from __future__ import annotations

import sys
from pathlib import Path

from proxy.errors import UnderstudyError
from proxy.launcher.run import run

USAGE = "usage: python -m proxy.launcher --config STATE_DIR/config/VERSION.json [--source FILE]"


def main(arguments: list[str]) -> int:
    """Run until a signal ends it; return the exit code."""
    match arguments:
        case ["--config", path]:
            source = None
        case ["--config", path, "--source", file]:
            source = Path(file)
        case _:
            sys.stderr.write(f"{USAGE}\n")
            return 2
    try:
        return run(Path(path), source=source)
    except UnderstudyError as exc:
        sys.stderr.write(f"error: {exc}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
