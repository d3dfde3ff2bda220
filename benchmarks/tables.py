"""Tables and ratios from samples. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.figures import Spread, paired_ratio, size_label, spread
from benchmarks.peers import Mode
from benchmarks.report import Table
from benchmarks.stage import DIRECT, Sample

#: Who the ratios are about.
OURS = "Understudy"


@dataclass(frozen=True, slots=True)
class Quantity:
    """One measured quantity; `is_more_better` says which way a ratio is good."""

    title: str
    of: Callable[[Sample], float | None]
    is_more_better: bool = False


WORKER = Quantity("worker CPU", lambda sample: sample.worker_us)
TREE = Quantity("tree CPU", lambda sample: sample.tree_us)
RATE = Quantity("throughput", lambda sample: sample.rate_per_s, is_more_better=True)
P50 = Quantity("p50", lambda sample: float(sample.p50_us))
P99 = Quantity("p99", lambda sample: float(sample.p99_us))
SATURATED = (WORKER, TREE, RATE, P50, P99)
MODERATE = (WORKER, TREE, P50, P99)
CPU = (WORKER, TREE)

_COLUMNS = (
    "",
    "worker µs/req",
    "tree µs/req",
    "req/s",
    "busy",
    "p50 ms",
    "p99 ms",
    "mirrored",
    "MB",
    "faults",
)

Key = tuple[int, Mode, str]


def grouped(samples: Sequence[Sample]) -> dict[Key, list[Sample]]:
    """Return the samples by size, mode and peer, each list in the order of the rounds."""
    groups: dict[Key, list[Sample]] = {}
    for sample in sorted(samples, key=lambda item: item.round):
        groups.setdefault((sample.size_bytes, sample.mode, sample.peer), []).append(sample)
    return groups


def per_target(samples: Sequence[Sample], size_bytes: int) -> Table:
    """Return the medians of every target at one body size, with the spread of the CPU figures."""
    rows = []
    for (size, mode, peer), group in ordered(samples):
        if size == size_bytes:
            rows.append((f"{peer}, {mode}" if peer != DIRECT else DIRECT, *_cells(group)))
    return Table(f"{size_label(size_bytes)} request body", _COLUMNS, tuple(rows))


def ratios(samples: Sequence[Sample], quantities: Sequence[Quantity]) -> Table:
    """Return Understudy's figures divided by each other peer's, round by round."""
    groups = grouped(samples)
    rows = []
    for mode in reversed(Mode):
        for peer in dict.fromkeys(sample.peer for sample in samples):
            for size in dict.fromkeys(sample.size_bytes for sample in samples):
                ours, theirs = groups.get((size, mode, OURS)), groups.get((size, mode, peer))
                if peer not in {OURS, DIRECT} and ours and theirs:
                    cells = [_ratio_text(quantity, ours, theirs) for quantity in quantities]
                    rows.append((f"{OURS} / {peer}, {mode}, {size_label(size)}", *cells))
    titles = [f"{item.title} {'↑' if item.is_more_better else '↓'}" for item in quantities]
    heading = "Ratios: median (least-greatest round); ↓ less is better, ↑ more is better"
    return Table(heading, ("", *titles), tuple(rows))


def ratio_to(samples: Sequence[Sample], quantity: Quantity, peer: str) -> Spread | None:
    """Return Understudy's figure over a peer's, round by round; None when one is missing.

    The samples are of one size, mode and concurrency.
    """
    by_round = [
        {one.round: quantity.of(one) for one in samples if one.peer == name}
        for name in (OURS, peer)
    ]
    both = sorted(by_round[0].keys() & by_round[1].keys())
    ours, theirs = ([found[turn] or 0.0 for turn in both] for found in by_round)
    return paired_ratio(ours, theirs) if both else None


def summary(samples: Sequence[Sample], quantities: Sequence[Quantity]) -> dict[str, Any]:
    """Return the spread of every quantity by size, mode and peer, and the ratios, for programs."""
    groups = grouped(samples)
    medians: dict[str, Any] = {}
    against: dict[str, Any] = {}
    for (size, mode, peer), group in groups.items():
        ours = groups.get((size, mode, OURS))
        for quantity in quantities:
            found = values(quantity, group)
            if not found:
                continue
            place = f"{size_label(size)}/{mode}/{peer}"
            medians.setdefault(place, {})[quantity.title] = dataclasses.asdict(spread(found))
            if ours and peer not in {OURS, DIRECT}:
                ratio = paired_ratio(values(quantity, ours), found)
                against.setdefault(place, {})[quantity.title] = dataclasses.asdict(ratio)
    return {"medians": medians, "ratios_of_understudy_to": against}


def fault_line(sample: Sample) -> str:
    """Return a sample's faults in one line."""
    where = (
        f"{sample.peer}, {sample.mode}, {size_label(sample.size_bytes)}, "
        f"{sample.connections} connections, round {sample.round}"
    )
    return f"{where}: {'; '.join(sample.faults)}"


def ordered(samples: Sequence[Sample]) -> list[tuple[Key, list[Sample]]]:
    """Return the groups as tables show them: direct, then mode by mode in the peers' order."""
    modes = list(Mode)
    order = list(dict.fromkeys([DIRECT, OURS, *sorted({sample.peer for sample in samples})]))
    return sorted(
        grouped(samples).items(),
        key=lambda item: (item[0][2] != DIRECT, modes.index(item[0][1]), order.index(item[0][2])),
    )


def values(quantity: Quantity, group: Sequence[Sample]) -> list[float]:
    """Return a quantity of every round, without the rounds that have none."""
    return [value for sample in group if (value := quantity.of(sample)) is not None]


def _cells(group: Sequence[Sample]) -> list[str]:
    """Return one target's row."""
    worker, tree = values(WORKER, group), values(TREE, group)
    busy = [sample.busy for sample in group if sample.busy is not None]
    memory = [sample.memory_bytes for sample in group if sample.memory_bytes is not None]
    carried = sum(sample.primary_received for sample in group)
    copies = sum(sample.candidate_received for sample in group)
    errors = sum(len(sample.faults) for sample in group)
    return [
        _spread_text(spread(worker)) if worker else "",
        _spread_text(spread(tree)) if tree else "",
        f"{spread(values(RATE, group)).median:,.0f}",
        f"{spread(busy).median:.0%}" if busy else "",
        f"{spread(values(P50, group)).median / 1e3:.2f}",
        f"{spread(values(P99, group)).median / 1e3:.2f}",
        f"{copies / carried:.1%}" if copies else "0",
        f"{memory[-1] / 1e6:.0f}" if memory else "",
        str(errors),
    ]


def _spread_text(value: Spread) -> str:
    """Return microseconds as `25.1 (24.8-26.0)`."""
    return f"{value.median:.1f} ({value.low:.1f}-{value.high:.1f})"


def _ratio_text(quantity: Quantity, ours: Sequence[Sample], theirs: Sequence[Sample]) -> str:
    """Return a ratio as `0.62 (0.60-0.66)`."""
    ratio = paired_ratio(values(quantity, ours), values(quantity, theirs))
    return f"{ratio.median:.2f} ({ratio.low:.2f}-{ratio.high:.2f})"
