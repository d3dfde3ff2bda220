"""The decisions log: who killed, revived or re-weighted what, from what to what, and why.

One JSON object a line in `state_dir/decisions.ndjson`, mode 0600, in the form of
`proxy.state.decision_record`; the files are `proxy.state.decision_files`'. Control, the launcher and the
CLI write it, under a lock, so that each record has a number of its own; a recorder ships it to Kafka. It
records decisions and makes none; a decision that cannot be logged still holds.

To log one:

    append(state_dir, Decision(now_ms, "kill", "guard", "control", "iris/v2", [], ["canary"], "…"))

What the disk refuses waits in the process's memory, and is written before the next one, or by `retry`.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson

from proxy.errors import StateError
from proxy.state.decision_files import (
    FILE_NAME,
    LOCK_NAME,
    old_files,
    records_backwards,
    write_records,
)
from proxy.state.decision_record import About, Decision, make
from proxy.state.page_file import PageFile, locked, map_page

#: Decisions of one process that wait for a disk; beyond it the newest ones are given up.
WAITING_MOST: Final = 1_000

#: What waits, by `state_dir`. Orders are carried out by functions that know the page and nothing else
#: of the process they run in, so this belongs to the process.
_waiting: dict[Path, deque[dict[str, Any]]] = {}


def append(state_dir: Path, decision: Decision) -> None:
    """Append one decision.

    Raises:
        StateError: the log cannot be written now; the decision itself is not undone, and its record
            waits in this process's memory, unless `WAITING_MOST` do already.
    """
    waiting = _waiting.setdefault(state_dir, deque())
    record = make(decision, about(state_dir))
    if len(waiting) >= WAITING_MOST and (error := _write_waiting(state_dir)):
        raise StateError(f"{error}; {len(waiting)} wait already, so this one is in no log")
    waiting.append(record)
    if error := _write_waiting(state_dir):
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
    """Write what waits in this process's memory; return why that cannot be done, empty when it was."""
    return _write_waiting(state_dir) if _waiting.get(state_dir) else ""


def waiting_count(state_dir: Path) -> int:
    """Return how many decisions wait in this process's memory for the disk."""
    return len(_waiting.get(state_dir, ()))


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


def about(state_dir: Path) -> About:
    """Return what the config that runs says of itself; as much as can be read."""
    version = _version(state_dir)
    if not version:
        return About()
    try:
        config = orjson.loads((state_dir / "config" / f"{version}.json").read_bytes())
        experiments = {route["name"]: route["experiment_id"] for route in config["routes"]}
        return About(config["instance"], version, experiments)
    except (OSError, ValueError, KeyError, TypeError):
        return About("", version)


def _version(state_dir: Path) -> str:
    """Return the version of the config that the page names, else the launcher; empty: nobody does."""
    with suppress(StateError, ValueError, KeyError, TypeError):
        page = PageFile(*map_page(state_dir))
        try:
            if version := str(orjson.loads(page.read_payload())["config_version"]):
                return version
        finally:
            page.close()
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(orjson.loads((state_dir / "runtime.json").read_bytes())["config_version"])
    return ""


def _write_waiting(state_dir: Path) -> str:
    """Write everything that waits; return why it cannot be written, empty when it was."""
    waiting = _waiting[state_dir]
    try:
        with locked(state_dir, LOCK_NAME):
            descriptor = write_records(state_dir, waiting)
    except OSError as exc:
        return f"cannot append to {state_dir / FILE_NAME}: {exc.strerror}"
    except StateError as exc:
        return f"cannot append to {state_dir / FILE_NAME}: {exc}"
    waiting.clear()
    try:
        with suppress(OSError):  # what is written is read; a loss of power may still take it
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return ""
