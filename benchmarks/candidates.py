"""Candidates with every fault, one primary, and instances of the proxy before them."""

from __future__ import annotations

import http
import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.dialogue import Dialogue
from benchmarks.fleet import BenchmarkError, Fleet, free_port
from benchmarks.origin import Origin, own_origin, start_origin
from benchmarks.paced import RATE_PER_S
from benchmarks.peers import Mode, Setup, Target, Understudy, Upstreams
from benchmarks.programs.faulty import Fault
from proxy.telemetry import monotonic_s

OFF = "mirror off"
#: Calls to a candidate at a time, and seconds until one of them ends.
MAX_MIRRORS = 64
TIMEOUT_S = 1.0
#: Requests per second that the overloaded candidate can answer.
ANSWERED_PER_S = RATE_PER_S / 10
#: How long an order may take, and when a refused one is given again.
_ORDER_S, _AGAIN_S = 10.0, 0.1
#: What a report says of the candidates.
CONDITIONS = (
    f"candidates: at most {MAX_MIRRORS} calls at a time, {TIMEOUT_S:g} s each",
    "endless, huge and compressed answers share 1 Gbit/s",
    f"overloaded: it answers {ANSWERED_PER_S:,.0f} requests/s",
)


@dataclass(frozen=True, slots=True)
class Candidates:
    """What all instances share: the processes, the primary, and the port of each candidate."""

    fleet: Fleet
    primary: Origin
    ports: dict[Fault, int]

    def start_proxy(self, case: str, label: str) -> Target:
        """Start an instance for one case, of a name of its own."""
        mode = Mode.FORWARD if case == OFF else Mode.MIRROR
        port = self.ports[Fault.HEALTHY if case == OFF else Fault(case)]
        setup = Setup(
            label=label.replace("/", "-").replace(" ", "-"),
            candidate_timeout_s=TIMEOUT_S,
            max_mirrors=MAX_MIRRORS,
        )
        upstreams = Upstreams(self.primary, own_origin(port, "faulty"))
        return Understudy().start(self.fleet, mode, upstreams, setup)


def start(fleet: Fleet) -> Candidates:
    """Start the primary and the candidates."""
    primary = start_origin(fleet, "primary")
    ports = {fault: free_port() for fault in Fault}
    faulty = Dialogue(fleet, "faulty", {"ports": ports, "rate_per_s": ANSWERED_PER_S})
    for fault in Fault:
        if fault is not Fault.REFUSES:
            fleet.wait_for_port(faulty.child, ports[fault])
    return Candidates(fleet, primary, ports)


def chosen(asked: Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
    """Return the cases that are asked for, in the order of `Fault`; else the default ones.

    Raises:
        BenchmarkError: there is none of such a name.
    """
    unknown = set(asked) - set(Fault)
    if unknown:
        raise BenchmarkError(f"no candidate {', '.join(unknown)}; there are: {', '.join(Fault)}")
    return tuple(each for each in Fault if each in (asked or default))


@dataclass(frozen=True, slots=True)
class Copies:
    """Copies to the candidate of an instance, since it started."""

    decided: int = 0
    sent: int = 0

    def since(self, before: Copies) -> Copies:
        """Return what came after `before`."""
        return Copies(self.decided - before.decided, self.sent - before.sent)


def share_sent(parts: Sequence[Copies]) -> float | None:
    """Return the share of the decided copies that were sent; None where none were decided."""
    decided = sum(part.decided for part in parts)
    return sum(part.sent for part in parts) / decided if decided else None


def copies(target: Target) -> Copies:
    """Return what the status of an instance says."""
    with urllib.request.urlopen(f"{target.admin}/api/v1/status", timeout=10) as answer:
        found = json.load(answer)["routes"][0]["candidates"]
    return Copies(found[0]["mirror_decided"], found[0]["mirror_sent"]) if found else Copies()


def order(target: Target, what: str) -> None:
    """Kill or revive the mirror of an instance; it is in effect when this returns.

    Raises:
        BenchmarkError: control refuses, and not because it has started or stood still a moment ago.
    """
    give_up_s = monotonic_s() + _ORDER_S
    body = json.dumps({"reason": "benchmark"}).encode()
    headers = {"Content-Type": "application/json"}
    asked = urllib.request.Request(f"{target.admin}/api/v1/{what}", body, headers)
    while True:
        try:
            with urllib.request.urlopen(asked, timeout=_ORDER_S) as answer:
                answer.read()
                return
        except urllib.error.HTTPError as error:
            told = error.read().decode(errors="replace")
            if error.code != http.HTTPStatus.SERVICE_UNAVAILABLE or monotonic_s() > give_up_s:
                raise BenchmarkError(f"{what} is answered {error.code}: {told}") from error
        time.sleep(_AGAIN_S)
