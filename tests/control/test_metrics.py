"""The metrics: what Prometheus gets to read."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families

from proxy.control.metrics import DROP_REASONS, SINK_STATES, SPAN_DROPS
from proxy.control.worker_pages import WorkerPages
from proxy.recorder.sink import Drop, SinkState
from proxy.state.control_page import Part
from proxy.state.kill import Scope
from proxy.state.orders import Source, order_kill
from proxy.state.stats_file import Layout, open_stats
from proxy.state.stats_page import LATENCY_BOUNDS_US
from proxy.telemetry import wall_ns
from tests.support.admin import Instance
from tests.support.resolved_config import small_config


async def _samples(
    client: httpx.AsyncClient,
) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = (await client.get("/metrics")).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _key(name: str, **labels: str) -> tuple[str, frozenset[tuple[str, str]]]:
    return name, frozenset(labels.items())


async def test_counters_of_all_workers_are_added_up(
    client: httpx.AsyncClient, instance: Instance
) -> None:
    """Past workers' totals stay, their gauges do not."""
    instance.stats.add(3, "mirror_sent", "iris", "v2")
    instance.stats.add(2, "connections_open")
    past = open_stats(instance.state_dir, 7, Layout(instance.config))
    past.add(4, "mirror_sent", "iris", "v2")
    past.add(5, "connections_open")
    samples = await _samples(client)
    past.close()
    assert samples[_key("understudy_mirror_sent_total", route="iris", candidate="v2")] == 7
    assert samples[_key("understudy_connections_open")] == 2
    by_worker = {k: v for k, v in samples.items() if k[0] == "understudy_worker_connections_open"}
    assert by_worker == {_key("understudy_worker_connections_open", worker="0"): 2}


def test_the_breaker_shown_is_that_of_the_worst_worker(tmp_path: Path) -> None:
    """One open and one half-open are open, not three; a past worker's is none."""
    config = small_config(tmp_path, workers=2)
    pages = WorkerPages(config)
    for index, state in enumerate((1, 2, 2)):
        worker = open_stats(tmp_path, index, Layout(config))
        worker.add(state, "breaker", "iris", "v2")
        worker.add(state if index == 2 else 0, "breaker", "iris", "v3")
        worker.close()
    counters = pages.counters()
    pages.close()
    assert counters["breaker", "iris", "v2"] == 2
    assert counters["breaker", "iris", "v3"] == 0


async def test_latency_is_a_cumulative_histogram_in_seconds(
    client: httpx.AsyncClient, instance: Instance
) -> None:
    """The cells hold counts by bucket; Prometheus wants them added up."""
    for bound, count in ((500, 1), (1_000, 2), (30_000_000, 3)):
        instance.stats.add(count, "latency_us", "iris", "v2", str(bound))
    instance.stats.add(4, "latency_us", "iris", "v2", "+Inf")
    instance.stats.add(2_500_000, "latency_sum_us", "iris", "v2")
    samples = await _samples(client)
    name, labels = "understudy_leg_latency_seconds", {"route": "iris", "leg": "v2"}
    assert samples[_key(f"{name}_bucket", **labels, le="0.0005")] == 1
    assert samples[_key(f"{name}_bucket", **labels, le="0.001")] == 3
    assert samples[_key(f"{name}_bucket", **labels, le="10.0")] == 3
    assert samples[_key(f"{name}_bucket", **labels, le="30.0")] == 6
    assert samples[_key(f"{name}_bucket", **labels, le="+Inf")] == 10
    assert samples[_key(f"{name}_count", **labels)] == 10
    assert samples[_key(f"{name}_sum", **labels)] == 2.5
    assert len(LATENCY_BOUNDS_US) == 15


