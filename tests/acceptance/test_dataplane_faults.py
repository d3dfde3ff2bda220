"""Processes that die or stop under load: what users see, and what the ledger says afterwards."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from proxy.telemetry import monotonic_s
from tests.support.crowd import Crowd, crowd
from tests.support.dataplane import until
from tests.support.deadline import PATIENCE_S
from tests.support.instance import Instance, running
from tests.support.ledgers import wait_balanced
from tests.support.pair_log import read_pairs
from tests.support.upstreams import Request, Upstream, echo
from tests.support.worker_process import worker_config, worker_process

pytestmark = pytest.mark.slow

#: The launcher starts what was killed once again after no more than this.
RESTART_S = 1.0
USERS = 16
#: A stop under load takes half a second, or as long as a slow disk, and no more than that.
SHUTDOWN_S = 60


def _config(primary: int, candidate: int, **more: Any) -> dict[str, Any]:
    """Return a config: two workers, `v2` mirrored at 100% and serving a fifth of the users."""
    return {
        "workers": 2,
        "backends": {
            "v1": {"endpoints": [f"http://127.0.0.1:{primary}"], "timeout": "5s"},
            "v2": {"endpoints": [f"http://127.0.0.1:{candidate}"], "timeout": "5s"},
        },
        "routes": [
            {
                "name": "m",
                "protocol": "json",
                "primary": "v1",
                "split_by": "header:x-user-id",
                "candidates": [{"name": "v2", "backend": "v2", "mirror": "100%", "weight": "20%"}],
            }
        ],
        "limits": {"shutdown": "3s"},
        **more,
    }


def _ports_of(pid: int) -> set[int]:
    """Return the remote ports of a process's TCP connections."""
    found = psutil.Process(pid).net_connections("tcp")
    return {connection.raddr.port for connection in found if connection.status == "ESTABLISHED"}


def _is_stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


