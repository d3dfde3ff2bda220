"""Spans to an OpenTelemetry collector, by a thread of its own that nothing ever waits for.

The recorder's loop puts records into a bounded queue; the thread makes spans of them and sends them
by OTLP over HTTP. A collector that is down or hangs costs the spans that the queue cannot hold, which
are counted; shipping goes on. Spans have no journal: what is dropped is gone.

Imported only where `telemetry.otlp` asks for it: it needs the extra `understudy[otel]`.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind as OtelKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from proxy import __version__
from proxy.config.resolved import Config
from proxy.recorder.spans import Extract, Sampler, SpanDraft, SpanDrop, SpanKind, SpanMaker

#: Records that wait; about 1 KB each.
MAX_QUEUED: Final = 2048
#: Spans in one call, as in OpenTelemetry's own batches, and how long those that wait for a full one
#: wait for the next record.
MAX_BATCH: Final = 512
GAP_S: Final = 0.05
#: How long the thread sleeps when there is nothing; what a stop may have to wait for.
_IDLE_S: Final = 0.1
#: For one call, its retries included. A hung collector holds the thread for so long.
TIMEOUT_S: Final = 10.0
#: What a stop gives the thread to send what it has.
CLOSE_S: Final = 0.3

_PATH: Final = "/v1/traces"
_SCOPE: Final = InstrumentationScope("understudy", __version__)
_KINDS: Final = {SpanKind.SERVER: OtelKind.SERVER, SpanKind.CLIENT: OtelKind.CLIENT}


class SpanExport:
    """Exports the spans of records; `offer` never waits."""

    def __init__(self, config: Config) -> None:
        otlp = config.telemetry.otlp
        assert otlp is not None
        self._sampler = Sampler(otlp)
        self._maker = SpanMaker(config)
        self._resource = Resource(
            {
                "service.name": "understudy",
                "service.version": __version__,
                "service.instance.id": config.instance,
            }
        )
        # It tells every retry; the counters say it all, and a collector may be down for days.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._exporter = OTLPSpanExporter(
            endpoint=f"{otlp.endpoint}{_PATH}", headers=otlp.headers, timeout=TIMEOUT_S
        )
        self._queue: queue.Queue[Extract] = queue.Queue(MAX_QUEUED)
        self._stopping = threading.Event()
        self._exported = 0
        self._dropped: Counter[SpanDrop] = Counter()
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def offer(self, record: Mapping[str, Any], ts_us: int, number: int) -> None:
        """Queue a record, if its trace is sampled and there is room."""
        try:
            if not self._sampler.takes(record):
                return
        except (TypeError, ValueError):  # a line of another make; its pair is shipped all the same
            self._dropped[SpanDrop.NOT_MADE] += 1
            return
        extract = Extract.of(record, ts_us, number)
        try:
            self._queue.put_nowait(extract)
        except queue.Full:
            self._dropped[SpanDrop.QUEUE_FULL] += extract.spans_at_most()

    def statistics(self) -> tuple[int, dict[str, int]]:
        """Return how many spans the collector took, and how many were dropped, by reason."""
        return self._exported, {str(drop): count for drop, count in self._dropped.items()}

    def close(self) -> None:
        """Let the thread send what it can within `CLOSE_S`, and leave it."""
        self._stopping.set()
        self._thread.join(CLOSE_S)
        self._exporter.shutdown()  # type: ignore[no-untyped-call]  # ends the wait of a retry

    def _run(self) -> None:
        batch: list[ReadableSpan] = []
        while not (self._stopping.is_set() and self._queue.empty()):
            self._fill(batch)
            if batch:
                self._export(batch)
                batch.clear()

    def _fill(self, batch: list[ReadableSpan]) -> None:
        """Take what is queued, until a batch is full or no record comes for a moment."""
        while len(batch) < MAX_BATCH:
            wait_s = GAP_S if batch or self._stopping.is_set() else _IDLE_S
            try:
                extract = self._queue.get(timeout=wait_s)
            except queue.Empty:
                return
            try:
                batch += map(self._span, self._maker.spans(extract))
            except (LookupError, TypeError, ValueError, OverflowError):
                self._dropped[SpanDrop.NOT_MADE] += extract.spans_at_most()

    def _export(self, batch: list[ReadableSpan]) -> None:
        try:
            is_taken = self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception:  # noqa: BLE001 - whatever a client library does, the thread goes on
            is_taken = False
        if is_taken:
            self._exported += len(batch)
        else:
            self._dropped[SpanDrop.NOT_TAKEN] += len(batch)

    def _span(self, draft: SpanDraft) -> ReadableSpan:
        def context(span_id: int, *, is_remote: bool) -> SpanContext:
            flags = TraceFlags(TraceFlags.SAMPLED)
            return SpanContext(draft.trace_id, span_id, is_remote=is_remote, trace_flags=flags)

        is_server = draft.kind is SpanKind.SERVER
        return ReadableSpan(
            name=draft.name,
            context=context(draft.span_id, is_remote=False),
            parent=context(draft.parent_id, is_remote=is_server) if draft.parent_id else None,
            resource=self._resource,
            attributes=draft.attributes,
            kind=_KINDS[draft.kind],
            status=Status(StatusCode.ERROR if draft.error else StatusCode.UNSET),
            start_time=draft.start_ns,
            end_time=draft.end_ns,
            instrumentation_scope=_SCOPE,
        )
