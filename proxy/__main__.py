"""`understudy`, also `python -m proxy`.

It imports as little as can be before a kill has raised its priority: until then it waits for a processor
like everybody else.
"""

from __future__ import annotations

import os
import sys

#: The highest priority that there is (nice(1)).
_FIRST = -20


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
    try:  # noqa: SIM105 - contextlib would have to be imported first
        os.nice(_FIRST)
    except OSError:
        pass


if __name__ == "__main__":
    main()
