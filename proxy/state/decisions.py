"""The decisions log: who killed, revived or re-weighted what, from what to what, and why.

One JSON object a line in `state_dir/decisions.ndjson`, mode 0600, only ever appended to. Control,
the launcher and the CLI write it, each line with one `write` in append mode, so lines of several
writers never mix. It records decisions and makes none; a decision that cannot be logged still holds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from proxy.errors import StateError
from proxy.telemetry import rfc3339

FILE_NAME = "decisions.ndjson"
#: How much of the end of the log `read_last` looks at.
TAIL_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class Decision:
    """One change of the control page, of the config, or of a ramp.

    Attributes:
        ts_ms: wall clock, milliseconds since the Unix epoch.
        action: `kill`, `revive`, `weight` or `config`; `ramp_` and its event.
        who: the person or program that asked, as far as it said so.
        via: the way it came: `api 127.0.0.1`, `state-dir`, `file KILL`, `signal SIGUSR1`.
        scope: `*`, `route` or `route/candidate`.
        old, new: the killed parts of the scope, its weight in basis points, config
            versions, or a ramp's phase.
        note: what else the order did, or did not do; mostly empty.
        evidence: of a ramp, the verdict with the counts that it was made from; else left out.
        diff: of a config, each key that changed, as a line without secrets; the first ones.
    """

    ts_ms: int
    action: str
    who: str
    via: str
    scope: str
    old: list[str] | int | str
    new: list[str] | int | str
    reason: str
    note: str = ""
    evidence: Any = None
    diff: tuple[str, ...] = ()


def append(state_dir: Path, decision: Decision) -> None:
    """Append one decision.

    Raises:
        StateError: the log cannot be written; the decision itself is not undone.
    """
    fields = orjson.loads(orjson.dumps(decision))
    if decision.evidence is None:
        del fields["evidence"]
    if not decision.diff:
        del fields["diff"]
    line = orjson.dumps({"ts": rfc3339(decision.ts_ms), **fields})
    path = state_dir / FILE_NAME
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, line + b"\n")
        finally:
            os.close(descriptor)
    except OSError as exc:
        raise StateError(f"cannot append to {path}: {exc.strerror}") from exc


def read_last(state_dir: Path, limit: int) -> list[dict[str, Any]]:
    """Return the last `limit` decisions, newest first; lines that are no JSON are left out.

    Raises:
        StateError: the log is there but cannot be read.
    """
    path = state_dir / FILE_NAME
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - TAIL_BYTES))
            lines = file.read(TAIL_BYTES).splitlines()
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise StateError(f"cannot read {path}: {exc.strerror}") from exc
    found: list[dict[str, Any]] = []
    for line in reversed(lines):
        try:
            found.append(orjson.loads(line))
        except orjson.JSONDecodeError:
            continue
        if len(found) >= limit:
            break
    return found[:limit]
