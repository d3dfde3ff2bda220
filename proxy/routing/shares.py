"""Which of the connections that wait are one worker's to accept. Pure: loads are arguments.

Workers share one listening socket, and the kernel wakes them all: whoever is first gets the connection.
A load is the number of connections that a worker has open. Nobody is told what to take: each worker
goes by the loads as it sees them, and what these rules leave to others never adds up to all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

#: A worker may be ahead of the others by its load over this: where many connections come and go, to
#: be exact would have workers wait for each other all the time.
TOLERANCE: Final = 8


def is_level(load: int, others: Sequence[int], ahead: int = 0) -> bool:
    """Tell whether a worker may take the next connection, whoever else could.

    Args:
        load: of this worker.
        others: of those who can take it, too; empty: nobody can.
        ahead: connections that it may have more than the tolerance.
    """
    return not others or load - load // TOLERANCE <= min(others) + ahead


def part_of(waiting: int, load: int, others: Sequence[int]) -> int:
    """Return how many of the connections that wait a worker takes so that all are level afterwards.

    It is rounded up, so that nothing is left over; whoever has least takes one at least.

    Args:
        waiting: connections in the queue.
        load: of this worker; what it may be ahead is taken off it.
        others: of those who can take them, too.
    """
    own = load - load // TOLERANCE
    filled, size = waiting, 0
    # As water fills vessels: those with the lowest loads get some, up to the level of the next.
    loads = sorted((own, *others))
    for size, each in enumerate(loads, 1):
        filled += each
        if size == len(loads) or filled <= loads[size] * size:
            break
    return max(0, -(-(filled - own * size) // size))
