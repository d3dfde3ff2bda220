"""How commands talk to a person: errors and marks in colour, on terminals only."""

from __future__ import annotations

import os
import sys
from typing import TextIO


class Ended(SystemExit):
    """A command ends with an exit code that means something of its own, not success or failure."""


RED, GREEN, YELLOW, BOLD = "31", "32", "33", "1"


def complain(message: str) -> None:
    """Print an error on stderr."""
    print(f"{paint('error:', RED, sys.stderr)} {message}", file=sys.stderr)


def paint(text: str, colour: str, stream: TextIO | None = None) -> str:
    """Return `text` in `colour` where `stream` (stdout by default) is a terminal that shows it.

    `NO_COLOR` (no-color.org) and `TERM=dumb` turn colour off.
    """
    stream = sys.stdout if stream is None else stream
    is_plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM") == "dumb"
    return text if is_plain or not stream.isatty() else f"\x1b[{colour}m{text}\x1b[0m"
