"""What Python's `logging` and uncaught exceptions say, in the shape of `proxy.log`."""

from __future__ import annotations

import logging
import sys
import traceback
from types import TracebackType
from typing import Any

from proxy import log


class JsonHandler(logging.Handler):
    """Writes each record as one line; drops it when nobody takes it."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; a traceback is its field `exception`."""
        try:
            fields: dict[str, Any] = {"logger": record.name}
            if record.exc_info and record.exc_info[0] is not None:
                fields["exception"] = "".join(traceback.format_exception(*record.exc_info))
            level, event = record.levelname.lower(), record.getMessage()
            log.put(log.line(self._process, level, event, fields, int(record.created * 1000)))
        except Exception:  # noqa: BLE001 - `logging`'s contract: a bad record must not raise
            self.handleError(record)


def configure(process: str) -> None:
    """Send everything that this process logs or does not catch to stderr; of libraries only warnings.

    Args:
        process: what the process is called in its lines.
    """
    logging.basicConfig(handlers=[JsonHandler(process)], level=logging.WARNING, force=True)
    logging.getLogger("understudy").setLevel(logging.INFO)
    logging.captureWarnings(True)  # noqa: FBT003 - the only form there is

    def uncaught(
        kind: type[BaseException], exc: BaseException, trace: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            return
        text = "".join(traceback.format_exception(kind, exc, trace))
        log.emit(process, "critical", f"uncaught {kind.__name__}", {"exception": text})

    sys.excepthook = uncaught
