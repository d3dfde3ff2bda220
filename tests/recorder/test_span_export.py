"""Spans reach a real collector and join the backends' own; one that is down or hangs costs nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from proxy.config.resolved import Config, Otlp, Telemetry
from proxy.recorder.expansion import Expansion, PairMaker
from proxy.recorder.span_export import MAX_BATCH, MAX_QUEUED, SpanExport
from tests.recorder.support import (
    config_for,
    journal_lines,
    recorder,
    statistics,
    stop,
    wait_for_acknowledged,
)
from tests.support.collector import attributes, collector
from tests.support.dataplane import dataplane
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.journal_lines import line
from tests.support.upstreams import Upstream, echo, unused_port

PARENT = "b7ad6b7169203331"


def exporting(config: Config, endpoint: str, sample_bp: int = 0) -> Config:
    """Return a config that exports spans."""
    otlp = Otlp(endpoint, {"x-api-key": "hunter2"}, sample_bp)
    return replace(config, telemetry=Telemetry(otlp))


def journal_sampled(config: Config, count: int) -> None:
    """Journal so many sampled pairs of exchanges of their own."""
    lines = [
        line(
            seq=number,
            request_id=f"r-{number}",
            config_version=config.version,
            span_id=f"{number + 1 << 6:016x}",
            trace_sampled=True,
        )
        for number in range(count)
    ]
    journal_lines(config, [orjson.dumps(each) for each in lines])


async def test_spans_join_what_the_backends_were_told(tmp_path: Path) -> None:
    """From the client's span down to each leg: parents and ids are those of the wire."""
    extra = b"traceparent: 00-%b-%b-01\r\n" % (b"c" * 32, PARENT.encode())
    async with (
        Upstream(echo) as primary,
        Upstream(echo) as candidate,
        dataplane(tmp_path, primary=primary.port, candidates={"v2": candidate.port}) as plane,
    ):
        await plane.request(b"POST", b"/x?q=secret", body=b"{}", extra=extra)
        await plane.request(b"POST", b"/x", body=b"{}")  # a trace that nobody has sampled
        await plane.pairs(2)
        lines = [orjson.dumps(each) for each in plane.lines()]
        config = plane.worker.config
    told = {
        role: up.requests[0].fields[b"traceparent"].decode().split("-")[2]
        for role, up in (("primary", primary), ("candidate", candidate))
    }
    with collector() as found:
        export = SpanExport(exporting(config, found.endpoint))
        expansion = Expansion()
        PairMaker(config, export).expand(lines, expansion)
        assert len(expansion.pairs) == 2
        wait_for(lambda: export.statistics()[0] == 3, "three spans")
        export.close()
    assert found.paths == {"/v1/traces"}
    assert found.headers["x-api-key"] == "hunter2"
    assert found.resources[0]["service.name"] == "understudy"
    assert {span.trace_id.hex() for span in found.spans} == {"c" * 32}
    [server] = [span for span in found.spans if span.kind == span.SPAN_KIND_SERVER]
    assert server.parent_span_id.hex() == PARENT
    legs = {attributes(s)["understudy.leg"]: s for s in found.spans if s is not server}
    assert {role: span.span_id.hex() for role, span in legs.items()} == told
    for span in legs.values():
        assert span.parent_span_id == server.span_id
        assert span.kind == span.SPAN_KIND_CLIENT
        assert server.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
    assert attributes(legs["candidate"])["understudy.equal"] is True
    assert attributes(server)["http.response.status_code"] == 200
    assert "secret" not in str(found.spans)


def test_a_recorder_exports_a_share_of_what_nobody_sampled(tmp_path: Path) -> None:
    """As a process, by its config; its statistics say how many."""
    with collector() as found:
        config = exporting(config_for(tmp_path), found.endpoint, 10_000)
        lines = [line(seq=n, config_version=config.version, span_id=f"{n + 1 << 6:016x}") for n in range(5)]  # fmt: skip
        journal_lines(config, [orjson.dumps(each) for each in lines])
        with recorder(config) as process:
            wait_for_acknowledged(config, 5)
            wait_for(lambda: statistics(config)["exported_spans"] == 15, "the spans")
            code, errors = stop(process)
    assert (code, errors) == (0, b"")
    assert len(found.spans) == 15


@pytest.mark.parametrize("trouble", ["down", "hung", "refusing"])
def test_a_collector_in_trouble_costs_spans_and_nothing_else(tmp_path: Path, trouble: str) -> None:
    """Every pair is shipped, the rest of the spans is counted, and a stop takes no longer."""
    count = MAX_QUEUED + 2 * MAX_BATCH
    with collector() as found:
        if trouble == "hung":
            found.goes_on.clear()
        found.status = 400
        endpoint = f"http://127.0.0.1:{unused_port()}" if trouble == "down" else found.endpoint
        config = exporting(config_for(tmp_path), endpoint)
        journal_sampled(config, count)
        with recorder(config) as process:
            shipped = wait_for_acknowledged(config, count)
            assert shipped["state"] == "ok"
            if trouble != "hung":  # a refused batch is given up at once, one of a hung one in 10 s
                wait_for(lambda: statistics(config)["dropped_spans"], "drops")
            code, errors = stop(process)
        assert (code, errors) == (0, b"")  # no word of the headers, or of each retry
        left = statistics(config)
        assert left["exported_spans"] == 0
        reason = "not_taken" if trouble == "refusing" else "queue_full"
        assert left["dropped_spans"][reason] > 0


def test_without_the_extra_the_recorder_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In its log and for `status`; a config that was checked elsewhere may come here."""
    (tmp_path / "opentelemetry.py").write_text("raise ImportError('none here')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    config = exporting(config_for(tmp_path / "state"), "http://127.0.0.1:1")
    with recorder(config) as process:
        _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert b"pip install 'understudy[otel]'" in errors
    assert b"hunter2" not in errors
    assert "understudy[otel]" in statistics(config)["message"]
