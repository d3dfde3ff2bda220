"""The ledger of a worker, checked to the last request: nothing is counted twice or forgotten."""

from __future__ import annotations

from proxy.state.stats_page import Lost, Outcome, Skip
from tests.support.dataplane import Plane


def check_ledger(plane: Plane, candidate: str = "v2", *, in_flight: int = 0) -> None:
    """Check that every request, mirror, leg and pair of the route `iris` is accounted for.

    Args:
        plane: with its journal flushed (`plane.pairs` has seen what was due).
        candidate: the one whose counters are summed.
        in_flight: exchanges that are known to be under way.
    """
    names = ("iris", candidate)
    served = sum(plane.count("served", "iris", outcome) for outcome in Outcome)
    assert plane.count("routed", "iris") == served + in_flight
    skipped = sum(plane.count("mirror_skipped", *names, reason) for reason in Skip)
    assert plane.count("mirror_decided", *names) == plane.count("mirror_sent", *names) + skipped
    lost = sum(plane.count("pairs_lost", *names, reason) for reason in Lost)
    decided = plane.count("pairs_decided", *names)
    assert decided == plane.count("pairs_journaled", *names) + lost + in_flight
    ended = sum(plane.count("leg", *names, outcome) for outcome in Outcome)
    assert decided == ended + in_flight
