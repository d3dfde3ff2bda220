"""Claim: the kill switch takes effect on every worker within milliseconds, under full load, in each way.

Two workers, saturated; the candidate is mirrored at 100% and notes when each copy reaches its
socket (`benchmarks.programs.clocked`). From the command's start, and from the moment at which the
control page says killed, until the last copy came. The page is watched by polling; counted is from
the last look at which it did not say so yet, so the figure is at most too large, by the time until
the first look that did. On two cores that are full the watcher itself waits for a core while the
command starts: up to 10 ms, which were taken for the kill's. So it runs at real-time priority where
that is allowed, and what may be too large in a figure is shown. It reads the page only when its
generation has changed: reading it each time took so much of a core that the command came late.

Learnt: until the command has raised its priority it waits for a core like everybody else. The start
script that an old pip writes (23.2 does) imports `re` before that: 82 and 102 ms to the effect with
it, 62 and 68 without.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks import claims
from benchmarks.claims import judged
from benchmarks.dialogue import Dialogue
from benchmarks.figures import Spread, spread
from benchmarks.fleet import BenchmarkError, Fleet, free_port
from benchmarks.load import Load, LoadResult
from benchmarks.options import Options
from benchmarks.origin import own_origin, start_origin
from benchmarks.peers import Mode, Setup, Target, Understudy, Upstreams
from benchmarks.peers.understudy import PYTHON
from benchmarks.programs.clocked import CLOCK
from benchmarks.report import Report, Table
from proxy.state.control_page import Part, open_page
from proxy.telemetry import monotonic_s

NAME = "kill-switch"
WAYS = ("understudy kill", "admin API", "kill file", "SIGUSR1")
_CONNECTIONS = 64
_WORKERS = 2
_EXTRA_KILLS = 2
#: How long a kill, a look at what follows and a revive take, generously.
_KILL_S = 2.0
_QUIET_S = 0.2
_POLL_S = 0.000_2
_LIMIT_S = 10.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One kill; times in milliseconds until the last copy reached the candidate.

    Attributes:
        from_command_ms: since the command was started, or the request sent.
        from_page_ms: since the page was last seen without the kill; negative when no copy came.
        answered_ms: until the command had ended.
        blur_ms: between the looks at the page without and with the kill.
        later: copies that came after everything was quiet; there must be none.
    """

    way: str
    round: int
    from_command_ms: float
    from_page_ms: float
    answered_ms: float
    blur_ms: float
    later: int


