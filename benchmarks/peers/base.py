"""What a peer is: something that can be started in front of the same upstreams as the others."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from benchmarks.fleet import Fleet
from benchmarks.load import PATH_PREFIX
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
        worker_pids: the processes that carry the requests.
        pairs: folder of its recorded pairs, where it writes any.
        workers: how many it was started with; Envoy's are threads of one process.
        admin: address of its admin API, where it has one of ours.
    """

    peer: str
    mode: Mode
    url: str
    root_pid: int | None = None
    worker_pids: tuple[int, ...] = ()
    pairs: Path | None = None
    workers: int = 1
    admin: str = ""


@dataclass(frozen=True, slots=True)
class Setup:
    """How a peer is started; the defaults are those of most benchmarks.

    Attributes:
        label: tells several instances of a peer in one fleet apart.
        workers: processes, or threads in Envoy, that carry requests.
        path_prefix: what its one route takes.
        protocol: how Understudy finds predictions in answers.
        timeout_s: how long a call may take, to the primary and to the candidate.
        candidate_timeout_s: the same for the candidate alone, where it differs.
        max_mirrors: copies that Understudy has under way at once.
        mirror_lag: what Understudy calls overload, in which it makes no copies: its default where empty; `0`:
            nothing, because all copies are to be measured.
        fsync: when Understudy syncs its journal.
        recorders: of Understudy.
        kafka: address of the broker that Understudy ships to; empty for the local log.
        topic_prefix: of its topics there.
        env: added to the environment.
    """

    label: str = ""
    workers: int = 1
    path_prefix: str = PATH_PREFIX
    protocol: str = "json"
    timeout_s: float = 30.0
    candidate_timeout_s: float = 0.0
    max_mirrors: int = 1024
    mirror_lag: str = ""
    fsync: str = "none"
    recorders: int = 1
    kafka: str = ""
    topic_prefix: str = "shadow"
    env: dict[str, str] = field(default_factory=dict)

    def name(self, peer: str, mode: Mode) -> str:
        """Return what files and processes of the instance are called."""
        label = f"-{self.label}" if self.label else ""
        return f"{peer}-{mode.name.lower()}{label}"


class Peer(Protocol):
    """A proxy that can be measured.

    Attributes:
        name: as the tables show it.
        is_slow: it takes part at one size and one concurrency only, so that a run stays short.
    """

    name: str

    is_slow: bool

    def missing(self) -> str | None:
        """Return None when it can run here, else what is missing and how to get it.

        A peer with a virtual environment of its own makes it here, on first use.
        """

    def version(self) -> str:
        """Return the version that the program states."""

    def start(self, fleet: Fleet, mode: Mode, upstreams: Upstreams, setup: Setup) -> Target:
        """Start it as `setup` says and wait until it serves."""
