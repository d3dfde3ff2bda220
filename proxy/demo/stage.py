"""How the demo looks while it runs: lines that stay, and a board that lives below them.

On a terminal the board is redrawn in place; elsewhere (a pipe, CI) only the lines are written.
Decides nothing but looks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from proxy.demo.checks import BAD, BAD_VERSION, GOOD, GOOD_VERSION, Check
from proxy.demo.folder import MIN_DURATION_S
from proxy.demo.models import Trained
from proxy.demo.pair_log import CandidatePairs, PairLog
from proxy.demo.ramping import Ramping
from proxy.demo.traffic import PRIMARY, Tally

_BAR_COLUMNS = 24
#: Answers that "serves" is about: a ramp moves within a phase.
_RECENT = 200
_CANDIDATES = {GOOD_VERSION: GOOD, BAD_VERSION: BAD}
#: What each gate counts, in a word.
_WORSE: Final = {"agreement": "differ", "availability": "fail", "latency": "are slow"}
_MARKS: Final = {"promote": "[green]✓[/green]", "halt": "[red]✗[/red]"}


@dataclass(slots=True)
class Board:
    """What the live board shows.

    Attributes:
        title: of the phase, with its number.
        count: requests of the phase; None: until a ramp has ended.
        done: tallies of the phases before.
        ramping: the ramp that is, or was, under way.
    """

    trained: Sequence[Trained]
    log: PairLog
    title: str = ""
    count: int | None = 0
    tally: Tally = field(default_factory=Tally)
    done: list[Tally] = field(default_factory=list)
    ramping: Ramping | None = None


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

    def plan(self, weights: Sequence[int]) -> None:
        """Write how the candidates get their users, and what is shortened."""
        way = " -> ".join(("shadow", *(f"{weight}%" for weight in weights)))
        self.title(f"Both candidates ask for users, by a ramp: {way}")
        self.say(
            f"[yellow]Times are shortened: in production 10 minutes or more a step; here "
            f"{MIN_DURATION_S:g} seconds.[/yellow]"
        )

    def evidence(self, place: str, verdict: Mapping[str, Any]) -> None:
        """Write what the gates said of one step of a ramp, and on how many pairs."""
        outcome = verdict["outcome"]
        gates = [gate for gate in verdict["gates"] if gate["outcome"] == outcome]
        pairs = min(gate["standing"]["pairs"] for gate in gates)
        bounds = ", ".join(_bound(gate, outcome) for gate in gates)
        self.say(f"{_MARKS[outcome]} {place:<7} {outcome}: {pairs:,} pairs, {bounds} more")

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
    total = None if board.count is None else max(board.count, 1)
    bar = ProgressBar(
        total=total, completed=tally.answered, width=_BAR_COLUMNS, animation_time=tally.seconds
    )
    rate = tally.answered / tally.seconds if tally.started_s and tally.seconds else 0.0
    head.add_row(Text(board.title, "bold cyan"), bar, f"{rate:,.0f} requests/s")
    parts: list[RenderableType] = [Text(), head, _numbers(board), Text(), _models(board)]
    if board.ramping is not None and board.ramping.told:
        parts += [Text(), *_ramp(board.ramping)]
    return Group(*parts)


def _ramp(ramping: Ramping) -> list[RenderableType]:
    """Return where a ramp is, and what its gates say on the pairs of this step."""
    ramp = ramping.told["ramp"]
    head = Text.assemble(
        ("ramp of ", ""), (ramping.candidate, "bold"), f": {ramp['words']}",
        (f"  {ramp['waits']}" if ramp["waits"] else "", "dim"),
    )  # fmt: skip
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("gate", "says"):
        table.add_column(name)
    for name in ("pairs", "worse by", "between"):
        table.add_column(name, justify="right")
    for gate in ramp.get("gates", ()):
        cells = ["", ""]
        if gate["mean"] is not None:
            cells = [f"{gate['mean']:+.1%}", f"{gate['lower']:+.1%} and {gate['upper']:+.1%}"]
        table.add_row(gate["metric"], gate["outcome"], f"{gate['pairs']:,}", *cells)
    return [head, table]


def _bound(gate: Mapping[str, Any], outcome: str) -> str:
    """Return how many more calls go wrong by one gate: at least so many, or at most."""
    side, sign = ("lower", "≥") if outcome == "halt" else ("upper", "≤")
    return f"{_WORSE[gate['metric']]} {sign}{max(gate['standing'][side], 0.0):.1%}"


def _numbers(board: Board) -> Text:
    tallies = [*board.done, board.tally]
    answered = sum(tally.answered for tally in tallies)
    errors = sum(tally.failed + tally.wrong for tally in tallies)
    text = Text(f"{answered:,} requests · ")
    text.append(f"{errors} wrong or failed", "bold red" if errors else "green")
    text.append(
        f" · p50 {_ms(board.tally.latency_ms(0.5))} · p99 {_ms(board.tally.latency_ms(0.99))}"
    )
    text.append(f" · {board.log.pairs:,} pairs")
    return text


def _models(board: Board) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("model", "part", "own tests"):
        table.add_column(name)
    for name in ("serves", "pairs", "agrees", "failed"):
        table.add_column(name, justify="right")
    served = Counter(islice(reversed(board.tally.versions.values()), _RECENT))
    total = served.total()
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
