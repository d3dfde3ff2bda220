"""How far a long reading is, on stderr, and only on a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from proxy.analysis.source import SourceStatistics


class ReadingProgress(Progress):
    """A bar that follows the live counts of a reading by itself; a context manager.

    Args:
        statistics: gives the counts of what is read at present.
        words: gives what stands before the bar.
    """

    def __init__(
        self,
        statistics: Callable[[], SourceStatistics],
        words: Callable[[], str] = lambda: "reading",
    ) -> None:
        console = Console(stderr=True)
        self._statistics = statistics
        self._words = words
        super().__init__(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn(),
            console=console, transient=True, disable=not console.is_terminal,
        )  # fmt: skip
        self._reading = self.add_task("reading", total=None)

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return what is drawn, several times a second, by the present counts."""
        found = self._statistics()
        # Drawn once by the base class's constructor, before there is a task.
        for task in self.tasks:
            task.completed, task.total = found.done, found.total or None
            task.description = self._words()
        return super().get_renderables()
