"""Every error a person can see, sorted by whose fault it is.

The operator's errors carry what went wrong, where, and how to mend it. Failures that the data
plane expects (a dead backend, a slow client) are values, not exceptions: see
`proxy.dataplane.outcome`.
"""

from __future__ import annotations

from typing import NamedTuple


class UnderstudyError(Exception):
    """Base of all errors raised on purpose; its text is fit to be shown as it is."""


class ConfigFault(NamedTuple):
    """One thing wrong in a config file.

    No dataclass, because a kill must not wait for the import of those.

    Attributes:
        file: path as the operator gave it.
        line: 1-based line, or 0 when the fault belongs to the whole file.
        key: dotted path of the key, such as `routes[0].candidates[1].weight`.
        message: what is wrong and how to mend it, one sentence or two.
    """

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


class ConfigError(UnderstudyError):
    """The configuration is wrong; raised before any socket opens.

    Attributes:
        faults: every fault found, in the order of the file.
    """

    def __init__(self, faults: list[ConfigFault]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(str(fault) for fault in faults))


class StateError(UnderstudyError):
    """The state directory or a page in it cannot be used; says which and how to mend it."""


class AdminError(UnderstudyError):
    """A running instance refused a command, or none could be reached."""


class SourceError(UnderstudyError):
    """Pairs could not be read from a path or topic."""


class ExportError(UnderstudyError):
    """Pairs could not be written to a file; nothing of it is left."""


class ReplayError(UnderstudyError):
    """A replay cannot begin or go on; what was sent and answered is kept."""
