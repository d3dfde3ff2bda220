"""Claims about the journal: what an outage takes, that each loss is counted, and what syncs cost.

Three parts. *Bytes per pair*: what a pair takes on disk, by size and content of its answers.
*Outage*: the sink refuses for ten minutes of virtual time at 1,000 requests per second, 600,000
pairs through the real writer; the disk that it takes beside the arithmetic, and with half of that
budget, by policy, how many pairs were lost beside how many were counted. *Syncs*: users' latency at
a constant 1,000 requests per second, mirrored and recorded, by `journal.fsync`.

The folder of a run is where the disk under test is: set TMPDIR to have it on another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import claims, processes
from benchmarks.claims import Bar, Claim, judged
from benchmarks.figures import paired_difference, rotated, size_label, spread
from benchmarks.fleet import Fleet
from benchmarks.journal_lines import Content, Lines, real_line
from benchmarks.load import LoadResult
from benchmarks.options import Options
from benchmarks.origin import start_origin
from benchmarks.outage import Outage, Plan, bytes_per_pair, simulate
from benchmarks.paced import RATE_PER_S, PacedLoad
from benchmarks.peers import Mode, Setup, Target, Understudy, Upstreams
from benchmarks.report import Report, Table
from proxy.config.resolved import DropPolicy, Fsync

NAME = "journal"
ANSWER_BYTES = (200, 1 << 10, 4 << 10, 16 << 10)
OUTAGE_ANSWER_BYTES = 1 << 10
OUTAGE_S = 600
QUICK_OUTAGE_S = 60
#: A budget with this much more than the arithmetic says must hold everything.
SPARE = 1.02
_LINES = 2_000
#: Of load in each round and with each policy, a second at a time: a stall of the machine spoils one.
_SYNC_S = 5

_FITS = Bar(SPARE)
_SYNC_COST = Bar(0.3, " ms")


@dataclass(frozen=True, slots=True)
class PairSize:
    """Bytes of a pair on disk; the answers are the same, or each its own."""

    answer_bytes: int
    content: Content
    differing: float
    bytes_per_pair: float


@dataclass(frozen=True, slots=True)
class Loss:
    """An outage, with what the arithmetic says of it."""

    what: str
    predicted_bytes: float
    outage: Outage


@dataclass(frozen=True, slots=True)
class SyncRound:
    """Users' latency in one second, and the worker's CPU for each request."""

    fsync: str
    p50_ms: float
    p99_ms: float
    cpu_us: float


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Measure all three."""
    line, config = real_line(folder / "real", is_pinned=options.is_pinned)

    def lines(answer_bytes: int, differing: float, content: Content) -> list[bytes]:
        maker = Lines(line, config.version, answer_bytes, differing, content)
        return [maker.make() for _ in range(min(_LINES, (32 << 20) // answer_bytes))]

    sizes: list[PairSize] = []
    for answer_bytes in ANSWER_BYTES[: 2 if options.is_quick else None]:
        say(f"bytes of a pair, answers of {size_label(answer_bytes)}")
        for content, differing in ((Content.NUMBERS, 0), (Content.NUMBERS, 1), (Content.BINARY, 1)):
            made = lines(answer_bytes, differing, content)
            found = bytes_per_pair(folder / f"sizes-{len(sizes)}", made)
            sizes.append(PairSize(answer_bytes, content, differing, found))
    made = lines(OUTAGE_ANSWER_BYTES, 1, Content.NUMBERS)
    seconds = QUICK_OUTAGE_S if options.is_quick else OUTAGE_S
    losses = _outages(folder, made, seconds, say)
    rounds = _syncs(options, folder / "syncs", say)
    faults = [f"{loss.what}: not in order" for loss in losses if not loss.outage.is_in_order]
    return Report(
        name=NAME,
        conditions=(
            f"pairs at {RATE_PER_S:,} a second, answers in both legs; bodies: responses",
            f"outage: {seconds} s of virtual time, {losses[0].outage.plan.pairs:,} pairs",
            f"its answers: {size_label(OUTAGE_ANSWER_BYTES)}, all different",
            f"syncs: open loop, mirrored, {options.rounds * _SYNC_S} seconds each, in turn; medians",
        ),
        tables=(_sizes_table(sizes), _outage_table(losses), _sync_table(rounds)),
        samples=(*sizes, *losses, *rounds),
        summary={loss.what: loss.outage.missing for loss in losses},
        claims=tuple(_claims(losses, rounds)),
        faults=tuple(faults),
    )


def _outages(
    folder: Path, lines: list[bytes], seconds: int, say: Callable[[str], None]
) -> list[Loss]:
    """Simulate an outage within its budget, and with half of it by each policy."""
    predicted = bytes_per_pair(folder / "outage-sample", lines) * RATE_PER_S * seconds
    plans = {
        "budget as computed": Plan(round(predicted * SPARE), RATE_PER_S, seconds),
        **{
            f"half of it, drop: {drop}": Plan(round(predicted / 2), RATE_PER_S, seconds, drop)
            for drop in DropPolicy
        },
    }
    losses: list[Loss] = []
    for what, plan in plans.items():
        say(f"outage of {seconds} s, {what}")
        outage = simulate(folder / f"outage-{len(losses)}", lines, plan)
        losses.append(Loss(what, predicted, outage))
    return losses


def _syncs(options: Options, folder: Path, say: Callable[[str], None]) -> list[SyncRound]:
    """Measure users' latency with each policy, in turn."""
    folder.mkdir()
    load = PacedLoad(1 << 10, 1)
    rounds = []
    with Fleet(folder, options.is_pinned) as fleet:
        upstreams = Upstreams(start_origin(fleet, "primary"), start_origin(fleet, "candidate"))
        targets = {
            fsync: Understudy().start(
                fleet, Mode.MIRROR, upstreams, Setup(label=str(fsync), fsync=str(fsync))
            )
            for fsync in Fsync
        }
        for target in targets.values():
            load.send(fleet, target.url)
        for number in range(options.rounds * _SYNC_S):
            say(f"syncs, second {number + 1} of {options.rounds * _SYNC_S}")
            for fsync, target in rotated([*targets.items()], number):
                rounds.append(_sync_round(fleet, load, fsync, target))
    return rounds


def _sync_round(fleet: Fleet, load: PacedLoad, fsync: Fsync, target: Target) -> SyncRound:
    before_ns = sum(processes.cpu_ns(pid) for pid in target.worker_pids)
    found: LoadResult = load.send(fleet, target.url)
    spent_ns = sum(processes.cpu_ns(pid) for pid in target.worker_pids) - before_ns
    p50_ms, p99_ms = (found.quantiles_us[share] / 1e3 for share in (0.5, 0.99))
    return SyncRound(str(fsync), p50_ms, p99_ms, spent_ns / found.requests / 1e3)


def _claims(losses: list[Loss], rounds: list[SyncRound]) -> list[Claim]:
    within, *beyond = losses
    fit = within.outage.most_bytes / within.predicted_bytes
    wrong = sum(abs(loss.outage.counted - loss.outage.missing) for loss in losses)
    p99 = {fsync: [r.p99_ms for r in rounds if r.fsync == fsync] for fsync in Fsync}
    found = [
        judged("disk that an outage takes, of what the arithmetic says", _FITS, spread([fit])),
        judged(
            "pairs lost within the computed budget",
            claims.NOTHING_LOST,
            spread([float(within.outage.missing)]),
        ),
        judged(
            "pairs lost and not counted, or counted and not lost, budget too small",
            claims.NOTHING_LOST,
            spread([float(wrong)]),
        ),
    ]
    assert beyond
    for fsync in (Fsync.INTERVAL, Fsync.FLUSH):
        cost = paired_difference(p99[fsync], p99[Fsync.NONE])
        found.append(judged(f"p99 with fsync: {fsync} less none", _SYNC_COST, cost))
    return found


def _sizes_table(sizes: list[PairSize]) -> Table:
    rows = tuple(
        (
            f"{size_label(one.answer_bytes)}, {one.content}, "
            + ("different answers" if one.differing else "equal answers"),
            f"{one.bytes_per_pair:,.0f}",
            f"{one.bytes_per_pair / (2 * one.answer_bytes):.2f}",
            f"{one.bytes_per_pair * RATE_PER_S * 60 / 1e6:,.0f}",
        )
        for one in sizes
    )
    columns = ("each answer", "bytes/pair", "of both answers", f"MB/min at {RATE_PER_S:,}/s")
    return Table("Bytes of a pair in the journal", columns, rows)


def _outage_table(losses: list[Loss]) -> Table:
    rows = tuple(
        (
            loss.what,
            f"{loss.predicted_bytes / 1e6:,.1f}",
            f"{loss.outage.plan.disk_budget_bytes / 1e6:,.1f}",
            f"{loss.outage.most_bytes / 1e6:,.1f}",
            f"{loss.outage.missing:,}",
            f"{loss.outage.counted:,}",
            f"{loss.outage.longest_flush_ms:.1f}",
            f"{loss.outage.pairs_per_s:,.0f}",
        )
        for loss in losses
    )
    columns = (
        "", "arithmetic MB", "budget MB", "most on disk MB", "missing", "counted",
        "longest flush ms", "pairs/s",
    )  # fmt: skip
    return Table("An outage of the sink", columns, rows)


def _sync_table(rounds: list[SyncRound]) -> Table:
    rows = []
    for fsync in Fsync:
        own = [one for one in rounds if one.fsync == fsync]
        p50, p99 = (spread([getattr(r, name) for r in own]).median for name in ("p50_ms", "p99_ms"))
        cpu = spread([r.cpu_us for r in own]).median
        rows.append((str(fsync), f"{p50:.3f}", f"{p99:.3f}", f"{cpu:.1f}"))
    names = ("fsync", "p50 ms", "p99 ms", "worker µs/req")
    return Table(f"Users' latency at {RATE_PER_S:,} requests/s", names, tuple(rows))
