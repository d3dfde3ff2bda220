"""Reading the config again: whole or not at all, and the last good one stays.

A reload is judged before anything is touched: the file must be as good as `serve` wants it, change
nothing that is fixed at the start, and leave room for the live weights. Only then is the resolved
config written and named on the control page, in one store that every process follows by itself. What
was refused is told by status, metrics and log until a good file is read.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from proxy.config.diff import Change, differences, only_at_start
from proxy.config.resolved import FULL_BP, Config
from proxy.config.secrets import NewSecretsError
from proxy.config.tls_files import file_stamps
from proxy.control.small_files import WRITING
from proxy.control.snapshot import Observer, Reloads
from proxy.errors import ConfigError, StateError
from proxy.state import decisions
from proxy.state.control_page import ControlState, for_config, update
from proxy.state.decision_record import Decision
from proxy.state.orders import Source, weights_moved
from proxy.state.running_config import config_path
from proxy.state.syncing import HangingDiskError, sync_soon
from proxy.telemetry import wall_ns

#: Configs that are kept in `state_dir/config`: more than any backlog of pairs was made under.
MAX_VERSIONS = 500
#: Lines of a diff, and letters of a line, that are kept: a decision is one short line of a file.
_DIFF_LINES = 100
_DIFF_LETTERS = 300
#: Faults of a refused file that the log keeps; the answer has all.
_FAULTS = 20
_DEFECT = "a fault of Understudy; the log of control says more"
#: How long a reload waits for the disk to take the config, and everybody else for the reload.
DISK_S = 5.0
_NO_SOURCE = "this instance was not started with a config file; nobody knows what to read"

logger = logging.getLogger("understudy.control")


class Result(StrEnum):
    """How a reload ended; all but the first two are refusals."""

    RELOADED = "reloaded"
    UNCHANGED = "unchanged"
    INVALID = "invalid"
    NEEDS_RESTART = "needs_restart"
    FAILED = "failed"


GOOD = (Result.RELOADED, Result.UNCHANGED)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a reload.

    Attributes:
        old_version, version: of the config before and after; the same unless it was reloaded.
        revision: that workers follow (`ControlState.config_revision`); 0 unless it was reloaded.
        changes: each key that differs, without secrets; of a refused file too, where it is good.
        faults: why it was refused, one sentence each.
        log_error: why the decision is not in the log; empty when it is.
    """

    result: Result
    old_version: str
    version: str
    revision: int = 0
    changes: tuple[Change, ...] = ()
    faults: tuple[str, ...] = ()
    log_error: str = ""

    @property
    def is_good(self) -> bool:
        """Whether the file is what runs now."""
        return self.result in GOOD

    @property
    def is_of_the_disk(self) -> bool:
        """Whether nothing is wrong with the file: the disk did not take it, and may do so later."""
        return self.result is Result.FAILED and self.faults != (_DEFECT,)


