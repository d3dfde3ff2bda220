"""The recorder's loop: read the journals, expand, ship, commit; nothing is held but two windows.

It decides the order of work and when to stop. What a pair is (`expansion`), where it goes (`sink`)
and what has been read (`proxy.journal.reader`) are decided elsewhere.

While one window is on its way to the sink, the next is expanded: the waiting for acknowledgements
costs no throughput. Windows are delivered one after the other, in the order they were read. While a
journal is far behind, every second window is of its newest pairs, as long as there are any: the
evidence of now gets up to half of what the recorder can do, the backlog the rest.

A position is committed only after the sink has acknowledged everything before it, and with it the
accounts that hold there. So a recorder killed at any moment counts nothing twice and loses nothing;
it may send some pairs twice, under the same `pair_id`.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from proxy.config.resolved import Config
from proxy.errors import StateError
from proxy.journal.cursor import Batch
from proxy.journal.reader import JournalReader
from proxy.journal.segments import Position, load_dropped
from proxy.recorder import statistics
from proxy.recorder.ending import work_to_the_end
from proxy.recorder.expansion import Expansion, PairMaker
from proxy.recorder.priority import Punctuality
from proxy.recorder.sink import Delivery, Drop, Sink
from proxy.recorder.spans import SpanSink
from proxy.state.stats_file import segment_pairs
from proxy.telemetry import monotonic_s, wall_ns

if TYPE_CHECKING:  # see `proxy.recorder.expansion`
    from proxy.recorder.evidence import Gates, JournalEvidence
    from proxy.recorder.label_join import LabelJoin

#: Uncompressed bytes of journal lines expanded at once: what bounds the recorder's memory. A round
#: through the client costs as much as 20 pairs, and longer batches are compressed faster: 768 KiB make
#: each pair of 4 KB 3 us more expensive and the recorder 6 MB smaller. Twice as much is no cheaper:
#: four partitions need a second batch each then, which waits for the first.
WINDOW_BYTES = 1536 * 1024
#: Commit at the latest after this much, and after so long: what a crash may send twice. A commit
#: creates and syncs a file, which costs as much as recording ten pairs.
COMMIT_BYTES = 4 * WINDOW_BYTES
COMMIT_S = 0.5

#: Wait between looks at the journals: doubled from the first to the second while nothing comes. A
#: pass costs 0.3 ms, however few pairs it finds.
POLL_S = 0.1
IDLE_POLL_S = 0.4

#: A worker's journal can appear at any time; looked for this often.
_DISCOVER_S = 1.0
_REPORT_S = 1.0

# Lines expanded before signals and sockets get a turn: about 5 ms.
_SLICE_LINES = 128

_WORKER = re.compile(r"worker-(\d+)")


@dataclass(slots=True)
class _Tail:
    """One worker's journal.

    Attributes:
        delivered: where everything is delivered; not committed yet.
        ahead: of later segments, up to where they are delivered, too.
        counts: what has come to the accounts since the last commit.
        uncommitted_bytes: the lines in between.
        evidence: what its delivered pairs count for ramps; None where there is no ramp.
        reached_ms: all that was written before this is delivered; wall clock, 0: not known.
        committed_ms: the same of what is committed.
    """

    reader: JournalReader
    directory: Path
    delivered: Position
    ahead: dict[int, Position]
    counts: Counter[str] = field(default_factory=Counter)
    uncommitted_bytes: int = 0
    evidence: JournalEvidence | None = None
    reached_ms: int = 0
    committed_ms: int = 0

    def take(self, batch: Batch) -> None:
        """Take note that `batch` is delivered."""
        position = batch.position
        self.uncommitted_bytes += batch.content_bytes
        if batch.is_ahead:
            self.ahead[position.segment] = position
        else:
            self.delivered = position
            self.ahead = {n: to for n, to in self.ahead.items() if n > position.segment}


@dataclass(slots=True)
class _Found:
    """What one pass over the journals found.

    Attributes:
        has_more: a window was full.
        reached_ms: all that was written to the latest journal before this has been read; 0: not all.
    """

    lines: int = 0
    has_more: bool = False
    reached_ms: int = 0


class Recorder:
    """Ships the journals of the workers `w` with `w % recorders == index`.

    Args:
        config: the current revision.
        index: of this recorder.
        sink: where pairs go.
        spans: where spans go; None where none are exported.
    """

    def __init__(
        self, config: Config, index: int, sink: Sink, spans: SpanSink | None = None
    ) -> None:
        self._config = config
        self._index = index
        self._sink = sink
        self._state_dir = Path(config.state_dir)
        self._spans = spans
        self._gates = _gates(config, index)
        self._join = None if self._gates is None else self._gates.join
        self._maker = PairMaker(config, spans, self._gates)
        self._tails: dict[int, _Tail] = {}
        self._discovered_s = self._committed_s = -_DISCOVER_S
        self._journal_errors = 0
        self._shipped = 0
        self._message = ""
        self._punctuality = Punctuality()

    async def run(self, stop: asyncio.Event, leave: asyncio.Event) -> None:
        """Ship until `stop` is set, then what the workers have flushed, to its end.

        It goes no further when `leave` is set, or when nothing was acknowledged for
        `limits.recorders_stop_s`. Cancelled, it lets the sink and the journals go and leaves uncommitted
        pairs for the next recorder.
        """
        patience_s = self._config.limits.recorders_stop_s
        try:
            async with asyncio.TaskGroup() as group:
                reporter = group.create_task(self._report(stop))
                await work_to_the_end(
                    self._ship(stop),
                    stop,
                    leave,
                    moved=lambda: self._shipped,
                    patience_s=patience_s,
                )
                reporter.cancel()
        finally:
            self._commit_all()
            await self._sink.close()
            if self._spans is not None:
                self._spans.close()
            self._store_statistics()
            for tail in self._tails.values():
                tail.reader.close()

    @property
    def labels(self) -> LabelJoin | None:
        """What takes the labels that are shipped; None where no ramp judges who is right."""
        return self._join

    def statistics(self) -> statistics.RecorderStatistics:
        """Return a snapshot."""
        tails = list(self._tails.values())
        exported, dropped = self._spans.statistics() if self._spans is not None else (0, {})
        reached_ms = min((tail.reached_ms for tail in tails), default=0)
        lag_s = max(0.0, wall_ns() / 1e9 - reached_ms / 1000) if reached_ms else None
        return statistics.RecorderStatistics(
            recorder=self._index,
            sink=self._sink.name,
            status=self._punctuality.judge(self._sink.status, lag_s),
            accounts=statistics.total([tail.reader.accounts for tail in tails]),
            journal_full=sum(load_dropped(tail.directory).pairs for tail in tails),
            lag_s=lag_s,
            backlog_bytes=sum(tail.reader.statistics().backlog_bytes for tail in tails),
            journals=len(tails),
            journal_errors=self._journal_errors,
            message=self._message,
            sink_counters=self._sink.statistics(),
            exported_spans=exported,
            dropped_spans=dropped,
        )

    async def _ship(self, stop: asyncio.Event) -> None:
        """Ship until stopped, and then until the journals are empty."""
        delay_s = POLL_S
        while True:
            self._discover(now_s=monotonic_s(), at_once=stop.is_set())
            lines = await self._catch_up()
            if not lines or monotonic_s() - self._committed_s >= COMMIT_S:
                self._commit_all()
            if stop.is_set():
                if not lines:
                    return
                continue
            if not lines:
                await self._sink.prepare()
            delay_s = POLL_S if lines else min(2 * delay_s, IDLE_POLL_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await stop.wait()

    async def _catch_up(self) -> int:
        """Ship what the journals hold now, and return how many lines it was."""
        lines = 0
        found = _Found(has_more=True)
        # Cancelled, it takes the delivery that is under way with it.
        async with asyncio.TaskGroup() as group:
            delivery: asyncio.Task[None] | None = None
            while found.has_more:
                found = _Found()
                for tail in self._tails.values():
                    for batch in self._windows(tail, found):
                        reached_ms = found.reached_ms
                        expansion = await self._expand(batch)
                        expansion.reached_ms = max(reached_ms, expansion.reached_ms)
                        if delivery is not None:
                            await delivery
                        delivery = group.create_task(self._deliver(tail, batch, expansion))
                lines += found.lines
        return lines

    def _windows(self, tail: _Tail, found: _Found) -> Iterator[Batch]:
        """Yield the next window of a journal and, while it is far behind, the next of its newest."""
        now_ms = wall_ns() // 1_000_000
        try:
            batch = tail.reader.read(WINDOW_BYTES)
            is_full = batch.content_bytes >= WINDOW_BYTES
            found.has_more |= is_full
            found.reached_ms = 0 if is_full else now_ms
            if batch.position == tail.delivered:
                tail.reached_ms = max(tail.reached_ms, found.reached_ms)
            else:
                found.lines += len(batch.lines)
                yield batch
            newest = tail.reader.read_newest(WINDOW_BYTES) if is_full else None
            if newest is not None and (newest.lines or newest.skipped_bytes):
                found.lines += len(newest.lines)
                yield newest
        except OSError as exc:
            self._note(f"cannot read {tail.directory}: {exc}")

    async def _expand(self, batch: Batch) -> Expansion:
        """Expand a window, giving the loop a turn now and then."""
        expansion = self._maker.begin()
        for start in range(0, len(batch.lines), _SLICE_LINES):
            self._maker.expand(batch.lines[start : start + _SLICE_LINES], expansion)
            await asyncio.sleep(0)
        return expansion

    async def _deliver(self, tail: _Tail, batch: Batch, expansion: Expansion) -> None:
        """Ship a window and count it; commit when it is much."""
        delivery = await self._sink.write(expansion.pairs) if expansion.pairs else Delivery(0)
        if expansion.rejected:
            self._message = expansion.error
        counts = tail.counts
        self._shipped += len(batch.lines)
        counts[statistics.READ] += len(batch.lines)
        counts[statistics.ACKNOWLEDGED] += delivery.acknowledged
        counts[statistics.UNKNOWN_CONFIG] += expansion.unknown_config
        counts[statistics.SKIPPED_BYTES] += batch.skipped_bytes
        if batch.damaged_pairs:
            counts[f"{statistics.DROPPED}{Drop.DAMAGED}"] += batch.damaged_pairs
        for reason, count in expansion.rejected.items():
            counts[f"{statistics.DROPPED}{Drop.REJECTED}_{reason}"] += count
        for drop, count in delivery.dropped.items():
            counts[f"{statistics.DROPPED}{drop}"] += count
        tail.take(batch)
        if tail.evidence is not None and expansion.evidence is not None:
            tail.evidence.add(expansion.evidence.parts())
            if self._join is not None:
                self._join.offer(expansion.evidence.waiting, tail.evidence)
        if not batch.is_ahead:
            # A pair is written after it began, so what was written before that lies behind it.
            tail.reached_ms = max(tail.reached_ms, expansion.reached_ms, expansion.newest_ms)
        if tail.uncommitted_bytes >= COMMIT_BYTES:
            self._commit(tail)

    def _commit_all(self) -> None:
        """Make durable what has been delivered of every journal, and what labels say of it."""
        if self._join is not None:
            self._join.settle()
        for tail in self._tails.values():
            self._commit(tail)
        self._committed_s = monotonic_s()

    def _commit(self, tail: _Tail) -> None:
        reader = tail.reader
        is_changed = tail.evidence is not None and tail.evidence.is_changed
        if (tail.delivered, tail.ahead) == (reader.committed, reader.ahead) and not is_changed:
            tail.committed_ms = tail.reached_ms
            return
        notes = None
        if tail.evidence is not None and is_changed:
            notes = tail.evidence.as_notes()
        accounts = Counter(reader.accounts) + tail.counts
        try:
            reader.commit(tail.delivered, accounts, tail.ahead, notes)
        except OSError as exc:
            # The next commit covers this one; a crash before it sends these pairs again.
            self._note(f"cannot commit in {tail.directory}: {exc}")
            return
        tail.counts.clear()
        tail.uncommitted_bytes = 0
        if notes is not None and tail.evidence is not None:
            tail.evidence.is_changed = False
        tail.committed_ms = tail.reached_ms

    def _discover(self, *, now_s: float, at_once: bool) -> None:
        """Open the journals that have appeared; looks each second, and `at_once` when stopping."""
        if now_s - self._discovered_s < _DISCOVER_S and not at_once:
            return
        self._discovered_s = now_s
        for directory in (self._state_dir / "journal").glob("worker-*"):
            match = _WORKER.fullmatch(directory.name)
            if not match or int(match[1]) in self._tails:
                continue
            if int(match[1]) % self._config.recorders != self._index:
                continue
            pairs_of = partial(segment_pairs, self._state_dir, int(match[1]))
            try:
                reader = JournalReader(directory, pairs_of=pairs_of)
                tail = _Tail(reader, directory, reader.committed, dict(reader.ahead))
                if self._gates is not None:
                    tail.evidence = self._gates.journal(reader.notes)
                self._tails[int(match[1])] = tail
            except StateError as exc:
                self._note(str(exc))

    def _note(self, message: str) -> None:
        self._journal_errors += 1
        self._message = message

    async def _report(self, stop: asyncio.Event) -> None:
        """Write the statistics each second; stop when the launcher is gone."""
        parent = os.getppid()
        while True:
            self._store_statistics()
            if os.getppid() != parent:
                stop.set()
            await asyncio.sleep(_REPORT_S)

    def _store_statistics(self) -> None:
        try:
            statistics.store(self._state_dir, self.statistics())
            if self._gates is not None:
                parts = [note for tail in self._tails.values() for note in tail.reader.notes or ()]
                reached_ms = min((tail.committed_ms for tail in self._tails.values()), default=0)
                self._gates.publish(self._state_dir, self._index, parts, reached_ms or None)
        except OSError as exc:
            self._note(f"cannot write the statistics: {exc}")


def _gates(config: Config, index: int) -> Gates | None:
    """Return what counts for ramps; None, without the import of numpy, where there is no ramp."""
    if all(route.ramp is None for route in config.routes):
        return None
    found: Gates = importlib.import_module("proxy.recorder.evidence").Gates(config)
    found.recall(Path(config.state_dir), index)
    return found
