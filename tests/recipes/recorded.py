"""What the session's fixtures have recorded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = dict[str, Any]
Records = list[Record]


@dataclass(frozen=True)
class Recorded:
    """What an analyst finds after a day of traffic.

    Attributes:
        folder: holds `state/pairs`, `pairs.parquet` and `labels.ndjson`, as the recipes name them.
        records: the pairs in it.
    """

    folder: Path
    records: Records


@dataclass(frozen=True)
class Topic:
    """The same in Kafka."""

    bootstrap: str
    name: str
    records: Records
