"""What became of an order, and how it is told."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import orjson


@dataclass(frozen=True, slots=True)
class Done:
    """What became of an order.

    Attributes:
        killed: every latch that is closed now, with its parts.
        opened: what a revive opened.
        took_ms: from the start of the command to the answer.
        in_effect: False for a kill that waits for the launcher.
        warnings: what did not go the usual way.
    """

    action: str
    scope: str
    old: list[str] | int | str | None
    new: list[str] | int | str | None
    killed: dict[str, list[str]]
    via: str
    took_ms: float
    opened: dict[str, list[str]] = field(default_factory=dict)
    in_effect: bool = True
    warnings: tuple[str, ...] = ()


def print_done(done: Done, sentence: str, *, as_json: bool) -> int:
    """Print the answer to an order: the sentence, every latch, and warnings on stderr.

    Returns:
        The exit code: 1 for a kill that is not in effect yet.
    """
    for warning in done.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        print(orjson.dumps(done).decode())
    else:
        print(f"{sentence} in {done.took_ms:g} ms ({done.via})")
        for scope, parts in done.killed.items():
            print(f"  killed: {scope}: {', '.join(parts)}")
        if not done.killed:
            print("  nothing is killed")
    return int(not done.in_effect)
