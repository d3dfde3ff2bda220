"""What an SRE sees of a whole instance: its log, its access log, its processes and its spans."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.collector import attributes, collector
from tests.support.counting_backend import counting_backend, two_workers
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.instance import Instance, running

pytestmark = pytest.mark.slow

TRACE = "0af7651916cd43dd8448eb211c80319c"
SECRET = "hunter2-hunter2"
SHAPE = ["ts", "level", "process", "event"]


def _metrics(instance: Instance) -> dict[str, dict[str, float]]:
    """Return the samples by name, and then by their process, recorder or route."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(instance.admin("GET", "/metrics").text):
        for sample in family.samples:
            label = next(iter(sample.labels.values()), "")
            found.setdefault(sample.name, {})[label] = sample.value
    return found


def test_one_request_is_found_in_logs_metrics_and_traces(tmp_path: Path) -> None:
    """By one trace id; all processes log lines of one shape, and no secret is in them."""
    headers = {
        "traceparent": f"00-{TRACE}-b7ad6b7169203331-01",
        "authorization": SECRET,
        "x-request-id": "mine",
    }
    with (
        counting_backend("primary") as primary,
        counting_backend("candidate") as candidate,
        collector() as found,
    ):
        otlp = {"endpoint": found.endpoint, "headers": {"authorization": SECRET}}
        config = {
            **two_workers(primary, candidate),
            "log": {"access": "100%"},
            "telemetry": {"otlp": otlp},
        }
        with running(config, tmp_path) as instance:
            url = f"{instance.base_url}/x?q={SECRET}"
            answer = httpx.post(
                url, content=SECRET, headers=headers, trust_env=False, timeout=PATIENCE_S
            )
            assert answer.status_code == 200
            [line] = wait_for(lambda: instance.log("request"), "the access log")
            wait_for(lambda: len(found.spans) >= 3, "the spans")
            wait_for(
                lambda: _metrics(instance)["understudy_recorder_exported_spans_total"]["0"] == 3,
                "the recorder's statistics",
            )
            metrics = _metrics(instance)
        lines = [json.loads(each) for each in instance.stderr.splitlines()]
    assert (line["trace_id"], line["request_id"], line["path"]) == (TRACE, "mine", "/x")
    assert {span.trace_id.hex() for span in found.spans} == {TRACE}
    assert found.headers["authorization"] == SECRET
    assert "mine" in [attributes(span).get("understudy.request_id") for span in found.spans]
    assert metrics["understudy_request_bytes_total"]["iris"] == len(SECRET)
    assert set(metrics["understudy_process_cpu_seconds_total"]) == {
        "launcher", "worker 0", "worker 1", "control", "recorder 0",
    }  # fmt: skip
    assert all(list(each)[:4] == SHAPE for each in lines)
    assert SECRET not in json.dumps(lines)
