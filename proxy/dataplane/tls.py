"""TLS on the listener: the context of a worker, and its renewal while it serves.

uvicorn and uvloop do the handshakes. Certificate and key are looked at once a minute: when the files
have changed, and fit together, new handshakes use them; connections that are open stay as they are.
`client_ca` is read at the start only, because OpenSSL cannot forget an authority.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from proxy.config.resolved import Tls
from proxy.config.tls_files import FileStamp, TlsFileError, file_stamp, load_chain, server_context

#: How often the files are looked at.
LOOK_EVERY_S: Final = 60.0

logger = logging.getLogger("understudy.tls")


class Certificates:
    """The certificate and key of the listener.

    Attributes:
        context: what the listener uses, for as long as the worker lives.
        look_every_s: may be set before `start`.

    Raises:
        TlsFileError: the files cannot be used.
    """

    def __init__(self, tls: Tls, loop: asyncio.AbstractEventLoop) -> None:
        self._tls = tls
        self._loop = loop
        self._loaded = self._stamp()
        self.context = server_context(tls)
        self.look_every_s = LOOK_EVERY_S
        self._trouble = ""

    def start(self) -> None:
        """Look at the files from now on."""
        self._loop.call_later(self.look_every_s, self._look)

    def _look(self) -> None:
        self.start()
        stamp = self._stamp()
        if stamp == self._loaded:
            self._trouble = ""
            return
        try:
            # Tried on a context of its own: loading a key that does not fit would leave ours without.
            server_context(self._tls)
            load_chain(self.context, self._tls)
        except TlsFileError as exc:
            if str(exc) != self._trouble:  # it is tried again every minute
                logger.error("tls.%s: %s; the old certificate stays in use", exc.key, exc)  # noqa: TRY400 - no traceback for a half-written file
            self._trouble = str(exc)
            return
        self._loaded, self._trouble = stamp, ""
        logger.info("tls.certificate: %s has been renewed and is in use", self._tls.certificate)

    def _stamp(self) -> tuple[FileStamp, ...]:
        """Return what changes when a file is written or replaced, be it by a symbolic link."""
        return tuple(file_stamp(path) for path in (self._tls.certificate, self._tls.key))
