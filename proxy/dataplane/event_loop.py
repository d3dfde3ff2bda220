"""The event loop of a worker: uvloop's, with what uvicorn has no setting for."""

from __future__ import annotations

import socket
from collections.abc import Coroutine
from functools import partial
from typing import Any, Final

import uvloop

from proxy.dataplane.accepting import Factory, SharedServer

#: Time for a handshake: what a client also has for its first head. nginx gives 60 s.
HANDSHAKE_S: Final = 10.0


class Loop(uvloop.Loop):
    """An event loop whose listeners bound the TLS handshake, and leave other workers their part.

    Attributes:
        shared: what accepts where several workers do; None: uvloop's server alone.
    """

    shared: SharedServer | None = None

    async def create_server(self, *args: Any, **kwargs: Any) -> Any:
        """Listen; see `asyncio.loop.create_server`."""
        if kwargs.get("ssl") is not None:
            kwargs.setdefault("ssl_handshake_timeout", HANDSHAKE_S)
        if self.shared is None:
            return await super().create_server(*args, **kwargs)
        (factory,) = args
        return self.shared.serve(kwargs.pop("sock"), partial(self._server_on, kwargs), factory)

    def _server_on(
        self, settings: dict[str, Any], factory: Factory, listener: socket.socket
    ) -> Coroutine[Any, Any, Any]:
        return super().create_server(factory, sock=listener, **settings)
