"""Which config an instance runs now: what the control page names, in `state_dir/config`.

Processes are started with the config of the launcher's start. One that starts later, or looks again,
takes the one that is in place by then.
"""

from __future__ import annotations

from pathlib import Path

from proxy.config.resolved import Config
from proxy.config.secrets import read_whole
from proxy.errors import StateError
from proxy.state.control_page import ControlState, open_page


def config_path(state_dir: Path, version: str) -> Path:
    """Return where the config of a version is kept."""
    return state_dir / "config" / f"{version}.json"


def read_config(state_dir: Path, version: str) -> Config:
    """Return the resolved config of a version, with its secrets.

    Raises:
        StateError: it is not there, or of another version of Understudy; or this process has not
            inherited its secrets.
    """
    path = config_path(state_dir, version)
    try:
        return read_whole(path)
    except OSError as exc:
        raise StateError(f"cannot read {path}: {exc.strerror}") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise StateError(f"{path} is no resolved config of this version ({exc!r})") from exc


def read_state(state_dir: Path) -> ControlState:
    """Return what the control page says now.

    Raises:
        StateError: it cannot be read.
    """
    page = open_page(state_dir)
    try:
        return page.read()
    finally:
        page.close()


def running_config(started_with: Path) -> tuple[Config, int]:
    """Return the config that is in place, and its revision (`ControlState.config_revision`).

    Args:
        started_with: the resolved config that the launcher names; used, with the revision 0, while
            the page or what it names cannot be read.

    Raises:
        StateError: neither can be used, because its secrets were not inherited.
        OSError, ValueError, KeyError: neither can be read.
    """
    state_dir = started_with.parents[1]
    try:
        # In this order: a config that is put in place meanwhile is seen by its higher revision.
        state = read_state(state_dir)
        return read_config(state_dir, state.config_version), state.config_revision
    except StateError:
        return read_whole(started_with), 0