class Reloader:
    """Reads the config of one instance again when it is told to.

    Args:
        config: what runs.
        source: the file; None: not known.
        observer: follows, and tells status and metrics what happened here.
    """

    def __init__(self, config: Config, source: Path | None, observer: Observer) -> None:
        self.config = config
        self.source = source
        self._observer = observer
        self._followers: list[Callable[[Config], None]] = [observer.follow]
        self._stamps = file_stamps(config)
        self._counts: Counter[str] = Counter()
        self._refused: tuple[str, ...] = ()
        self._refused_ms = 0
        self._moved: list[Decision] = []
        self._loaded_ms = _changed_ms(config_path(Path(config.state_dir), config.version))
        self._tell()

    def on_change(self, follow: Callable[[Config], None]) -> None:
        """Call `follow` with each config that is put in place."""
        self._followers.append(follow)

    def is_behind(self) -> bool:
        """Tell whether the file was written after what runs, as far as its times say."""
        if self.source is None:
            return False
        running = config_path(Path(self.config.state_dir), self.config.version)
        return _changed_ms(self.source) > _changed_ms(running)

    def reload(self, source: Source) -> Outcome:
        """Read the file, and put it in place if it is good."""
        outcome = self._attempt(source)
        self._counts[outcome.result] += 1
        if outcome.result is not Result.UNCHANGED:
            outcome = self._decided(outcome, source)
        if outcome.is_good:
            self._refused, self._refused_ms = (), 0
            if outcome.result is Result.RELOADED or not self._loaded_ms:
                self._loaded_ms = source.now_ms
        else:
            self._refused, self._refused_ms = outcome.faults, source.now_ms
        self._tell()
        _log(outcome, source)
        return outcome

    def _attempt(self, source: Source) -> Outcome:
        version = self.config.version
        changes: tuple[Change, ...] = ()
        try:
            config = _read(self.source)
            stamps = file_stamps(config)
            changes = differences(self.config, config) + _renewed(self._stamps, stamps)
            if not changes:
                return Outcome(Result.UNCHANGED, version, version)
            _refuse_fixed(changes)
            revision = self._put(config, source).config_revision
        except ConfigError as exc:
            return Outcome(Result.INVALID, version, version, 0, (), tuple(map(str, exc.faults)))
        except _RefusedError as exc:
            return Outcome(exc.result, version, version, 0, changes, exc.faults)
        except StateError as exc:
            return Outcome(Result.FAILED, version, version, 0, changes, (str(exc),))
        except Exception:
            # A defect of ours must not end control, which would meet the same file at its next start.
            logger.exception("a reload failed")
            return Outcome(Result.FAILED, version, version, 0, changes, (_DEFECT,))
        self._stamps = stamps
        return Outcome(Result.RELOADED, version, config.version, revision, changes)

    def _put(self, config: Config, source: Source) -> ControlState:
        """Write the config and name it on the page; on an error nothing has changed."""
        from proxy.config.load import write_again  # noqa: PLC0415 - see _read

        page = self._observer.page()
        moved: list[Decision] = []

        def put(before: ControlState) -> ControlState:
            state = for_config(config, before)
            _refuse_overweight(config, state)
            moved[:] = weights_moved(before, state, source)
            return state

        def restore() -> None:
            if config.version == self.config.version:  # the same file, with other secrets
                with suppress(HangingDiskError):  # it is done when the disk answers
                    WRITING.do(key, lambda: write_again(self.config), DISK_S)

        key = "config", config.version
        try:
            WRITING.do(key, lambda: write_again(config), DISK_S)
        except HangingDiskError as exc:
            restore()
            raise StateError(f"cannot write the config to {config.state_dir}: {exc}") from exc
        except NewSecretsError as exc:
            raise _RefusedError(Result.NEEDS_RESTART, *map(_new_secret, exc.keys)) from exc
        try:
            state = update(page, put)
        except StateError:
            restore()
            raise
        self.config = config
        sync_soon(config_path(Path(config.state_dir), config.version))
        WRITING.begin("old configs", lambda: _forget_oldest(self._observer.state_dir))
        for follow in self._followers:
            follow(config)
        self._moved = moved
        return state

    def _decided(self, outcome: Outcome, source: Source) -> Outcome:
        """Log what became of a reload, and which weights it moved."""
        moved, self._moved = self._moved, []
        version = outcome.version if outcome.is_good else None
        reload = Decision(
            source.now_ms, "reload", source.who, source.via, "*", outcome.old_version, version,
            source.reason, diff=diff_lines(outcome.changes), refusal=_refusal(outcome),
        )  # fmt: skip
        error = decisions.append_all(self._observer.state_dir, (reload, *moved))
        return replace(outcome, log_error=error)

    def _tell(self) -> None:
        self._observer.reloads = Reloads(
            file="" if self.source is None else str(self.source),
            loaded_ms=self._loaded_ms,
            refused=self._refused,
            refused_ms=self._refused_ms,
            counts={str(result): self._counts[result] for result in Result},
        )


def outcome_document(outcome: Outcome, lagging: Sequence[int]) -> dict[str, Any]:
    """Return what `POST /api/v1/reload` answers.

    Args:
        outcome: of the reload.
        lagging: the workers that do not run it yet.
    """
    document: dict[str, Any] = {
        "result": outcome.result,
        "old_version": outcome.old_version,
        "version": outcome.version,
        "changes": [
            {"key": change.key, "old": change.old, "new": change.new} for change in outcome.changes
        ],
        "diff": diff_lines(outcome.changes),
        "faults": outcome.faults,
        "lagging_workers": lagging,
        "log_error": outcome.log_error,
    }
    if not outcome.is_good:
        document["error"] = "the config was not changed:\n" + "\n".join(outcome.faults)
    return document


