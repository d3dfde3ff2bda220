"""Small JSON files in `state_dir` that processes replace whole now and then.

Control writes its own beside its event loop: on a disk that hangs, kills and questions must go on. What it
could not write waits, the newest content of each file, and is written when the disk answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import orjson

from proxy.errors import StateError
from proxy.journal.segments import replace_file
from proxy.state.syncing import HangingDiskError, read_bytes, thread_of

#: What writes all of control's files, one after the other: so none is overtaken by an older one.
WRITING: Final = thread_of("write files")


def replace_json(path: Path, content: bytes, *, is_synced: bool = True) -> None:
    """Replace a file as `replace_file` does; when this returns it is done.

    Raises:
        StateError: the disk refuses, and the old file is untouched; or it does not answer: it is done when it
            does, or a newer content is.
    """
    try:
        WRITING.do(path, lambda: replace_file(path, content, is_synced=is_synced))
    except OSError as exc:
        raise StateError(f"cannot write {path}: {exc.strerror}") from exc
    except HangingDiskError as exc:
        raise StateError(f"cannot write {path} yet: {exc}") from exc


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the JSON object in a file; None without one."""
    try:
        found = orjson.loads(read_bytes(path))
    except (OSError, orjson.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None
