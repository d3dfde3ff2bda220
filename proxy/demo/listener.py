"""How a small model server listens: a port of its own choosing, announced on standard output."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress

import uvicorn
from starlette.applications import Starlette

from proxy.demo.processes import READY

_SHUTDOWN_S = 2


def serve(app: Starlette, host: str, port: int) -> None:
    """Serve `app` until SIGTERM or SIGINT.

    Prints `READY` and the URL once the socket is open; port 0 takes any free one.
    """
    # uvicorn stops gracefully and then raises the signal again, for whoever handled it before.
    # Before uvicorn handles it, an exception may be raised in a callback that swallows it.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with socket.create_server((host, port), backlog=1024) as listener:
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=_SHUTDOWN_S
        )
        url = f"{READY}http://{host}:{listener.getsockname()[1]}"
        print(url, flush=True)  # noqa: T201 - whoever started this process reads it
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
