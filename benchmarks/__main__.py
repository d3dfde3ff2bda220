"""Runs the benchmarks: `python -m benchmarks [NAME ...] [--quick] [--sizes ...] [--markdown]`.

Exit code 0 when all ran and did what they measure, 1 when one could not, or had faults.
"""

from __future__ import annotations

import datetime
import shlex
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from benchmarks import machine, plots, report
from benchmarks.catalogue import BENCHMARKS, WITHOUT_LOAD
from benchmarks.fleet import BenchmarkError, allow_many_files, ended_by_signals
from benchmarks.load import wrk_path
from benchmarks.options import Options, parse
from benchmarks.stage import chosen_peers
from proxy.telemetry import monotonic_s, wall_ns

RESULTS = Path(__file__).parent / "results"
_WIDTH = 150


def main(arguments: list[str]) -> int:
    """Run what the command line asks for and return the exit code."""
    options = parse(arguments)
    console = _console(options)
    if options.is_list:
        for name, benchmark in BENCHMARKS.items():
            summary = (sys.modules[benchmark.__module__].__doc__ or "").partition("\n")[0]
            console.print(f"{name:16} {summary}")
        return 0
    try:
        with ended_by_signals():
            return _run_all(console, options, arguments)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run_all(console: Console, options: Options, arguments: list[str]) -> int:
    """Run the chosen benchmarks, print and write what they found."""
    if not sys.platform.startswith("linux"):
        raise BenchmarkError("CPU times are read from /proc: the benchmarks need Linux")
    needs_load = not options.names or not {*options.names} <= WITHOUT_LOAD
    if needs_load:
        wrk_path()
    allow_many_files()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        raise BenchmarkError(f"no benchmark {unknown[0]!r}; there are: {', '.join(BENCHMARKS)}")
    peers, notes = chosen_peers(options.peers) if needs_load else ([], [])
    run = report.Run(
        started=datetime.datetime.fromtimestamp(wall_ns() // 10**9, datetime.UTC).isoformat(),
        machine=machine.describe(peers),
        command=shlex.join(["python", "-m", "benchmarks", *arguments]),
        notes=[*notes, *machine.notes()],
    )
    console.print(", ".join(f"{key} {value}" for key, value in run.machine.items()))
    _warn(console, run.notes)
    path = report.write_json(run, RESULTS)
    for name in options.names or BENCHMARKS:
        run.reports.append(_run_one(console, name, options))
        # After each, so that what a long run has found is kept whatever becomes of the rest.
        report.write_json(run, RESULTS)
    _show_claims(console, run)
    if plots.can_draw():
        plots.draw([chart for one in run.reports for chart in one.charts], options.plots)
    else:
        _warn(console, ["no plots: matplotlib is one of the bench extra"])
    if options.is_markdown:
        print(report.markdown(run, str(options.plots)))
    console.print(f"written to {path}, plots to {options.plots}")
    return 1 if any(one.faults for one in run.reports) else 0


def _run_one(console: Console, name: str, options: Options) -> report.Report:
    """Run one benchmark in a folder of its own, and show its result; a failure is a fault."""
    started_s = monotonic_s()
    with (
        tempfile.TemporaryDirectory(prefix=f"understudy-bench-{name}-") as folder,
        console.status(name) as status,
    ):
        try:
            found = BENCHMARKS[name](options, Path(folder), status.update)
        except BenchmarkError as error:
            found = report.Report(name, (), (), (), {}, faults=(str(error),))
    console.rule(f"{name}, {monotonic_s() - started_s:.0f} s")
    report.show(console, found)
    return found


def _show_claims(console: Console, run: report.Run) -> None:
    """Print the claims of all benchmarks together, when there were several."""
    if len(run.reports) > 1:
        console.rule("claims")
        claims = [claim for one in run.reports for claim in one.claims]
        for table in report.claims_table(claims):
            report.show_table(console, table)


def _console(options: Options) -> Console:
    """Return where to print; wide enough for the tables when it is a file or a pipe."""
    console = Console(stderr=options.is_markdown)
    return console if console.is_terminal else Console(stderr=options.is_markdown, width=_WIDTH)


def _warn(console: Console, notes: list[str]) -> None:
    """Print notes."""
    for note in notes:
        console.print(f"[yellow]note: {escape(note)}[/yellow]")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
