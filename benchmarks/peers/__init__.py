"""The proxies that Understudy is measured against, and Understudy itself; one module each."""

from __future__ import annotations

from benchmarks.peers.base import Mode, Peer, Setup, Target, Upstreams
from benchmarks.peers.envoy import Envoy
from benchmarks.peers.litellm import LiteLLM
from benchmarks.peers.nginx import Nginx
from benchmarks.peers.starlette import StarletteHttpx
from benchmarks.peers.understudy import Understudy

#: Every general proxy, in the order of the tables; Understudy first.
PEERS: tuple[Peer, ...] = (Understudy(), Envoy(), Nginx(), StarletteHttpx())
#: Those that are asked for chat completions.
CHAT_PEERS: tuple[Peer, ...] = (Understudy(), Envoy(), LiteLLM())

__all__ = [
    "CHAT_PEERS", "PEERS", "Envoy", "LiteLLM", "Mode", "Nginx", "Peer", "Setup", "StarletteHttpx",
    "Target", "Understudy", "Upstreams",
]  # fmt: skip
