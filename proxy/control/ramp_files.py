"""The files of the ramps' driver in `state_dir`: what it must remember, what recorders tell it.

`ramps.json` holds each ramp's state and the line its evidence begins at; it is replaced whole and
synced before anything is done on the strength of it. `ramps-seen.json` is what the driver saw last,
for `status` and `/metrics`; losing it costs nothing. Both are control's alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from proxy.comparison.split_keys import SplitKeys
from proxy.comparison.verdict_json import counts_of
from proxy.control.small_files import replace_json
from proxy.errors import StateError
from proxy.ramp.state import RampState, from_json, to_json
from proxy.ramp.window import Part, Published, Window
from proxy.state.syncing import read_bytes

STATE_NAME: Final = "ramps.json"
SEEN_NAME: Final = "ramps-seen.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """What is remembered of one ramp."""

    state: RampState
    window: Window


def load(state_dir: Path) -> dict[str, Kept]:
    """Return what is remembered, by `route/candidate`; nothing where there is no file.

    Raises:
        StateError: the file is damaged: where a ramp was is not known.
    """
    path = state_dir / STATE_NAME
    try:
        said = orjson.loads(path.read_bytes())
        return {name: kept_of(each) for name, each in said["ramps"].items()}
    except FileNotFoundError:
        return {}
    except OSError as exc:
        raise StateError(f"cannot read {path}: {exc.strerror}") from exc
    except (LookupError, TypeError, ValueError, AttributeError) as exc:
        raise StateError(f"{path} does not hold the state of ramps: {exc}") from exc


def store(state_dir: Path, ramps: Mapping[str, Kept]) -> None:
    """Replace what is remembered; when this returns it is on the disk.

    Raises:
        StateError: the disk refuses, or does not answer: what is remembered then is in memory only.
    """
    content = {name: kept_as_json(kept) for name, kept in ramps.items()}
    replace_json(state_dir / STATE_NAME, orjson.dumps({"ramps": content}))


def store_seen(state_dir: Path, seen: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace what was seen last; a disk that refuses is told by `store`."""
    with suppress(StateError):
        replace_json(state_dir / SEEN_NAME, orjson.dumps(seen), is_synced=False)


class EvidenceFiles:
    """Reads what the recorders publish, anew only when a file was replaced.

    Attributes:
        splits: the split keys that all recorders have seen, by `route/candidate`.
    """

    def __init__(self, state_dir: Path, recorders: int, config_version: str) -> None:
        self._paths = [state_dir / f"evidence-{index}.json" for index in range(recorders)]
        self._version = config_version
        self._stamps: list[tuple[int, int]] = []
        self._found: dict[str, Published] = {}
        self.splits: dict[str, SplitKeys] = {}

    def read(self) -> dict[str, Published]:
        """Return what was counted, by `route/candidate`; under the empty name, of all others."""
        try:
            stamps = [(found.st_mtime_ns, found.st_ino) for found in map(Path.stat, self._paths)]
        except OSError:
            self._stamps = []
            return {"": Published(problem="a recorder has counted nothing yet")}
        if stamps != self._stamps:
            try:
                self._found = self._read()
            except (OSError, LookupError, TypeError, ValueError, AttributeError) as exc:
                self._found = {"": Published(problem=f"a recorder's counts are no use: {exc}")}
            self._stamps = stamps
        return self._found

    def _read(self) -> dict[str, Published]:
        by_name: dict[str, list[Part]] = {}
        splits: dict[str, SplitKeys] = {}
        reached_ms: list[int] = []
        for index, path in enumerate(self._paths):
            said = orjson.loads(read_bytes(path))
            if said["config_version"] != self._version:
                return {"": Published(problem=f"recorder {index} counts for another config")}
            if said["caught_up_ms"] is None:
                return {"": Published(problem=f"recorder {index} has not caught up yet")}
            reached_ms.append(int(said["caught_up_ms"]))
            for each in said["parts"]:
                part = Part(counts_of(each["counts"]), int(each["last_ms"]))
                key = part.counts.key
                if key.config_version == self._version:
                    by_name.setdefault(f"{key.route}/{key.candidate}", []).append(part)
            for each in said.get("splits", ()):
                name = f"{each['route']}/{each['candidate']}"
                splits.setdefault(name, SplitKeys()).merge(SplitKeys.of_notes(each["keys"]))
        self.splits = splits
        until_ms = min(reached_ms, default=None)
        found = {
            name: Published(
                tuple(parts),
                until_ms,
                arms=splits.get(name, SplitKeys()).arms(name.rpartition("/")[2]),
            )
            for name, parts in by_name.items()
        }
        return {"": Published((), until_ms), **found}


def kept_as_json(kept: Kept) -> dict[str, Any]:
    """Return what is remembered of a ramp as JSON values, but for the counts, which orjson takes."""
    window = {"opened_ms": kept.window.opened_ms, "before": kept.window.before}
    return {"state": to_json(kept.state), "window": window}


def kept_of(said: Mapping[str, Any]) -> Kept:
    """Return what `kept_as_json` made.

    Raises:
        LookupError, TypeError, ValueError, AttributeError: it is none.
    """
    window, before = said["window"], said["window"]["before"]
    counts = None if before is None else tuple(counts_of(each) for each in before)
    return Kept(from_json(said["state"]), Window(int(window["opened_ms"]), counts))