async def test_the_lag_of_each_worker_is_its_own(
    client: httpx.AsyncClient, instance: Instance
) -> None:
    """Added up, one that stands still would hide behind the others."""
    instance.stats.add(2, "loop_lag_us", "1000")
    instance.stats.add(3_000, "loop_lag_sum_us")
    past = open_stats(instance.state_dir, 7, Layout(instance.config))
    past.add(4, "loop_lag_us", "1000")
    samples = await _samples(client)
    past.close()
    name = "understudy_event_loop_lag_seconds"
    assert samples[_key(f"{name}_bucket", worker="0", le="0.0005")] == 0
    assert samples[_key(f"{name}_bucket", worker="0", le="0.001")] == 2
    assert samples[_key(f"{name}_count", worker="0")] == 2
    assert samples[_key(f"{name}_sum", worker="0")] == 0.003
    assert _key(f"{name}_count", worker="7") not in samples


async def test_the_first_byte_has_a_histogram_of_its_own(
    client: httpx.AsyncClient, instance: Instance
) -> None:
    """A streamed answer is late at its last byte and not at its first."""
    instance.stats.add(1, "ttfb_us", "iris", "primary", "1000")
    samples = await _samples(client)
    labels = {"route": "iris", "leg": "primary"}
    assert samples[_key("understudy_leg_first_byte_seconds_count", **labels)] == 1
    assert samples[_key("understudy_leg_latency_seconds_count", **labels)] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="there is no /proc")
async def test_what_processes_use_is_told(client: httpx.AsyncClient, instance: Instance) -> None:
    """From control's own look at /proc; one that is down uses nothing."""
    samples = await _samples(client)
    own = psutil.Process()
    assert samples[_key("understudy_process_cpu_seconds_total", process="worker 0")] > 0
    resident = samples[_key("understudy_process_resident_memory_bytes", process="worker 0")]
    assert resident == pytest.approx(own.memory_info().rss, rel=0.2)
    assert samples[_key("understudy_process_open_fds", process="worker 0")] > 2
    waited_s = samples[_key("understudy_process_cpu_wait_seconds_total", process="worker 0")]
    assert 0 < waited_s < wall_ns() / 1e9 - own.create_time()
    instance.write_runtime(0)
    samples = await _samples(client)
    assert _key("understudy_process_cpu_seconds_total", process="worker 0") not in samples


async def test_live_state_processes_and_recorders_are_told(
    client: httpx.AsyncClient, instance: Instance
) -> None:
    """What an alert needs: kills, weights, processes, drops."""
    order_kill(instance.page, Scope("iris", "v2"), Part.CANARY, Source("a", "b", "c", 1))
    samples = await _samples(client)
    v2 = {"route": "iris", "candidate": "v2"}
    assert samples[_key("understudy_killed", **v2, part="canary")] == 1
    assert samples[_key("understudy_killed", **v2, part="mirror")] == 0
    assert samples[_key("understudy_weight_ratio", **v2)] == 0
    assert samples[_key("understudy_mirror_ratio", **v2)] == 1
    assert samples[_key("understudy_process_up", process="worker 0")] == 1
    assert samples[_key("understudy_process_restarts_total", process="worker 0")] == 2
    assert samples[_key("understudy_recorder_acknowledged_pairs_total", recorder="0")] == 4
    assert (
        samples[_key("understudy_recorder_dropped_pairs_total", recorder="0", reason="rejected")]
        == 2
    )
    assert samples[_key("understudy_recorder_state", recorder="0", state="ok")] == 1
    assert samples[_key("understudy_recorder_state", recorder="0", state="stuck")] == 0
    assert samples[_key("understudy_recorder_lag_seconds", recorder="0")] == 0.3
    assert samples[_key("understudy_ready")] == 1
    instance.write_recorder(lag_s=None)
    assert _key("understudy_recorder_lag_seconds", recorder="0") not in await _samples(client)


