"""Taking over a dead worker's counters: what it had decided and not settled gets its reason.

It decides where everything belongs that a worker had in hand when it was killed. Each step is one
store, or is computed from what the page says then; so a successor that is killed in the middle of it
leaves a page that the next one settles just the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from proxy.state.stats_file import StatsPage
from proxy.state.stats_page import UNROUTED, Lost, Outcome, Skip


def adopt(page: StatsPage) -> int:
    """Settle what a dead worker had in flight; return the pairs lost. Harmless when repeated.

    A pair that was decided and neither journaled nor lost was in the dead worker's memory: it is
    counted as lost to `worker_died`, as is a copy that was decided and neither sent nor skipped. A
    request that was routed and not served ended `reset`; the call of a candidate that nobody saw
    ending is `cancelled`, which speaks against no candidate. Gauges start from zero. What is no longer
    configured is settled, too; of another version, as far as it has the cells.
    """
    lost = 0
    for family, values, cell in page.layout.items():
        if family.is_gauge:
            page.cells[cell] = 0
        elif family.name == "received":
            routed = sum(page.cells[c] for f, _, c in page.layout.items() if f.name == "routed")
            known = routed + _sum(page, "unrouted", (), UNROUTED)
            _settle(page, page.cells[cell] - known, "unrouted", "worker_died")
        elif family.name == "routed":
            known = _sum(page, "served", values, Outcome)
            _settle(page, page.cells[cell] - known, "served", *values, str(Outcome.RESET))
        elif family.name == "mirror_decided":
            known = _count(page, "mirror_sent", *values)
            known += _sum(page, "mirror_skipped", values, Skip)
            missing = page.cells[cell] - known
            _settle(page, missing, "mirror_skipped", *values, str(Skip.WORKER_DIED))
        elif family.name == "pairs_decided":
            known = _sum(page, "leg", values, Outcome)
            _settle(page, page.cells[cell] - known, "leg", *values, str(Outcome.CANCELLED))
            known = _count(page, "pairs_journaled", *values)
            known += _sum(page, "pairs_lost", values, Lost)
            missing = page.cells[cell] - known
            lost += _settle(page, missing, "pairs_lost", *values, str(Lost.WORKER_DIED))
    return lost


def settle_flush(page: StatsPage, *, is_written: bool) -> None:
    """Settle the flush that a dead worker was in: its pairs are in the journal, or they are not.

    A worker notes what `pairs_journaled` will be (`pairs_flushing`), writes, then takes it over, one
    candidate after the other. Until it has counted the segment, too, this may be repeated.
    """
    for family, values, cell in page.layout.items():
        if family.name == "pairs_flushing":
            journaled = page.layout.get("pairs_journaled", *values)
            if journaled is None:
                continue
            if is_written:
                page.cells[journaled] = page.cells[cell]
            else:
                page.cells[cell] = page.cells[journaled]


def _sum(page: StatsPage, name: str, values: tuple[str, ...], reasons: Iterable[str]) -> int:
    return sum(_count(page, name, *values, str(reason)) for reason in reasons)


def _count(page: StatsPage, *key: str) -> int:
    """Return a counter; what the version that began the page did not have is 0."""
    cell = page.layout.get(*key)
    return 0 if cell is None else page.cells[cell]


def _settle(page: StatsPage, missing: int, *key: str) -> int:
    """Count what is missing under `key`; return how much it was.

    Less than nothing is a fault in the books: it stays, for the ledger to tell, because a worker that
    could not start for it would do more harm.
    """
    cell = page.layout.get(*key)
    if missing > 0 and cell is not None:
        page.cells[cell] += missing
    return max(0, missing)