async def _status(instance: Instance) -> dict[str, Any]:
    """Return what `understudy status --json` says."""
    done = await asyncio.to_thread(instance.cli, "status", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


async def _settled(instance: Instance) -> dict[str, Any]:
    """Wait until every pair is in the local log; return the status, whose ledger adds up then."""
    await asyncio.to_thread(wait_balanced, instance)
    found = await _status(instance)
    assert found["ledger_verdict"] == {"verdict": "balanced", "unbalanced": []}
    return found


def _check_records(instance: Instance, people: Crowd, *, may_lack: int = 0) -> None:
    """Check that every answered request has exactly one pair, but for so many that were lost.

    A recorder that was killed may write its last window again: at least once, and `pair_id` tells.
    """
    found = read_pairs(instance.state_dir)
    records = {record["pair_id"]: record for record in found}.values()
    names = [record["request_id"] for record in records]
    assert len(names) == len(set(names))
    lacking = {f"r{number}" for number in people.answers} - set(names)
    assert len(lacking) <= may_lack, f"{len(lacking)} of {len(people.answers)} without a record"


class _Gated:
    """A primary that takes 20 ms, and holds its answers back while its gate is shut.

    Attributes:
        waiting: users who wait for an answer.
    """

    def __init__(self) -> None:
        self.waiting = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        """Answer with the request's body."""
        is_users = b"x-understudy-mirror" not in request.fields
        self.waiting += is_users
        await asyncio.sleep(0.02)
        await self.gate.wait()
        self.waiting -= is_users
        await echo(request, writer)


async def test_a_killed_worker_takes_only_its_own_connections_with_it(tmp_path: Path) -> None:
    """Others are served on; it is back within a second; what it had in memory is counted as lost."""
    primary = _Gated()
    async with Upstream(primary) as one, Upstream(echo) as two:
        with running(_config(one.port, two.port), tmp_path) as instance:
            async with crowd(instance.runtime["listen"], users=USERS) as people:
                await people.go_on()
                assert people.failures == []
                name, victim = max(
                    ((n, pid) for n, pid in instance.pids.items() if n.startswith("worker")),
                    key=lambda worker: len(_ports_of(worker[1])),
                )
                primary.gate.clear()  # so that it has something under way when it dies
                await until(lambda: primary.waiting == USERS, "each user to wait for an answer")
                instance.send(name, signal.SIGSTOP)  # so that it accepts nobody after we looked
                await until(lambda: _is_stopped(victim), "it to stand still")
                theirs = _ports_of(victim)
                instance.send(name, signal.SIGKILL)
                primary.gate.set()
                await _restarted(instance, name, victim)
                await until(lambda: _ports_of(instance.pids[name]), "it to serve again")
                await people.go_on(500)
            (died,) = instance.log("process_died")
            assert died["restart_in_s"] <= RESTART_S
            for failure in people.failures:
                assert failure.port in theirs, f"not on a connection of the victim: {failure}"
            ports = [failure.port for failure in people.failures]
            assert len(ports) == len(set(ports)), "more than one request of a connection failed"
            found = await _settled(instance)
            (candidate,) = found["routes"][0]["candidates"]
            lost = candidate["pairs_lost"].get("worker_died", 0)
            assert sum(candidate["pairs_lost"].values()) == lost
            _check_records(instance, people, may_lack=lost)
            # What was lost is what it had under way and in its last flush interval, and no more.
            assert 1 <= lost <= 0.1 * len(people.answers), f"{lost} pairs lost"


async def _restarted(instance: Instance, name: str, victim: int) -> None:
    await until(lambda: instance.pids[name] not in (0, victim), f"the restart of {name}")


@pytest.mark.parametrize("name", ["recorder 0", "control"])
async def test_no_user_notices_the_death_of_the_recorder_or_of_control(
    tmp_path: Path, name: str
) -> None:
    """No failure, no slow answer; it is started again, and every answer has its one record."""
    async with Upstream(echo) as one, Upstream(echo) as two:
        with running(_config(one.port, two.port), tmp_path) as instance:
            async with crowd(instance.runtime["listen"]) as people:
                await people.go_on()
                for _ in range(2):
                    victim = instance.pids[name]
                    instance.send(name, signal.SIGKILL)
                    await people.go_on()
                    await _restarted(instance, name, victim)
                await people.go_on()
            assert people.failures == []
            await until(instance.is_healthy, "everything to be well again")
            await _settled(instance)
            _check_records(instance, people)


async def test_a_stop_under_load_finishes_what_was_asked_and_records_it(tmp_path: Path) -> None:
    """SIGTERM: exit 0, the journal flushed and recorded: every answer that a user got is there."""
    async with Upstream(echo) as one, Upstream(echo) as two:
        config = _config(one.port, two.port, limits={"shutdown": f"{SHUTDOWN_S}s"})
        with running(config, tmp_path) as instance:
            async with crowd(instance.runtime["listen"]) as people:
                await people.go_on(500)
                assert people.failures == []
                stopped_s = monotonic_s()
                await asyncio.to_thread(instance.stop)  # asserts exit code 0
                took_s = monotonic_s() - stopped_s
        assert took_s < SHUTDOWN_S, f"the stop took {took_s:.1f} s"
        cut = [failure for failure in people.failures if failure.begun_s < stopped_s]
        assert cut == [], "requests in flight at the stop were not finished"
        _check_records(instance, people)


async def test_a_stop_waits_for_answers_under_way_and_no_longer_than_told(tmp_path: Path) -> None:
    """An answer that takes a second is finished; one that hangs is cut at the limit; both recorded."""
    shutdown_s = 12  # of which users get 5, far more than the slow one needs

    async def moody(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(1 if b"/slow" in request.target else 60)
        await echo(request, writer)

    async with Upstream(moody) as one, Upstream(echo) as two:
        config = _config(one.port, two.port)
        config["routes"][0]["candidates"][0]["weight"] = "0%"
        config["backends"]["v1"]["timeout"] = "60s"
        config["limits"]["shutdown"] = f"{shutdown_s}s"
        with running(config, tmp_path) as instance:
            host, _, port = instance.runtime["listen"].rpartition(":")
            opened = []
            for target in (b"/slow", b"/never"):
                reader, writer = await asyncio.open_connection(host, int(port))
                writer.write(
                    b"POST %b HTTP/1.1\r\nhost: a\r\nx-request-id: r%b\r\n"
                    b"content-length: 1\r\n\r\nx" % (target, target)
                )
                opened.append((reader, writer))
            await until(lambda: len(one.requests) == len(two.requests) == 2, "both requests")
            stopped_s = monotonic_s()
            await asyncio.to_thread(instance.stop)
            took_s = monotonic_s() - stopped_s
            slow, never = [await reader.read() for reader, _ in opened]
            for _, writer in opened:
                writer.close()
    assert took_s < shutdown_s + 4, f"the stop took {took_s:.1f} s"
    assert slow.startswith(b"HTTP/1.1 200")
    assert never.startswith((b"HTTP/1.1 502", b"HTTP/1.1 503"))
    records = {record["request_id"]: record for record in read_pairs(instance.state_dir)}
    assert records["r/slow"]["primary_status"] == "ok"
    assert records["r/never"]["primary_status"] == "cancelled"
    assert records["r/never"]["candidate_status"] == "ok"


def test_a_stop_that_comes_while_a_worker_starts_is_not_lost(tmp_path: Path) -> None:
    """Between its first line and its first request there is no moment at which SIGTERM is ignored."""
    for attempt in range(4):
        config = worker_config(tmp_path / str(attempt), "http://127.0.0.1:9")
        with worker_process(config) as (process, _):
            started = psutil.Process(process.pid)
            deadline_s = monotonic_s() + PATIENCE_S
            # Set as `main` begins; while it is being set, there is none.
            while not "".join(started.cmdline()[:1]).startswith("understudy"):
                assert monotonic_s() < deadline_s
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
