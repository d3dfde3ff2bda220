"""The ledger's lines, its verdict, and what each fault in the books is called."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.control.ledger import Imbalance, Verdict, imbalances, ledger, retained, verdict
from proxy.control.metrics import exposition
from proxy.control.snapshot import Observer
from proxy.journal.writer import JournalWriter
from proxy.state.stats_file import Layout, open_stats
from proxy.telemetry import wall_ns
from tests.support.admin import Instance

GIB = 1 << 30
BALANCED = (
    ("received", 12), ("unrouted", 2, "bad_request"), ("routed", 10, "iris"),
    ("served", 9, "iris", "ok"), ("served", 1, "iris", "timeout"),
    ("mirror_decided", 8, "iris", "v2"), ("mirror_sent", 7, "iris", "v2"),
    ("mirror_skipped", 1, "iris", "v2", "rate"),
    ("pairs_decided", 8, "iris", "v2"), ("pairs_journaled", 6, "iris", "v2"),
    ("pairs_lost", 2, "iris", "v2", "journal_error"),
)  # fmt: skip


@pytest.fixture
def books(instance: Instance) -> Instance:
    """An instance whose books balance, three of its pairs still in the journal."""
    for name, amount, *labels in BALANCED:
        instance.stats.add(amount, name, *labels)
    instance.write_journal(journaled_read=3, acknowledged=2, **{"dropped.too_large": 1})
    journal(instance, 3)
    instance.stats.beat(pid=os.getpid(), now_ms=wall_ns() // 1_000_000)
    return instance


def journal(instance: Instance, pairs: int) -> None:
    """Append pairs to the journal of worker 0, behind what was shipped."""
    directory = instance.state_dir / "journal" / "worker-0"
    writer = JournalWriter(directory, disk_budget_bytes=GIB)
    for number in range(pairs):
        writer.append(b'{"seq":%d}' % number)
    writer.close()


def test_books_that_balance_say_so_in_every_line(books: Instance) -> None:
    """Pairs that wait in the journal are counted there, not taken for the rest."""
    snapshot = books.observer.snapshot()
    assert [account.open for account in ledger(snapshot)] == [0] * 5
    assert ledger(snapshot)[-1].parts == {
        "acknowledged": 2, "dropped too_large": 1, "retained": 3,
    }  # fmt: skip
    assert imbalances(snapshot, quiet=True) == []
    assert verdict(snapshot) is Verdict.BALANCED


@pytest.mark.parametrize(("name", "amount", "labels"), [(n, a, x) for n, a, *x in BALANCED])
def test_no_counter_may_be_off_by_one(
    books: Instance, name: str, amount: int, labels: list[str]
) -> None:
    """One too many and one too few are found, in a line that counts it."""
    for change in (1, -1):
        books.stats.cells[books.stats.layout.index(name, *labels)] = amount + change
        found = imbalances(books.observer.snapshot(), quiet=True)
        assert found, (name, change)
        assert {abs(line.missing) for line in found} == {1}


def test_what_was_counted_twice_is_told_while_others_are_under_way(books: Instance) -> None:
    """With the line, whose it is, and the numbers."""
    books.stats.add(3, "mirror_sent", "iris", "v2")
    books.stats.add(5, "routed", "iris")
    books.stats.add(5, "received")
    snapshot = books.observer.snapshot()
    assert imbalances(snapshot) == [Imbalance("mirrors decided", "iris/v2", 8, 11, -3)]
    assert verdict(snapshot) is Verdict.UNBALANCED
    assert b"understudy_ledger_unbalanced_lines 1.0" in exposition(books.observer, "")[0]


def test_two_faults_that_cancel_out_are_found(books: Instance) -> None:
    """One candidate has a pair too many, the other one too few."""
    books.stats.add(1, "pairs_journaled", "iris", "v2")
    books.stats.add(1, "pairs_decided", "iris", "v3")
    found = imbalances(books.observer.snapshot(), quiet=True)
    assert {(line.scope, line.missing) for line in found} >= {("iris/v2", -1), ("iris/v3", 1)}


def test_pairs_that_vanished_from_the_journal_are_missing(books: Instance) -> None:
    """The recorder and the journal together know less than the workers have written."""
    (segment,) = (books.state_dir / "journal" / "worker-0").glob("*.zst")
    segment.unlink()
    (line,) = imbalances(books.observer.snapshot(), quiet=True)
    assert (line.account, line.total, line.settled, line.missing) == ("pairs journaled", 6, 3, 3)


def test_what_is_missing_is_told_when_nothing_has_moved_for_a_while(books: Instance) -> None:
    """Until then it may be under way, and as long as a gauge says that something is."""
    books.stats.add(1, "pairs_decided", "iris", "v2")
    snapshot = books.observer.snapshot()
    assert verdict(snapshot) is Verdict.UNDER_WAY
    still = replace(snapshot, still_s=2.5)
    assert verdict(still) is Verdict.UNBALANCED
    books.stats.add(1, "backend_in_flight", "iris-v2")
    busy = replace(books.observer.snapshot(), still_s=2.5)
    assert verdict(busy) is Verdict.UNDER_WAY


def test_a_request_may_wait_for_its_client_as_long_as_that_is_there(books: Instance) -> None:
    """One on each open connection; no call is under way for it yet."""
    for name, *labels in (("received",), ("routed", "iris"), ("connections_open",)):
        books.stats.add(1, name, *labels)
    assert verdict(replace(books.observer.snapshot(), still_s=2.5)) is Verdict.UNDER_WAY
    books.stats.cells[books.stats.layout.index("connections_open")] = 0
    still = replace(books.observer.snapshot(), still_s=2.5)
    assert imbalances(still) == [Imbalance("requests routed", "iris", 11, 10, 1)]


def test_books_that_move_are_not_still(books: Instance) -> None:
    """Control looks each second; between two looks nothing is known."""
    assert books.observer.snapshot().still_s == 0
    books.observer.sample()
    assert books.observer.snapshot().still_s > 0
    books.stats.add(1, "served", "iris", "ok")
    assert books.observer.snapshot().still_s == 0


def test_the_books_of_a_dead_worker_wait_for_its_successor(books: Instance) -> None:
    """Nothing is missing until that has settled them."""
    books.stats.add(1, "pairs_decided", "iris", "v2")
    books.stats.open_books()
    books.stats.beat(pid=os.getpid(), now_ms=wall_ns() // 1_000_000 - 60_000)
    snapshot = replace(books.observer.snapshot(), still_s=60.0)
    assert snapshot.unsettled == 1
    assert verdict(snapshot) is Verdict.UNDER_WAY


def test_a_backlog_too_large_to_count_is_no_fault(books: Instance) -> None:
    """Then only what was counted twice can be told."""
    snapshot = books.observer.snapshot()
    uncounted = replace(snapshot, journals=(replace(snapshot.journals[0], retained=None),))
    assert retained(uncounted) is None
    assert imbalances(uncounted, quiet=True) == []
    assert b"understudy_pairs_retained 3.0" in exposition(books.observer, "")[0]


def test_pairs_that_an_older_config_journaled_stay_in_the_ledger(instance: Instance) -> None:
    """Its counters stay on the workers' pages; the recorder has read them all the same."""
    old = replace(instance.config, routes=(replace(instance.config.routes[0], name="rose"),))
    page = open_stats(instance.state_dir, 1, Layout(old))
    page.add(7, "pairs_journaled", "rose", "v3")
    instance.stats.add(3, "pairs_journaled", "iris", "v2")
    instance.write_journal(journaled_read=10, acknowledged=10)
    observer = Observer(instance.config)
    account = ledger(observer.snapshot())[-1]
    assert (account.total, account.open) == (10, 0)
    observer.close()
    page.close()


def test_nothing_there_balances(instance: Instance, tmp_path: Path) -> None:
    """A first start has no journal and no page of its own."""
    assert verdict(instance.observer.snapshot()) is Verdict.BALANCED
    assert not (tmp_path / "journal").exists()
