"""Which config is in place: the launcher starts children with it, and tells commands its version.

Control decides and writes it to the control page; this only looks.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from proxy.errors import StateError
from proxy.state.control_page import ControlPage, open_page

#: How often it is looked whether the page is still the one at its path.
LOOK_S = 1.0


class ConfigWatch:
    """Looks at the control page; cheap while nothing changes (0.1 us)."""

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._page: ControlPage | None = None
        self._generation = -1
        self._due_s = 0.0

    def changed(self, now_s: float, version: str) -> str | None:
        """Return the version of the config that is in place, if it is another than `version`.

        Args:
            now_s: monotonic.
            version: the one that is known.
        """
        if now_s >= self._due_s:
            self._due_s = now_s + LOOK_S
            self._renew()
        page = self._page
        if page is None or page.generation() == self._generation:
            return None
        with suppress(StateError):  # unreadable, or torn by a writer: looked at again
            found = page.read().config_version
            self._generation = page.generation()
            return found if found not in ("", version) else None
        return None

    def _renew(self) -> None:
        if self._page is not None and not self._page.is_whole():
            self._page.close()
            self._page, self._generation = None, -1
        if self._page is None:
            with suppress(StateError):
                self._page = open_page(self._state_dir)
