"""The decisions log: who killed, revived or re-weighted what, from what to what, and why.

One JSON object a line in `state_dir/decisions.ndjson`, mode 0600, in the form of
`proxy.state.decision_record`; the files are `proxy.state.decision_files`'. Control, the launcher and the
CLI write it, under a lock, so that each record has a number of its own; a recorder ships it to Kafka. It
records decisions and makes none; a decision that cannot be logged still holds.

To log one:

    append(state_dir, Decision(now_ms, "kill", "guard", "control", "iris/v2", [], ["canary"], "…"))

What the disk refuses waits in the process's memory, and is written before the next one, or by `retry`.
A disk that hangs neither takes nor refuses: whoever decides waits `PATIENCE_S` for it, and while it goes on
hanging not at all (`proxy.state.waiting_decisions`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from proxy.errors import StateError
from proxy.state.decision_files import FILE_NAME, old_files, records_backwards
from proxy.state.decision_record import Decision
from proxy.state.waiting_decisions import WaitingDecisions

#: Decisions of one process that wait for a disk; beyond it the newest ones are given up.
WAITING_MOST: Final = 1_000


#: By process and `state_dir`. Orders are carried out by functions that know the page and nothing else of
#: the process they run in, so what waits belongs to the process; a forked one begins with nothing.
_waiting: dict[tuple[int, Path], WaitingDecisions] = {}


def append(state_dir: Path, decision: Decision) -> None:
    """Append one decision; it is in the log when this returns, and synced soon after.

    Raises:
        StateError: the log cannot be written now, or the disk has not answered within `PATIENCE_S`; the
            decision itself is not undone, and its record waits in this process's memory, unless
            `WAITING_MOST` do already.
    """
    waiting = _of(state_dir)
    if len(waiting.decisions) >= WAITING_MOST and (error := waiting.written()):
        raise StateError(
            f"{error}; {len(waiting.decisions)} wait already, so this one is in no log"
        )
    waiting.decisions.append(decision)
    if error := waiting.written():
        raise StateError(error)


def append_all(state_dir: Path, decisions: Iterable[Decision]) -> str:
    """Append decisions; return why one is not in the log yet (it waits), empty when all are."""
    error = ""
    for decision in decisions:
        try:
            append(state_dir, decision)
        except StateError as exc:
            error = str(exc)
    return error


def retry(state_dir: Path) -> str:
    """Write what waits in this process's memory; return why that cannot be done, empty when it was.

    It waits for a disk as long as `append` does.
    """
    waiting = _of(state_dir)
    return waiting.written() if waiting.decisions else ""


def waiting_count(state_dir: Path) -> int:
    """Return how many decisions wait in this process's memory for the disk."""
    return len(_of(state_dir).decisions)


def _of(state_dir: Path) -> WaitingDecisions:
    key = os.getpid(), state_dir
    if key not in _waiting:
        _waiting[key] = WaitingDecisions(state_dir)
    return _waiting[key]


def read_last(state_dir: Path, limit: int) -> list[dict[str, Any]]:
    """Return the last `limit` decisions, newest first; lines that are none are left out.

    Raises:
        StateError: the log is there but cannot be read.
    """
    found: list[dict[str, Any]] = []
    try:
        older = [path for _, path in reversed(old_files(state_dir))]
        for path in (state_dir / FILE_NAME, *older):
            for record in records_backwards(path):
                found.append(record)
                if len(found) >= limit:
                    return found
    except OSError as exc:
        raise StateError(f"cannot read {state_dir / FILE_NAME}: {exc.strerror}") from exc
    return found
