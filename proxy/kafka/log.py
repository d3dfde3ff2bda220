"""What aiokafka says about its troubles, kept for `status` instead of scrolling by.

The client hides why it cannot connect (a refused password ends as "unable to bootstrap") and tells
only its logger. The last warning and the exceptions in it are kept, and nothing is printed: a
broker that is down for hours must not fill the launcher's log.
"""

from __future__ import annotations

import logging
import threading
from typing import Final

_MAX_CAUSES = 8
#: Said of every connection with SASL and without TLS: the operator's choice, not a trouble.
_NO_TROUBLE: Final = "Sending username and password in the clear"


class ClientLog(logging.Handler):
    """Listens to the `aiokafka` logger from its creation until `close`, to its own thread only.

    Pairs and labels have a client each, on threads of their own.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.latest = ""
        self.causes: list[BaseException] = []
        self._thread = threading.get_ident()
        self._logger = logging.getLogger("aiokafka")
        self._logger.addHandler(self)
        self._logger.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the message and the exceptions it was made of; some are logged as their class."""
        if record.thread != self._thread:
            return
        message = record.getMessage()
        if message == _NO_TROUBLE:
            return
        self.latest = message
        found = [_error(arg) for arg in record.args or ()]
        if record.exc_info:
            found.append(record.exc_info[1])
        self.causes = [*self.causes, *(each for each in found if each is not None)][-_MAX_CAUSES:]

    def clear(self) -> None:
        """Forget: what was said before is over."""
        self.latest = ""
        self.causes = []

    def close(self) -> None:
        """Stop listening; the last of several lets the library be heard again."""
        self._logger.removeHandler(self)
        self._logger.propagate = not any(
            isinstance(each, ClientLog) for each in self._logger.handlers
        )
        super().close()


def _error(argument: object) -> BaseException | None:
    """Return the exception that a log line's argument is, or the class of."""
    if isinstance(argument, BaseException):
        return argument
    if isinstance(argument, type) and issubclass(argument, BaseException):
        return argument()
    return None