@dataclass(frozen=True, slots=True)
class _Instance:
    """The running instance and its candidate."""

    state: Path
    launcher: int
    admin: str
    candidate: str

    def clock(self) -> tuple[int, int]:
        """Return the copies that reached the candidate, and when the last one did (ns)."""
        with urllib.request.urlopen(self.candidate + CLOCK, timeout=10) as answer:
            said = json.loads(answer.read())
        return said["requests"], said["last_ns"]


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Kill and revive several times in each way, in one long load."""
    kills = options.rounds + _EXTRA_KILLS
    load = Load(min(options.sizes), _CONNECTIONS, round(kills * len(WAYS) * _KILL_S) + 2)
    with Fleet(folder, options.is_pinned) as fleet, ThreadPoolExecutor(1) as pool:
        target, instance = _start(fleet)
        under_way = pool.submit(load.send, fleet, target.url)
        samples = []
        for turn in range(kills):
            for way in WAYS:
                say(f"{way}, {turn + 1} of {kills}")
                samples.append(_measure(instance, way, turn))
        is_loaded = not under_way.done()
        result = under_way.result()
    return Report(
        name=NAME,
        conditions=(
            f"{_WORKERS} workers, {_CONNECTIONS} connections, saturated (wrk)",
            f"{result.rate_per_s:,.0f} requests/s over all kills and revives",
            f"{kills} kills each way; median (least to greatest)",
            "page: since it was last seen without the kill; below 0: no copy came after it",
        ),
        tables=(_table(samples),),
        samples=tuple(samples),
        summary={way: {"from_page_ms": _spread(samples, way, _page)} for way in WAYS},
        claims=(
            judged(
                "kill switch, page written to last copy, worst of all",
                claims.KILL_PAGE,
                spread([max(one.from_page_ms for one in samples)]),
            ),
            judged(
                "kill switch, command to effect",
                claims.KILL_COMMAND,
                _spread(samples, WAYS[0], _command),
            ),
        ),
        faults=tuple(_faults(samples, result, is_loaded=is_loaded)),
    )


def _start(fleet: Fleet) -> tuple[Target, _Instance]:
    """Start upstreams and an instance with two workers."""
    clocked = Dialogue(fleet, "clocked", {"port": free_port()})
    port = clocked.settings["port"]
    fleet.wait_for_port(clocked.child, port)
    upstreams = Upstreams(start_origin(fleet, "primary"), own_origin(port, "clocked"))
    setup = Setup(workers=_WORKERS, mirror_lag="0")  # what is to end is made without a pause
    target = Understudy().start(fleet, Mode.MIRROR, upstreams, setup)
    assert target.pairs is not None
    state = target.pairs.parent
    runtime = json.loads((state / "runtime.json").read_text())
    return target, _Instance(
        state, runtime["pid"], f"http://{runtime['admin']}", f"http://127.0.0.1:{port}"
    )


def _measure(instance: _Instance, way: str, turn: int) -> Sample:
    """Wait for traffic at the candidate, kill, look for late copies, and revive."""
    _wait_for_copies(instance)
    with _PageWatch(instance.state) as watch:
        started_ns = time.monotonic_ns()
        _ORDERS[way](instance)
        answered_ns = time.monotonic_ns()
        watch.wait()
    time.sleep(_QUIET_S)
    copies, last_ns = instance.clock()
    time.sleep(_QUIET_S)
    later = instance.clock()[0] - copies
    _command_line(instance, "revive")
    # No page is written before the order is given, however late the last look at it was.
    alive_ns = max(watch.alive_ns, started_ns)
    effect_ns = max(last_ns, alive_ns)
    return Sample(
        way=way,
        round=turn,
        from_command_ms=(effect_ns - started_ns) / 1e6,
        from_page_ms=(last_ns - alive_ns) / 1e6,
        answered_ms=(answered_ns - started_ns) / 1e6,
        blur_ms=(watch.killed_ns - alive_ns) / 1e6,
        later=later,
    )


class _PageWatch:
    """Looks at the control page all the time inside a `with` block.

    Attributes:
        alive_ns: the last time it was seen without a kill.
        killed_ns: the first time it was seen with one.
    """

    def __init__(self, state: Path) -> None:
        self.alive_ns = self.killed_ns = 0
        self._page = open_page(state)
        self._is_killed = threading.Event()
        self._is_over = False
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> _PageWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()
        self._page.close()

    def wait(self) -> None:
        """Wait until the page says killed.

        Raises:
            BenchmarkError: it does not.
        """
        if not self._is_killed.wait(_LIMIT_S):
            raise BenchmarkError("the control page does not say killed")

    def _look(self) -> None:
        with suppress(AttributeError, OSError):  # another system, or not allowed
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # of this thread
        seen = -1
        while not self._is_over:
            looked_ns = time.monotonic_ns()
            generation = self._page.generation()
            if generation != seen and self._page.read().killed & Part.DEFAULT == Part.DEFAULT:
                self.killed_ns = time.monotonic_ns()
                self._is_killed.set()
                return
            seen, self.alive_ns = generation, looked_ns
            time.sleep(_POLL_S)


def _wait_for_copies(instance: _Instance) -> None:
    """Wait until the candidate is under load.

    Raises:
        BenchmarkError: no copy reaches it.
    """
    before, _ = instance.clock()
    give_up = monotonic_s() + _LIMIT_S
    while instance.clock()[0] < before + 100:
        if monotonic_s() > give_up:
            raise BenchmarkError("no copies reach the candidate")
        time.sleep(0.02)


def _by_command(instance: _Instance) -> None:
    _command_line(instance, "kill")


def _by_api(instance: _Instance) -> None:
    body = json.dumps({"reason": "benchmark"}).encode()
    request = urllib.request.Request(
        f"{instance.admin}/api/v1/kill", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=_LIMIT_S) as answer:
        answer.read()


def _by_file(instance: _Instance) -> None:
    (instance.state / "KILL").touch()


def _by_signal(instance: _Instance) -> None:
    os.kill(instance.launcher, signal.SIGUSR1)


#: How each of `WAYS` is given; a file and a signal are not answered.
_ORDERS = dict(zip(WAYS, (_by_command, _by_api, _by_file, _by_signal), strict=True))


def _command_line(instance: _Instance, order: str) -> None:
    """Give an order as an operator does.

    Raises:
        BenchmarkError: the command refuses.
    """
    understudy = str(Path(PYTHON[0]).with_name("understudy"))
    command = [understudy, order, "--state-dir", str(instance.state)]
    done = subprocess.run(
        [*command, "--reason", "benchmark"], capture_output=True, text=True, check=False, timeout=30
    )
    if done.returncode != 0:
        raise BenchmarkError(f"understudy {order} failed:\n{done.stdout}{done.stderr}")


def _page(sample: Sample) -> float:
    return sample.from_page_ms


def _command(sample: Sample) -> float:
    return sample.from_command_ms


def _blur(sample: Sample) -> float:
    return sample.blur_ms


def _answered(sample: Sample) -> float:
    return sample.answered_ms


def _spread(samples: Sequence[Sample], way: str, of: Callable[[Sample], float]) -> Spread:
    return spread([of(one) for one in samples if one.way == way])


def _table(samples: Sequence[Sample]) -> Table:
    """Return the times of each way."""
    rows = []
    for way in WAYS:
        found = [_spread(samples, way, of) for of in (_page, _blur, _command, _answered)]
        cells = [f"{one.median:.1f} ({one.low:.1f} to {one.high:.1f})" for one in found]
        rows.append((way, *cells, str(sum(one.later for one in samples if one.way == way))))
    columns = (
        "",
        "page to last copy, ms",
        "too large by at most, ms",
        "command to effect, ms",
        "to its answer, ms",
        "later",
    )
    return Table("Until the last copy reached the candidate", columns, tuple(rows))


def _faults(samples: Sequence[Sample], result: LoadResult, *, is_loaded: bool) -> list[str]:
    """Return late copies, users' errors, and a load that was over too soon."""
    found = [f"{s.way}, {s.round}: {s.later} copies after the kill" for s in samples if s.later]
    found += [f"users saw {count} {kind} errors" for kind, count in result.errors.items()]
    return found if is_loaded else [*found, "the load ended before the last kill"]