async def test_every_reason_is_counted_from_zero(
    client: httpx.AsyncClient, instance: Instance
) -> None:
    """A rate over a counter that appears with its first drop would miss that one."""
    (instance.state_dir / "recorder-0.json").unlink()
    samples = await _samples(client)
    for reason in ("rejected", "too_large", "journal_full"):
        name = "understudy_recorder_dropped_pairs_total"
        assert samples[_key(name, recorder="0", reason=reason)] == 0
    assert samples[_key("understudy_recorder_acknowledged_pairs_total", recorder="0")] == 0
    for reason in SPAN_DROPS:
        name = "understudy_recorder_dropped_spans_total"
        assert samples[_key(name, recorder="0", reason=reason)] == 0
    for reason in ("no_token", "wrong_token", "cross_site", "foreign_host"):
        assert samples[_key("understudy_admin_refused_total", reason=reason)] == 0


async def test_a_hung_worker_is_not_up(client: httpx.AsyncClient, instance: Instance) -> None:
    """Its process exists; nobody is served by that."""
    instance.stats.beat(pid=os.getpid(), now_ms=1)
    samples = await _samples(client)
    assert samples[_key("understudy_process_up", process="worker 0")] == 0
    assert samples[_key("understudy_ready")] == 0


async def test_a_corrupt_page_shows_as_everything_killed(
    client: httpx.AsyncClient, instance: Instance
) -> None:
    """That is what the workers do then."""
    with instance.page.path.open("r+b") as file:
        file.write(b"\0" * 64)
    samples = await _samples(client)
    assert samples[_key("understudy_control_page_readable")] == 0
    assert samples[_key("understudy_killed", route="iris", candidate="v2", part="mirror")] == 1


async def test_openmetrics_is_spoken_when_asked_for(
    client: httpx.AsyncClient,
) -> None:
    """And is valid."""
    answer = await client.get(
        "/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}
    )
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    families = list(open_families(answer.text))  # type: ignore[no-untyped-call]  # the library has no types here
    assert len(families) > 20


def test_names_of_the_recorder_are_known_here() -> None:
    """They are written twice, because control does not import the recorder."""
    assert set(SINK_STATES) == set(SinkState)
    assert set(DROP_REASONS) == set(Drop)


#: Units and words that promtool complains of (its `check metrics`, prometheus/promlint).
_NOT_BASE_UNITS = re.compile(
    r"_(ms|milliseconds|us|microseconds|minutes|hours|days|kb|kilobytes|mb|megabytes|kib|mib|bits|percent)(_|$)"
)


async def test_every_family_keeps_the_conventions_of_prometheus(client: httpx.AsyncClient) -> None:
    """What `promtool check metrics` checks, and that HELP and TYPE come once, before the samples."""
    text = (await client.get("/metrics")).text
    seen: dict[str, str] = {}
    helped: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, name, words = line.split(" ", 3)
            assert words.endswith(".")
            assert name not in helped
            helped.add(name)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name in helped
            assert name not in seen
            seen[name] = kind
            assert (kind == "counter") == name.endswith("_total")
            assert re.fullmatch(r"understudy_[a-z][a-z0-9_]*", name)
            assert not _NOT_BASE_UNITS.search(name), name
            assert kind == "histogram" or not name.endswith(("_count", "_sum", "_bucket"))
            assert not re.search(r"_(counter|gauge|histogram|summary)(_|$)", name)
        else:
            name = line.partition("{")[0].partition(" ")[0]
            assert any(name.removesuffix(end) in seen for end in ("", "_bucket", "_count", "_sum"))
            assert ('le="' in line) == name.endswith("_bucket")
    assert len(seen) > 50


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
async def test_promtool_has_nothing_to_say(client: httpx.AsyncClient) -> None:
    """The same by the tool itself."""
    text = (await client.get("/metrics")).content
    done = await asyncio.to_thread(
        subprocess.run,
        ["promtool", "check", "metrics"],
        input=text,
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


async def test_refused_requests_are_counted(client: httpx.AsyncClient) -> None:
    """By reason."""
    await client.get("/api/v1/status", headers={"origin": "http://evil.example"})
    samples = await _samples(client)
    assert samples[_key("understudy_admin_refused_total", reason="cross_site")] == 1
