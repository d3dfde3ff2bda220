"""`understudy`, also `python -m proxy`."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import Final

#: The highest priority that there is (nice(1)).
_FIRST: Final = -20


def main() -> None:
    """Run the command that the arguments name, and exit with its code."""
    if sys.argv[1:2] == ["kill"]:
        go_first()
    # After that: what it imports takes half the time of a kill.
    from proxy.cli.entry import run  # noqa: PLC0415

    sys.exit(run(sys.argv[1:]))


def go_first() -> None:
    """Let a kill pass whatever keeps the processors busy, where the system allows it (root does).

    On two cores under full load it took 110 ms to take effect otherwise, 34 ms on idle ones.
    """
    with suppress(OSError):
        os.nice(_FIRST)


if __name__ == "__main__":
    main()
