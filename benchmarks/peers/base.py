"""What a peer is: something that can be started in front of the same upstreams as the others."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from benchmarks.fleet import Fleet
from benchmarks.origin import Origin


class Mode(StrEnum):
    """What a proxy is asked to do."""

    FORWARD = "forward only"
    MIRROR = "with mirror"


@dataclass(frozen=True, slots=True)
class Upstreams:
    """The two origins: one process each, the same answer."""

    primary: Origin
    candidate: Origin


@dataclass(frozen=True, slots=True)
class Target:
    """A running peer.

    Attributes:
        peer: its name, as the tables show it.
        mode: what it was told to do.
        url: where the load goes, without a path.
        root_pid: the first process of its tree; None for the upstream itself (`direct`).
        worker_pid: the process that carries the requests.
        pairs: folder of its recorded pairs, where it writes any.
    """

    peer: str
    mode: Mode
    url: str
    root_pid: int | None = None
    worker_pid: int | None = None
    pairs: Path | None = None


class Peer(Protocol):
    """A proxy that can be measured.

    Attributes:
        name: as the tables show it.
    """

    name: str

    def missing(self) -> str | None:
        """Return None when it can run here, else what is missing and how to get it."""

    def version(self) -> str:
        """Return the version that the program states."""

    def start(self, fleet: Fleet, mode: Mode, upstreams: Upstreams) -> Target:
        """Start it with one worker and wait until it serves."""
