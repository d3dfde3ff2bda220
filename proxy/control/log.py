"""Control's log: one JSON object a line on stderr, like the launcher's."""

from __future__ import annotations

import logging
import sys

import orjson

from proxy.telemetry import rfc3339


class JsonFormatter(logging.Formatter):
    """A log record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback stays inside it."""
        line = {
            "ts": rfc3339(int(record.created * 1000)),
            "level": record.levelname.lower(),
            "process": "control",
            "event": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def configure_logging() -> None:
    """Send every log record to stderr; of uvicorn only warnings."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
