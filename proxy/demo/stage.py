"""How the demo looks while it runs: lines that stay, and a board that lives below them.

On a terminal the board is redrawn in place; elsewhere (a pipe, CI) only the lines are written.
Decides nothing but looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from proxy.demo.checks import BAD, BAD_VERSION, GOOD, GOOD_VERSION, Check
from proxy.demo.models import Trained
from proxy.demo.pair_log import CandidatePairs, PairLog
from proxy.demo.traffic import PRIMARY, Tally

_BAR_COLUMNS = 24
_CANDIDATES = {GOOD_VERSION: GOOD, BAD_VERSION: BAD}


@dataclass(slots=True)
class Board:
    """What the live board shows.

    Attributes:
        title: of the phase, with its number.
        count: requests of the phase.
        done: tallies of the phases before.
    """

    trained: Sequence[Trained]
    log: PairLog
    title: str = ""
    count: int = 0
    tally: Tally = field(default_factory=Tally)
    done: list[Tally] = field(default_factory=list)


class Stage:
    """Writes to `console`."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def title(self, text: str) -> None:
        """Write what comes now."""
        self.console.print(f"\n[bold]{text}[/bold]", highlight=False)

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self.console.print(f"  {text}", highlight=False)

    def done(self, name: str, text: str) -> None:
        """Write what a phase showed."""
        self.say(f"[green]✓[/green] [bold]{name:<7}[/bold] {text}")

    @contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Show that something takes a moment."""
        with self.console.status(text):
            yield

    @contextmanager
    def live(self, board: Board) -> Iterator[Live]:
        """Show `board` until the block ends; call `refresh` on what is yielded."""
        with Live(
            get_renderable=lambda: draw(board),
            console=self.console,
            auto_refresh=False,
            transient=True,
        ) as live:
            yield live

    def checks(self, found: Sequence[Check]) -> None:
        """Write every check and how it came out."""
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
        for check in found:
            mark = Text("✓", "green") if check.is_passed else Text("✗", "bold red")
            table.add_row(Text("  ").append(mark), Text(check.name, "bold"), Text(check.detail))
        self.console.print(table)


def draw(board: Board) -> RenderableType:
    """Return the board as it is now."""
    tally = board.tally
    head = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=max(board.count, 1), completed=tally.answered, width=_BAR_COLUMNS)
    rate = tally.answered / tally.seconds if tally.started_s and tally.seconds else 0.0
    head.add_row(Text(board.title, "bold cyan"), bar, f"{rate:,.0f} requests/s")
    return Group(Text(), head, _numbers(board), Text(), _models(board))


def _numbers(board: Board) -> Text:
    tallies = [*board.done, board.tally]
    answered = sum(tally.answered for tally in tallies)
    errors = sum(tally.failed + tally.wrong for tally in tallies)
    text = Text(f"{answered:,} requests · ")
    text.append(f"{errors} wrong or failed", "bold red" if errors else "green")
    text.append(
        f" · p50 {_ms(board.tally.latency_ms(0.5))} · p99 {_ms(board.tally.latency_ms(0.99))}"
    )
    text.append(f" · {board.log.pairs:,} pairs in the log")
    return text


def _models(board: Board) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("model", "part", "held-out accuracy"):
        table.add_column(name)
    for name in ("serves", "pairs", "agrees", "failed"):
        table.add_column(name, justify="right")
    served = board.tally.served
    total = sum(served.values())
    for trained in board.trained:
        spec = trained.spec
        share = f"{served[spec.version] / total:.1%}" if served[spec.version] else "-"
        cells = ["", "", ""]
        if spec.version != PRIMARY:
            cells = _pairs(board.log.candidates[_CANDIDATES[spec.version]])
        table.add_row(spec.name, spec.role, f"{trained.accuracy:.1%}", share, *cells)
    return table


def _pairs(pairs: CandidatePairs) -> list[str]:
    agreement = pairs.agreement
    agrees = "-" if agreement is None else f"{agreement:.1%}"
    return [f"{pairs.pairs:,}", agrees, f"{pairs.failed:,}"]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
