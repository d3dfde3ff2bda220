"""The control process: `python -m proxy.control --config PATH --source FILE --fd FD`.

Serves the admin application on the socket that the launcher bound. Users notice nothing when it is
dead, hung or being replaced.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib
import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn
import uvloop
from setproctitle import setproctitle

from proxy.config.resolved import Config
from proxy.control.app import build_app
from proxy.control.config_watch import ConfigWatch
from proxy.control.guards import Guards
from proxy.control.pulse import BEAT_S, Pulse
from proxy.control.ramps import Ramps
from proxy.control.reload import Reloader, automatic
from proxy.control.snapshot import Observer
from proxy.errors import StateError
from proxy.log import emit
from proxy.log_records import configure
from proxy.state import decisions
from proxy.state.running_config import running_config
from proxy.telemetry import monotonic_s

if TYPE_CHECKING:
    from proxy.control.replicas import Replicas

#: How often it looks whether the launcher still lives. On Linux the kernel tells it sooner.
PARENT_POLL_S = 1.0
#: How often the counters are sampled, to tell what fails now from what once failed.
SAMPLE_S = 1.0
#: Connections at once; enough for dashboards and scrapers, little enough to stay small.
CONNECTION_LIMIT = 256


async def serve(config: Config, source: Path | None, listener: socket.socket) -> None:
    """Serve until SIGTERM, SIGINT or the launcher's end."""
    observer, pulse = Observer(config), Pulse()
    reloader = Reloader(config, source, observer)
    replicas = _replicas(config, observer)
    ramps = Ramps(config, observer.page, ejections=observer.ejections, replicas=replicas)
    guards = Guards(observer.ejections, observer.page, ramps.tick)
    reloader.on_change(ramps.follow)
    server = uvicorn.Server(
        uvicorn.Config(
            build_app(config, observer, pulse, reloader, ramps, replicas),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            limit_concurrency=CONNECTION_LIMIT,
            timeout_graceful_shutdown=1,
        )
    )
    asyncio.get_running_loop().add_signal_handler(
        signal.SIGHUP,
        lambda: reloader.reload(automatic("signal SIGHUP", "signal")),
    )
    gc.collect()
    gc.freeze()
    try:
        async with asyncio.TaskGroup() as tasks:
            watches = [
                tasks.create_task(_watch_parent(server)),
                tasks.create_task(_watch_counters(observer, pulse)),
                tasks.create_task(guards.run()),
                tasks.create_task(ramps.run()),
                tasks.create_task(ConfigWatch(reloader).run()),
            ]
            if replicas is not None:
                reloader.on_change(replicas.follow)
                watches.append(tasks.create_task(replicas.run()))
            await server.serve(sockets=[listener])
            for watch in watches:
                watch.cancel()
    finally:
        observer.close()


def _replicas(config: Config, observer: Observer) -> Replicas | None:
    """Return this replica, if the config says that there are others.

    The client of Kafka is imported here: some 10 MB that control does without elsewhere.
    """
    if config.replicas is None:
        return None
    module = importlib.import_module("proxy.control.replicas")
    found: Replicas = module.Replicas(config, config.replicas, observer.page)
    return found


async def _watch_parent(server: uvicorn.Server) -> None:
    parent = os.getppid()
    # Nothing tells a process portably that its parent has died; polling is what there is.
    while os.getppid() == parent:  # noqa: ASYNC110 - see above
        await asyncio.sleep(PARENT_POLL_S)
    server.should_exit = True


async def _watch_counters(observer: Observer, pulse: Pulse) -> None:
    """Beat, and with every second beat sample the counters, and log the decisions that wait for the disk."""
    while True:
        observer.sample()
        decisions.retry(observer.state_dir)
        for _ in range(round(SAMPLE_S / BEAT_S)):
            pulse.beat(monotonic_s())
            await asyncio.sleep(BEAT_S)


def main() -> int:
    """Run control; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m proxy.control", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="resolved config (JSON)")
    parser.add_argument("--source", type=Path, help="the file that it was made of")
    parser.add_argument("--fd", type=int, required=True, help="inherited admin socket")
    arguments = parser.parse_args()
    setproctitle("understudy: control")
    configure("control")
    # uvicorn raises the signal again once it has stopped, which must not end us with it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    try:
        config, _ = running_config(arguments.config)
    except StateError as exc:
        emit("control", "error", "cannot start", {"why": str(exc)})
        return 1
    listener = socket.socket(fileno=arguments.fd)
    listener.settimeout(0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(config, arguments.source, listener))
    return 0


if __name__ == "__main__":
    sys.exit(main())
