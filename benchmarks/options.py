"""What a person may choose for a run."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from benchmarks.figures import parse_size

FULL_SIZES = (1 << 10, 16 << 10, 64 << 10, 1 << 20, 8 << 20)
#: Plots of whole runs are kept with the sources, those of quick ones are not.
PLOTS, QUICK_PLOTS = Path("benchmarks/plots"), Path("benchmarks/results/plots")


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a run.

    Attributes:
        names: benchmarks to run; empty for all.
        is_quick: the short form of every benchmark, to see that it works.
        sizes: request bodies in bytes.
        rounds: repetitions of everything.
        seconds: length of one load, whole seconds.
        connections: keep-alive connections of the load.
        peers: names of the proxies; empty for all that are installed.
        is_pinned: proxies on the first core alone.
        is_shared: all on all cores, where a benchmark pins of its own accord, too.
        is_markdown: print Markdown in place of terminal tables.
        is_list: only list the benchmarks.
        streams: how many streams of events are open at a time.
        cases: candidates of `hung-candidate` and `overload`; empty for all.
        overload_s: seconds of `overload` of each candidate, in all rounds together; its mirror is killed in half of them.
        pairs: length of the backlog of `recorder-backlog`.
        plots: folder for the plots.
    """

    names: tuple[str, ...]
    is_quick: bool
    sizes: tuple[int, ...]
    rounds: int
    seconds: int
    connections: int
    peers: tuple[str, ...]
    is_pinned: bool
    is_shared: bool
    is_markdown: bool
    is_list: bool
    streams: int
    cases: tuple[str, ...]
    overload_s: float
    pairs: int
    plots: Path


def parse(arguments: list[str]) -> Options:
    """Return the options of a command line; ends the program with a message when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure Understudy against other proxies, side by side in one run.",
    )
    parser.add_argument("names", nargs="*", help="benchmarks to run (default: all; see --list)")
    parser.add_argument(
        "--quick", action="store_true", help="the short form of each: does it work?"
    )
    parser.add_argument("--sizes", help="request bodies, such as 1KB,64KB,8MB")
    parser.add_argument("--rounds", type=_positive, help="repetitions (default 4; quick 1)")
    parser.add_argument("--seconds", type=_positive, help="length of one load (default 2; quick 1)")
    parser.add_argument("--connections", type=_positive, default=32)
    parser.add_argument("--peers", default="", help="such as understudy,envoy (default: all)")
    parser.add_argument(
        "--pin",
        action=argparse.BooleanOptionalAction,
        help="proxies on the first core alone (default: in sse only)",
    )
    parser.add_argument("--streams", type=_positive, help="of events (default 1000; quick 200)")
    parser.add_argument("--cases", default="", help="such as healthy,hung (default: all)")
    parser.add_argument("--overload", type=_positive, help="seconds of each (default 120; quick 1)")
    parser.add_argument(
        "--pairs", type=_positive, help="of a backlog (default 5000000; quick 50000)"
    )
    parser.add_argument("--plots", type=Path, help=f"folder (default {PLOTS}; quick {QUICK_PLOTS})")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.add_argument("--list", action="store_true", help="list the benchmarks and end")
    given = parser.parse_args(arguments)
    try:
        sizes = tuple(parse_size(size) for size in given.sizes.split(",")) if given.sizes else None
    except ValueError:
        parser.error(f"--sizes {given.sizes}: give sizes such as 1KB,64KB,1MB")
    return Options(
        names=tuple(given.names),
        is_quick=given.quick,
        sizes=sizes or (FULL_SIZES[:1] if given.quick else FULL_SIZES),
        rounds=given.rounds or (1 if given.quick else 4),
        seconds=given.seconds or (1 if given.quick else 2),
        connections=given.connections,
        peers=tuple(name for name in given.peers.split(",") if name),
        is_pinned=bool(given.pin),
        is_shared=given.pin is False,
        is_markdown=given.markdown,
        is_list=given.list,
        streams=given.streams or (200 if given.quick else 1000),
        cases=tuple(name for name in given.cases.split(",") if name),
        overload_s=given.overload or (1 if given.quick else 120),
        pairs=given.pairs or (50_000 if given.quick else 5_000_000),
        plots=given.plots or (QUICK_PLOTS if given.quick else PLOTS),
    )


def _positive(text: str) -> int:
    """Return a whole number of 1 or more."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("1 or more")
    return number
