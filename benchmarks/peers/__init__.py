"""The proxies that Understudy is measured against, and Understudy itself; one module each."""

from __future__ import annotations

from benchmarks.peers.base import Mode, Peer, Target, Upstreams
from benchmarks.peers.envoy import Envoy
from benchmarks.peers.nginx import Nginx
from benchmarks.peers.understudy import Understudy

#: Every peer, in the order of the tables; Understudy first.
PEERS: tuple[Peer, ...] = (Understudy(), Envoy(), Nginx())

__all__ = ["PEERS", "Envoy", "Mode", "Nginx", "Peer", "Target", "Understudy", "Upstreams"]
