"""The launcher's hand on the kill switch: kill files and SIGUSR1, latched on the control page.

It works with control, recorder and every admin port dead. What a kill file means is decided in
`proxy.state.kill`; one whose name means nothing known stops everything, loudly: whoever made it
wants traffic off a candidate now, and stopping too much harms no user.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from pathlib import Path

from proxy.errors import StateError
from proxy.launcher.log import log
from proxy.state.control_page import ControlPage, ControlState, Part, open_page
from proxy.state.kill import Scope, kill_file_names
from proxy.state.orders import Change, Source, order_file_kills, order_kill

#: A page that could not be opened, or a latch that failed, is tried again this often.
RETRY_S = 0.5
#: How long the loop waits for a listing of the folder.
LIST_PATIENCE_S = 0.1


class KillWatch:
    """Looks for kill files, and latches them; it never opens a latch.

    Args:
        state_dir: of the instance.
        page: the control page; None where there is none that can be opened.
        stop_candidates: has every worker serve from the primary only until the page changes.
    """

    def __init__(
        self, state_dir: Path, page: ControlPage | None, stop_candidates: Callable[[], None]
    ) -> None:
        self._state_dir = state_dir
        self._stop_candidates = stop_candidates
        self._page = page
        self._answered: tuple[list[str], int] = ([], -1)
        self._retry_s = 0.0
        self._complaint = ""
        self._pending_signal = ""
        self._listing = _Listing(state_dir)

    def look(self, now_s: float, wall_ms: int) -> None:
        """Latch what kill files ask for; cheap when there are none (0.1 ms)."""
        if now_s < self._retry_s:
            return
        try:
            if self._pending_signal:
                self._latch_signal(wall_ms)
            names = self._listing.names()
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
        try:
            _report(order_kill(self._open(), Scope(), Part.DEFAULT, source))
        except StateError:
            # Whatever the page's trouble is, at each try: a worker that was started since has not heard.
            self._stop_candidates()
            raise
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


class _Listing:
    """Lists the kill files in a thread, which lives as long as the launcher: the loop has signals to follow.

    While a disk hangs a listing may not return. A thread for each (`proxy.state.syncing`) would double what
    an idle launcher costs; to ask this one by a pipe takes 0.1 ms.
    """

    def __init__(self, state_dir: Path) -> None:
        self._state_dir = state_dir
        self._questions, self._asks = os.pipe()
        self._answers, self._tells = os.pipe()
        self._thread: threading.Thread | None = None
        self._is_asked = self._hangs = False
        self._found: list[str] = []
        self._error: StateError | None = None

    def names(self) -> list[str]:
        """Return the names of the kill files; none while the disk hangs.

        Raises:
            StateError: the folder cannot be read.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="list kill files", daemon=True)
            self._thread.start()
        if not self._is_asked:
            self._is_asked = bool(os.write(self._asks, b"?"))
        ready, _, _ = select.select([self._answers], [], [], 0 if self._hangs else LIST_PATIENCE_S)
        self._hangs = not ready
        if not ready:
            return []
        self._is_asked = not os.read(self._answers, 1)
        if self._error is not None:
            raise self._error
        return self._found

    def _run(self) -> None:
        while os.read(self._questions, 1):
            try:
                self._found, self._error = kill_file_names(self._state_dir), None
            except StateError as exc:
                self._error = exc
            os.write(self._tells, b"!")


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
