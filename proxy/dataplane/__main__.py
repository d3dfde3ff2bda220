"""The worker process: `python -m proxy.dataplane --config PATH --index I --fd FD [--shares FD]`.

Runs uvicorn on the listening socket that the launcher bound, with our protocol class; on SIGTERM
answers what is under way, lets mirrors end, flushes the journal and exits with 0.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

import setproctitle
import uvicorn

from proxy.config.resolved import Config
from proxy.dataplane.accepting import SharedServer
from proxy.dataplane.client import ClientConnection
from proxy.dataplane.event_loop import Loop
from proxy.dataplane.tls import Certificates
from proxy.dataplane.worker import Worker
from proxy.errors import UnderstudyError
from proxy.log_records import configure
from proxy.state.running_config import running_config
from proxy.state.shares_page import SharesPage

#: Of the time for a graceful stop, what users' requests may take; mirrors get the rest.
USERS_SHARE = 0.7
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


async def _no_app(scope: Any, receive: Any, send: Any) -> None:
    """Uvicorn asks for an application; our protocol class never calls it."""
    raise RuntimeError("the data plane is not an ASGI application")


async def serve(
    config: Config, revision: int, index: int, listener: socket.socket, shares: SharesPage | None
) -> None:
    """Serve until SIGTERM or SIGINT, then end in order.

    Args:
        config: of the instance.
        revision: the config's.
        index: of this worker.
        listener: that all workers share.
        shares: where workers tell each other how many connections they have; None: they do not.
    """
    loop = asyncio.get_running_loop()
    certificates = None if config.tls is None else Certificates(config.tls, loop)
    worker = Worker(config, index, loop, revision)
    if shares is not None and isinstance(loop, Loop):
        loop.shared = SharedServer(worker, shares, loop)
    settings = uvicorn.Config(
        _no_app,
        http=partial(ClientConnection, worker),  # type: ignore[arg-type]  # called like a class
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=max(1, int(config.limits.workers_stop_s * USERS_SHARE)),
    )
    if certificates is not None:
        settings.load()
        settings.ssl = certificates.context  # all that its own settings for TLS lead to
        certificates.start()
    server = uvicorn.Server(settings)
    worker.start()
    # What was made so far lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    # Exchanges leave no cycles behind, so passes find little: 6% of the CPU with CPython's defaults.
    gc.set_threshold(50_000, 20, 100)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, worker.stop_candidates)
    # Runs at the first pause of `serve`, which installs its handlers before that.
    asyncio.get_running_loop().call_soon(signal.pthread_sigmask, signal.SIG_UNBLOCK, _STOP_SIGNALS)
    try:
        await server.serve(sockets=[listener])
    finally:
        await worker.stop(config.limits.workers_stop_s * (1 - USERS_SHARE))


def main() -> int:
    """Run one worker; return the exit code."""
    # Until uvicorn listens to them, signals wait: one that came now would be lost, and the worker
    # would have to be killed. uvicorn raises them again when it has stopped, before the journal is
    # flushed; then nothing happens.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda *_: None)
    parser = argparse.ArgumentParser(prog="python -m proxy.dataplane", description=__doc__)
    parser.add_argument("--config", type=Path, required=True, help="resolved config (JSON)")
    parser.add_argument("--index", type=int, required=True, help="number of this worker")
    parser.add_argument("--fd", type=int, required=True, help="inherited listening socket")
    parser.add_argument("--shares", type=int, default=-1, help="memory shared with other workers")
    arguments = parser.parse_args()
    setproctitle.setproctitle(f"understudy: worker {arguments.index}")
    configure(f"worker {arguments.index}")
    listener = socket.socket(fileno=arguments.fd)
    listener.settimeout(0)
    shares = SharesPage(arguments.shares, arguments.index) if arguments.shares >= 0 else None
    if shares is not None:
        shares.leave()  # a predecessor that was killed is not waited for any more
    try:
        config, revision = running_config(arguments.config)
        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(serve(config, revision, arguments.index, listener, shares))
    except UnderstudyError as exc:  # a TLS file, that `serve` could read; secrets that got lost
        logging.getLogger("understudy.worker").error("%s", exc)  # noqa: TRY400 - no traceback for it
        return 1
    return 0


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    os._exit(code)  # nothing is left to do; a slow interpreter exit would only delay the launcher
