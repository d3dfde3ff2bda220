"""What status and metrics tell of the decisions log: the last ones, and whether all have been shipped."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any, Final

from proxy.control.small_files import read_json
from proxy.state.decision_files import FILE_NAME, last_seq, records_backwards, shipped

#: Of the last decisions, so many are told.
LAST: Final = 5
#: Left out there: a verdict's counts, or a config's diff, are longer than all the rest.
_LONG: Final = ("evidence", "diff")
#: What is told before anything of them could be read.
NO_DECISIONS: Final[dict[str, Any]] = {
    "last": [], "written": 0, "acknowledged": 0, "dropped": {}, "error": "",
}  # fmt: skip


def told_decisions(state_dir: Path) -> dict[str, Any]:
    """Return the last decisions, newest first, and what became of all of them."""
    accounts = shipped(state_dir).get("accounts", {})
    try:
        last = list(islice(records_backwards(state_dir / FILE_NAME), LAST))
        written, error = last_seq(state_dir), ""
    except OSError as exc:
        last, written, error = [], 0, f"cannot read {state_dir / FILE_NAME}: {exc.strerror}"
    return {
        "last": [{key: each[key] for key in each if key not in _LONG} for each in last],
        "written": written,
        "acknowledged": accounts.get("acknowledged", 0),
        "dropped": {
            key.removeprefix("dropped."): count
            for key, count in accounts.items()
            if key.startswith("dropped.")
        },
        "error": error,
        **(read_json(state_dir / "decisions.json") or {}),
    }
