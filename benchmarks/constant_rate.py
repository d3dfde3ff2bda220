"""Claim: at a constant 1,000 requests per second Understudy adds little latency, at little CPU.

The load is an open loop of our own (`benchmarks.programs.open_loop`): latency is counted from the
time at which a request was planned to be sent, so no stall goes unseen. What a proxy adds is the
difference to the direct way, measured in the same round by the same generator, whose own error is
thereby in both. How late the generator sent, and what it took of a core, stand beside.

What was learnt (two cores, added p99 with mirror): the recorder's bursts, 5 ms each 0.1 s, were what others
waited for: 1.2 ms. A lower priority alone made it 0.8 to 0.9 (once it has a core, a process keeps it for its
slice), sched_yield(2) after every four pairs 0.2; the journal's flush (20 pairs, some 0.1 ms) is not seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import claims, tables
from benchmarks.charts import Chart, Kind, Series
from benchmarks.claims import Claim, judged
from benchmarks.figures import Spread, paired_difference, size_label, spread
from benchmarks.mirror_cpu import measure_rounds
from benchmarks.options import Options
from benchmarks.paced import CONNECTIONS, RATE_PER_S, PacedLoad
from benchmarks.peers import Mode
from benchmarks.report import Report, Table
from benchmarks.stage import DIRECT, Sample, chosen_peers, open_stage
from benchmarks.verify import recording_faults

NAME = "constant-rate"
SHARES = (0.5, 0.99, 0.999)
#: p99.9 of fewer than 2,000 requests would be one or two of them.
_LEAST_S = 2
_COLUMNS = ("worker µs/req", "tree µs/req", "sent late, p99 ms", "generator", "faults")


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Measure the smallest body size at the constant rate."""
    peers, _ = chosen_peers(options.peers, is_fast_only=True)
    seconds = max(_LEAST_S, 2 * options.seconds)
    load = PacedLoad(min(options.sizes), seconds)
    with open_stage(folder, peers, list(Mode), is_pinned=options.is_pinned) as stage:
        samples = measure_rounds(
            stage, stage.targets, load, options.rounds, say, is_warm=options.is_quick
        )
        faults = recording_faults(stage)
    faults += [tables.fault_line(sample) for sample in samples if sample.faults]
    return Report(
        name=NAME,
        conditions=(
            f"{RATE_PER_S:,} requests/s, open loop, {CONNECTIONS} keep-alive connections",
            f"POST of {size_label(load.size_bytes)}; latency from the planned time",
            f"{options.rounds} rounds of {seconds} s, all in turn in each; medians",
            "generator: its share of a core; sent late: its own error in sending, in the latencies",
        ),
        tables=(_latencies(samples), _added(samples), tables.ratios(samples, tables.CPU)),
        samples=tuple(samples),
        summary=tables.summary(samples, tables.MODERATE),
        claims=tuple(_claims(samples)),
        charts=(_chart(samples),),
        faults=tuple(faults),
    )


def added_ms(
    groups: dict[tables.Key, list[Sample]], key: tables.Key, base: tables.Key, share: float
) -> Spread | None:
    """Return what one target adds to another at a quantile, round by round, in milliseconds."""
    ours, theirs = groups.get(key), groups.get(base)
    if not ours or not theirs:
        return None
    return paired_difference(
        *([one.quantiles_us[share] / 1e3 for one in g] for g in (ours, theirs))
    )


def _latencies(samples: Sequence[Sample]) -> Table:
    """Return the latencies of every target, with CPU and the generator's own figures."""
    rows = []
    for (_, mode, peer), group in tables.ordered(samples):
        cells = [
            f"{spread([one.quantiles_us[share] / 1e3 for one in group]).median:.3f}"
            for share in SHARES
        ]
        cells += [
            f"{spread(found).median:.1f}" if (found := tables.values(quantity, group)) else ""
            for quantity in tables.CPU
        ]
        cells.append(f"{max((one.late_p99_us or 0) / 1e3 for one in group):.3f}")
        cells.append(f"{max(one.generator_busy or 0 for one in group):.0%}")
        cells.append(str(sum(len(one.faults) for one in group)))
        rows.append((peer if peer == DIRECT else f"{peer}, {mode}", *cells))
    names = tuple(f"{_percentile(share)} ms" for share in SHARES)
    return Table("Latency and CPU", ("", *names, *_COLUMNS), tuple(rows))


def _added(samples: Sequence[Sample]) -> Table:
    """Return what each target adds to the direct way."""
    groups = tables.grouped(samples)
    rows = []
    for key, _ in tables.ordered(samples):
        size, mode, peer = key
        found = [added_ms(groups, key, (size, Mode.FORWARD, DIRECT), share) for share in SHARES]
        if peer != DIRECT:
            rows.append((f"{peer}, {mode}", *(_text(value) for value in found)))
    names = tuple(f"{_percentile(share)} ms" for share in SHARES)
    return Table("Added to direct: median (least to greatest round)", ("", *names), tuple(rows))


def _claims(samples: Sequence[Sample]) -> list[Claim]:
    """Return the claims about added latency, mirror off and on, and about the mirror's own part."""
    groups, size = tables.grouped(samples), samples[0].size_bytes
    direct = (size, Mode.FORWARD, DIRECT)
    found = []
    for share, bar in ((0.5, claims.ADDED_P50), (0.99, claims.ADDED_P99)):
        for mode in Mode:
            what = f"{_percentile(share)} added to direct at {RATE_PER_S:,} requests/s, {mode}"
            found.append(
                judged(what, bar, added_ms(groups, (size, mode, tables.OURS), direct, share))
            )
    off, on = ((size, mode, tables.OURS) for mode in Mode)
    mirrored = added_ms(groups, on, off, 0.99)
    what = f"p99, mirror on less mirror off, at {RATE_PER_S:,} requests/s"
    return [*found, judged(what, claims.ISOLATION_P99, mirrored)]


def _chart(samples: Sequence[Sample]) -> Chart:
    """Return latency by percentile, on the scale that gives each further nine the same room."""
    series = []
    for (_, mode, peer), group in tables.ordered(samples):
        shares = [share for share in sorted(group[0].quantiles_us) if share >= 0.5]
        points = [
            (_place(share), spread([one.quantiles_us[share] / 1e3 for one in group]))
            for share in shares
        ]
        series.append(Series(peer if peer == DIRECT else f"{peer}, {mode}", tuple(points)))
    return Chart(
        name=NAME,
        title=f"Latency at a constant {RATE_PER_S:,} requests/s (open loop)",
        x_label="percentile of requests",
        y_label="latency, ms",
        kind=Kind.LINES,
        series=tuple(series),
        is_log_y=True,
        ticks=tuple((_place(share), _percentile(share)) for share in (0.5, 0.9, *SHARES[1:])),
    )


def _place(share: float) -> float:
    return -math.log10(1 - share)


def _percentile(share: float) -> str:
    return f"p{share * 100:g}"


def _text(value: Spread | None) -> str:
    if value is None:
        return ""
    return f"{value.median:+.3f} ({value.low:+.3f} to {value.high:+.3f})"