def _refusal(outcome: Outcome) -> str:
    """Return the first faults, one a line, for the decisions log; empty for a good file."""
    faults = outcome.faults[:_FAULTS]
    if len(outcome.faults) > _FAULTS:
        faults += (f"and {len(outcome.faults) - _FAULTS} more",)
    return "\n".join(faults)


def diff_lines(changes: tuple[Change, ...]) -> tuple[str, ...]:
    """Return changes as lines, the first ones and each not too long."""
    lines = [str(change) for change in changes[:_DIFF_LINES]]
    if len(changes) > _DIFF_LINES:
        lines.append(f"and {len(changes) - _DIFF_LINES} more")
    return tuple(
        line if len(line) <= _DIFF_LETTERS else f"{line[:_DIFF_LETTERS]}…" for line in lines
    )


class _RefusedError(StateError):
    """A file that is good by itself is not taken over."""

    def __init__(self, result: Result, *faults: str) -> None:
        self.result = result
        self.faults = faults
        super().__init__("; ".join(faults))


def _refuse_fixed(changes: tuple[Change, ...]) -> None:
    fixed = only_at_start(changes)
    if fixed:
        faults = (f"{change}: this needs a restart, so nothing was changed" for change in fixed)
        raise _RefusedError(Result.NEEDS_RESTART, *faults)


def _new_secret(key: str) -> str:
    return (
        f"{key}: a secret that the processes were not started with: this needs a restart, so nothing "
        "was changed"
    )


def _refuse_overweight(config: Config, state: ControlState) -> None:
    for route in config.routes:
        live = state.routes[route.name].candidates
        weights = {c.name: live[c.name].weight_bp for c in route.candidates}
        if sum(weights.values()) > FULL_BP:
            told = ", ".join(f"{name} {weight / 100:g}%" for name, weight in weights.items())
            raise _RefusedError(
                Result.INVALID,
                f"routes.{route.name}: with the live weights that the file does not change, its "
                f"candidates have more than 100% ({told}); see `understudy weight`",
            )


def _read(path: Path | None) -> Config:
    """Return the config in the file.

    What reads it is imported here: 10 MB that a control which never reloads should not carry.

    Raises:
        ConfigError: it is not good.
        StateError: nobody knows where it is.
    """
    if path is None:
        raise StateError(_NO_SOURCE)
    from proxy.config.load import load_config  # noqa: PLC0415 - see above

    return load_config(path, looks_at_files=True)


def _renewed(
    old: Mapping[str, tuple[int, ...]], new: Mapping[str, tuple[int, ...]]
) -> tuple[Change, ...]:
    """Return the files of backends' TLS settings whose content is another one."""
    return tuple(
        Change(key, "file", "renewed file")
        for key, stamp in new.items()
        if key in old and old[key] != stamp
    )


def _forget_oldest(state_dir: Path) -> None:
    """Keep the newest configs: pairs that still wait in a journal are expanded by theirs."""
    folder = config_path(state_dir, "").parent
    by_age = sorted(folder.glob("*.json"), key=_changed_ms, reverse=True)
    for path in by_age[MAX_VERSIONS:]:
        with suppress(OSError):  # one that stays takes some kilobytes; the reload is done by now
            path.unlink()


def _changed_ms(path: Path) -> int:
    """Return when a file, or what a link to it means, was last written; 0 without one."""
    try:
        found = os.stat(path)  # noqa: PTH116 - as a number, of what the link means
    except OSError:
        return 0
    return max(found.st_mtime_ns, found.st_ctime_ns) // 1_000_000


def _log(outcome: Outcome, source: Source) -> None:
    fields = f"{source.who} ({source.via}): {source.reason}"
    if outcome.result is Result.RELOADED:
        diff = "; ".join(diff_lines(outcome.changes))
        logger.warning(
            "config %s -> %s by %s: %s", outcome.old_version, outcome.version, fields, diff
        )
    elif outcome.result is Result.UNCHANGED:
        logger.info("config unchanged; asked by %s", fields)
    else:
        logger.error(
            "config refused (%s), %s stays; asked by %s: %s",
            outcome.result, outcome.version, fields, "; ".join(outcome.faults),
        )  # fmt: skip


def automatic(via: str, reason: str) -> Source:
    """Return the source of a reload that nobody asked for by name."""
    return Source("understudy", via, reason, wall_ns() // 1_000_000)
