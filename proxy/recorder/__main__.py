"""The recorder process: `python -m proxy.recorder --config PATH --index I`.

SIGTERM and SIGINT end it after it has shipped what the workers have flushed (see
`proxy.recorder.ending`); after SIGALRM it leaves the rest. It exits 0 then; 1 with a line in the log when
it cannot start.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import signal
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import uvloop
from setproctitle import setproctitle

from proxy.comparison.comparators import own_problem
from proxy.config.resolved import Config
from proxy.errors import ConfigError, ConfigFault, UnderstudyError
from proxy.heap import keep_freed_memory, leave_garbage
from proxy.log import emit
from proxy.log_records import configure
from proxy.recorder.beside import Beside
from proxy.recorder.decisions import DecisionShipper
from proxy.recorder.follow import next_config
from proxy.recorder.labels import LabelShipper
from proxy.recorder.loop import Recorder
from proxy.recorder.priority import step_back
from proxy.recorder.sink import open_sink
from proxy.recorder.spans import SpanSink
from proxy.recorder.statistics import store, unusable
from proxy.state.running_config import running_config

if TYPE_CHECKING:  # needs numpy, which only a recorder of ramps should carry
    from proxy.recorder.label_join import LabelJoin


async def run(config: Config, index: int) -> None:
    """Run one recorder until a signal stops it.

    Raises:
        UnderstudyError: the sink cannot be opened; the statistics file says so, too.
    """
    stop, late = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        stop.set()
        # For a recorder whose launcher has died; else that one knows better how much time is left.
        loop.call_later(config.limits.recorders_leave_s, late.set)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    loop.add_signal_handler(signal.SIGALRM, late.set)
    following: Config | None = config
    while following is not None:
        following = await _run_until_changed(following, index, stop, late)


async def _run_until_changed(
    config: Config, index: int, stop: asyncio.Event, late: asyncio.Event
) -> Config | None:
    """Run until the sink is another one, and return the config that says so; None after `stop`.

    Other changes need nothing here: each pair is expanded by the config that it was made under.

    Raises:
        UnderstudyError: the sink cannot be opened; the statistics file says so, too.
    """
    try:
        spans = open_spans(config)
        sink = open_sink(config, index)
    except UnderstudyError as exc:
        store(Path(config.state_dir), unusable(index, str(exc)))
        raise
    recorder = Recorder(config, index, sink, spans)
    leave_garbage()
    end, leave = asyncio.Event(), asyncio.Event()
    async with _beside(config, index, end, recorder.labels), asyncio.TaskGroup() as tasks:
        change = tasks.create_task(next_config(config))
        change.add_done_callback(lambda _: end.set())
        signals = tasks.create_task(_pass_signals_on((stop, late), (end, leave)))
        shipping = tasks.create_task(recorder.run(end, leave))
        await end.wait()
        if change.done() and not stop.is_set():
            # A backlog must not keep the next sink waiting: it goes there.
            await asyncio.wait([shipping], timeout=config.limits.recorders_stop_s)
            leave.set()
        await shipping
        signals.cancel()
        if change.done() and not stop.is_set():
            emit(f"recorder {index}", "info", "sink changed", {"version": change.result().version})
            return change.result()
        change.cancel()
    return None


async def _pass_signals_on(given: Iterable[asyncio.Event], to: Iterable[asyncio.Event]) -> None:
    """Set one event after the other when its counterpart, which outlives a config, is set."""
    for event, own in zip(given, to, strict=True):
        await event.wait()
        own.set()


@asynccontextmanager
async def _beside(
    config: Config, index: int, end: asyncio.Event, join: LabelJoin | None
) -> AsyncIterator[None]:
    """Ship labels and decisions meanwhile, if this is the recorder that does, and to their end after `end`."""
    if index:
        yield
        return
    shippers: list[Beside] = [LabelShipper(config, join)]
    if config.record.kafka is not None:
        shippers.append(DecisionShipper(config, config.record.kafka))
    for shipper in shippers:
        shipper.start()
    try:
        async with asyncio.TaskGroup() as group:
            # They are shipped to their end beside the pairs, not after them.
            group.create_task(_pass_on(end, shippers))
            try:
                yield
            finally:
                end.set()
    finally:
        for shipper in shippers:
            shipper.request_stop()
        for shipper in shippers:
            await asyncio.to_thread(shipper.join, config.limits.recorders_stop_s)


async def _pass_on(end: asyncio.Event, shippers: list[Beside]) -> None:
    await end.wait()
    for shipper in shippers:
        shipper.request_stop()


def open_spans(config: Config) -> SpanSink | None:
    """Return what exports spans, if the config asks for it.

    The module is imported here, because it needs an extra, and memory that few want to spend.

    Raises:
        ConfigError: the extra is not installed.
    """
    if config.telemetry.otlp is None:
        return None
    try:
        module = importlib.import_module("proxy.recorder.span_export")
    except ImportError as exc:
        message = (
            f"needs packages that are not installed ({exc}); run: pip install 'understudy[otel]'"
        )
        raise ConfigError([ConfigFault("config", 0, "telemetry.otlp", message)]) from exc
    spans: SpanSink = module.SpanExport(config)
    return spans


def main() -> int:
    """Parse the arguments and run; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m proxy.recorder", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="the resolved config (JSON)")
    parser.add_argument("--index", type=int, required=True, help="which recorder this is, from 0")
    arguments = parser.parse_args()
    name = f"recorder {arguments.index}"
    setproctitle(f"understudy: {name}")
    configure(name)
    keep_freed_memory()
    try:
        config, _ = running_config(arguments.config)
        step_back(config.record.niceness)
        for route in config.routes:
            problem = own_problem(route.compare)
            if problem is not None:
                emit(name, "error", "cannot compare", {"route": route.name, "why": problem})
        uvloop.run(run(config, arguments.index))
    except UnderstudyError as exc:
        emit(name, "error", "cannot start", {"why": str(exc)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
