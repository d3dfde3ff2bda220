"""Judges the evidence of ramps beside control's event loop, and no more of the time than a tenth.

A verdict on three-valued differences takes milliseconds, one on many segments of continuous ones
takes seconds; a kill by the API must wait for neither. So each is made on a thread, whose numpy lets
the loop have its turns, and the more it took, the later comes the next. How fresh the evidence of a
verdict is, is looked at whenever the verdict is used.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

from proxy.comparison.evidence import Params
from proxy.ramp.window import Judgement, Published, Window, aged, judged, obstacle
from proxy.telemetry import monotonic_s

#: Between two judgements of a ramp, as a multiple of what the first took: a tenth of a processor.
_REST: Final = 9.0


@dataclass(slots=True)
class _Latest:
    """The latest judgement of a ramp, what it was made of, and when the next may begin."""

    window: Window
    published: Published
    found: Judgement
    next_s: float


class Judging:
    """Keeps the latest judgement of each ramp; `is_threaded=False` judges at once, for tests."""

    def __init__(self, *, is_threaded: bool = True) -> None:
        self._is_threaded = is_threaded
        self._latest: dict[str, _Latest] = {}
        self._running: set[str] = set()

    def latest(
        self, name: str, window: Window, published: Published, params: Params, now_ms: int
    ) -> Judgement:
        """Return what is known of a window's evidence; begin to judge what has come since."""
        reason = obstacle(window, published)
        if reason:
            return Judgement(reason=reason)
        known = self._latest.get(name)
        if name not in self._running and (
            known is None
            or known.window != window
            or (known.published is not published and monotonic_s() >= known.next_s)
        ):
            self._begin(name, window, published, params)
            known = self._latest.get(name)
        if known is None or known.window != window:
            return Judgement(reason="the evidence of this step is being judged")
        return aged(known.found, known.published, now_ms)

    def _begin(self, name: str, window: Window, published: Published, params: Params) -> None:
        def judge() -> None:
            began_s = monotonic_s()
            try:
                found = judged(window, published, params)
            except Exception as exc:  # noqa: BLE001 - what cannot be judged raises no weight
                found = Judgement(reason=f"the evidence cannot be judged: {exc!r}")
            ended_s = monotonic_s()
            next_s = ended_s + _REST * (ended_s - began_s) * self._is_threaded
            self._latest[name] = _Latest(window, published, found, next_s)
            self._running.discard(name)

        self._running.add(name)
        if self._is_threaded:
            threading.Thread(target=judge, name=f"judge {name}", daemon=True).start()
        else:
            judge()
