"""The launcher's hand on the kill switch: kill files and SIGUSR1, latched on the control page.

It works with control, recorder and every admin port dead. What a kill file means is decided in
`proxy.state.kill`; one whose name means nothing known stops everything, loudly: whoever made it
wants traffic off a candidate now, and stopping too much harms no user.
"""

from __future__ import annotations

from pathlib import Path

from proxy.errors import StateError
from proxy.launcher.log import log
from proxy.state.control_page import ControlPage, ControlState, Part, open_page
from proxy.state.kill import Scope, kill_file_names
from proxy.state.orders import Change, Source, order_file_kills, order_kill

#: A page that could not be opened, or a latch that failed, is tried again this often.
RETRY_S = 0.5


class KillWatch:
    """Looks for kill files, and latches them; it never opens a latch."""

    def __init__(self, state_dir: Path, page: ControlPage | None) -> None:
        self._state_dir = state_dir
        self._page = page
        self._answered: tuple[list[str], int] = ([], -1)
        self._retry_s = 0.0
        self._complaint = ""
        self._pending_signal = ""

    def look(self, now_s: float, wall_ms: int) -> None:
        """Latch what kill files ask for; cheap when there are none (5 us)."""
        if now_s < self._retry_s:
            return
        try:
            if self._pending_signal:
                self._latch_signal(wall_ms)
            names = kill_file_names(self._state_dir)
            if names and (names, self._open().generation()) != self._answered:
                self._latch_files(names, wall_ms)
        except StateError as exc:
            self._retry_s = now_s + RETRY_S
            self._complain(str(exc))
        else:
            self._complaint = ""

    def kill_everything(self, signal_name: str) -> None:
        """Latch everything at the next `look`; it is tried until it succeeds."""
        self._pending_signal = signal_name
        self._retry_s = 0.0

    def _latch_signal(self, wall_ms: int) -> None:
        source = Source("operator", f"signal {self._pending_signal}", "signal", wall_ms)
        _report(order_kill(self._open(), Scope(), Part.DEFAULT, source))
        self._pending_signal = ""

    def _latch_files(self, names: list[str], wall_ms: int) -> None:
        page = self._open()
        for name, change in order_file_kills(page, wall_ms).items():
            _report(change)
            if change.is_guess:
                log(
                    "error",
                    "kill_file_unknown",
                    file=name,
                    effect="it names no route or candidate, so everything is killed",
                    known=_names(change.after),
                )
        self._answered = (names, page.generation())

    def _open(self) -> ControlPage:
        if self._page is not None and not (self._page.is_whole() and self._page.is_writable):
            self._page.close()
            self._page = None
        if self._page is None:
            self._page = open_page(self._state_dir)
        return self._page

    def _complain(self, complaint: str) -> None:
        if complaint != self._complaint:
            log("error", "kill_not_latched", why=complaint)
        self._complaint = complaint


def _report(change: Change) -> None:
    decision = change.decision
    log(
        "warning", "killed", scope=decision.scope, parts=decision.new, via=decision.via,
        reason=decision.reason, log_error=change.log_error or None,
    )  # fmt: skip


def _names(state: ControlState) -> list[str]:
    return [
        name
        for route, inner in state.routes.items()
        for name in (route, *(f"{route}.{candidate}" for candidate in inner.candidates))
    ]
