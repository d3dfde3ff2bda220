"""The decisions of a process that wait for the disk, and how they are written, in their order.

A disk that refuses says so, and they wait for the next try. One that hangs says nothing, for minutes: even
a write into the page cache may have to wait for it. So they are written beside whoever decided
(`proxy.state.syncing`), who waits for that no longer than `PATIENCE_S`, and not at all while one is hanging.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson

from proxy.errors import StateError
from proxy.state.decision_files import FILE_NAME, LOCK_NAME, write_records
from proxy.state.decision_record import About, Decision, make
from proxy.state.page_file import PageFile, locked, map_page
from proxy.state.syncing import (
    PATIENCE_S,
    DiskThread,
    HangingDiskError,
    in_child,
    read_bytes,
    sync_file,
    sync_soon,
    uses_children,
)


class WaitingDecisions:
    """What waits for the log of one `state_dir`.

    A decision becomes a record when its writing is first tried, because what a record says of the config
    is read from the disk, too.

    Attributes:
        decisions: what waits, the oldest first; anybody may append.

    Args:
        state_dir: where the log is.
    """

    def __init__(self, state_dir: Path) -> None:
        self.decisions: deque[Decision | dict[str, Any]] = deque()
        self._state_dir = state_dir
        self._thread = DiskThread("log decisions")

    def written(self) -> str:
        """Write everything that waits; return why it is not written, or not yet, empty when it is.

        Takes `PATIENCE_S` at most, and while the disk hangs no time at all.
        """
        try:
            if uses_children():
                self._write_by_child()
            else:
                self._thread.do("write", self._write)
        except HangingDiskError as exc:
            return (
                f"cannot append to {self._path} yet: {exc}; what was decided waits in memory, and is logged "
                "when it does"
            )
        except OSError as exc:
            return f"cannot append to {self._path}: {exc.strerror}"
        except StateError as exc:
            return f"cannot append to {self._path}: {exc}"
        return ""

    @property
    def _path(self) -> Path:
        return self._state_dir / FILE_NAME

    def _write_by_child(self) -> None:
        """Leave everything to a child, which goes on until the disk answers.

        Raises:
            StateError: the disk refuses, or has not answered yet.
        """

        def told() -> str:
            try:
                self._write()
            except OSError as exc:
                return str(exc.strerror)
            except StateError as exc:
                return str(exc)
            return ""

        error = in_child(told, PATIENCE_S)
        if error:
            raise StateError(error)
        self.decisions.clear()
        if error is None:
            raise HangingDiskError(PATIENCE_S)

    def _write(self) -> None:
        """Write what waits now.

        Raises:
            OSError, StateError: the disk refuses, or the lock is held for too long; all of it still waits.
        """
        if not self.decisions:  # written by the try before, which was not waited for
            return
        with locked(self._state_dir, LOCK_NAME):
            records = self._records()
            write_records(self._state_dir, records)
        for _ in records:
            self.decisions.popleft()
        # What is written is read; until it is synced, a loss of power may take it.
        if uses_children():
            with suppress(OSError):
                sync_file(self._path)
        else:
            sync_soon(self._path)

    def _records(self) -> list[dict[str, Any]]:
        """Return what waits now as records, each the same at every try."""
        config = about(self._state_dir)
        for index in range(len(self.decisions)):  # others append meanwhile, and nobody takes any
            each = self.decisions[index]
            if isinstance(each, Decision):
                self.decisions[index] = make(each, config)
        return [each for each in tuple(self.decisions) if not isinstance(each, Decision)]


def about(state_dir: Path) -> About:
    """Return what the config that runs says of itself; as much as can be read."""
    version = _version(state_dir)
    if not version:
        return About()
    try:
        config = orjson.loads(read_bytes(state_dir / "config" / f"{version}.json"))
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
        return str(orjson.loads(read_bytes(state_dir / "runtime.json"))["config_version"])
    return ""
