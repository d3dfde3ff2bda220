"""Candidates that do their worst, and more clients than can be served: users notice nothing."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard

from proxy.telemetry import monotonic_s
from tests.support.bad_candidates import BAD, listen
from tests.support.dataplane import read_answer
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.instance import Instance, running
from tests.support.ledgers import told_ledger, wait_balanced
from tests.support.rush import Rush, quick_backend
from tests.support.upstreams import Behaviour, Request, Upstream, echo, hang
from tests.support.users import body_of, send_all

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="what a process holds is read from /proc"),
]

REQUESTS = 100
MIB = 2**20
#: What a worker may hold more after the worst than before.
GROWN_BYTES = 30 * MIB
#: Requests that the primary of the overload serves at once, and `limits.memory` there.
PLACES = 32
MEMORY_BYTES = 16 * MIB
#: How long that load lasts at least.
LOAD_S = 3.0


def _config(primary: int, candidates: dict[str, int], **more: Any) -> dict[str, Any]:
    ports = {"p": primary, **candidates}
    return {
        "workers": 2,
        "backends": {
            name: {"endpoints": [f"http://127.0.0.1:{port}"], "timeout": "10s"}
            for name, port in ports.items()
        },
        "routes": [
            {
                "name": "m",
                "protocol": "json",
                "primary": "p",
                "split_by": "header:x-user-id",
                "candidates": [
                    {
                        "name": name,
                        "backend": name,
                        "mirror": "100%",
                        "timeout": "6s",  # what ends sooner must have ended by itself
                        "breaker": {"failures": 0},  # it would spare us the worst of it
                    }
                    for name in candidates
                ],
            }
        ],
        **more,
    }


def _held_bytes(instance: Instance) -> dict[str, int]:
    """Return what each worker and the recorder hold of memory that is theirs alone (RssAnon)."""
    found = {}
    for name, pid in instance.pids.items():
        if name != "control":
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            line = next(line for line in lines if line.startswith("RssAnon:"))
            found[name] = int(line.split()[1]) * 1024
    return found


def _records(instance: Instance) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for path in sorted((instance.state_dir / "pairs").glob("*.ndjson.zst")):
        with (
            path.open("rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as reader,
        ):
            found += [orjson.loads(line) for line in reader.read().splitlines()]
    return found


async def _settled(instance: Instance) -> dict[str, dict[str, Any]]:
    """Wait until every pair is where it must be; return the ledger, which then is exact."""
    accounts = await asyncio.to_thread(wait_balanced, instance)
    told = told_ledger(instance)
    assert (told["verdict"], told["unbalanced"]) == ("balanced", [])
    assert {account["name"]: account for account in told["ledger"]} == accounts
    return accounts


async def test_candidates_that_do_their_worst_harm_nobody(
    tmp_path: Path, record_property: Any
) -> None:
    """All answers right, the ledger exact, each record true, no memory kept."""
    async with AsyncExitStack() as stack:
        primary = await stack.enter_async_context(Upstream(echo))
        ports = {name: await listen(stack, name) for name in BAD}
        limits = {"mirror_response": "1MiB", "record_body": "64KiB"}
        instance = stack.enter_context(
            running(_config(primary.port, ports, limits=limits), tmp_path)
        )
        address = instance.runtime["listen"]
        before = _held_bytes(instance)
        begun_s = monotonic_s()
        answers = await send_all(address, range(REQUESTS), concurrency=16)
        took_s = monotonic_s() - begun_s
        assert answers == {number: body_of(number) for number in range(REQUESTS)}
        pairs = REQUESTS * len(BAD)
        accounts = await _settled(instance)
        settled_s = monotonic_s() - begun_s
        after = _held_bytes(instance)
        records = _records(instance)
    assert accounts["requests routed"]["parts"] == {"ok": REQUESTS}
    assert accounts["mirrors decided"]["total"] == accounts["pairs decided"]["total"] == pairs
    assert accounts["pairs decided"]["parts"] == {"journaled": pairs}
    assert accounts["pairs journaled"]["parts"] == {"acknowledged": pairs}
    _check_records(records)
    grown = {name: (after[name] - before[name]) / MIB for name in before}
    record_property(
        "isolation", f"{took_s:.1f} s, {settled_s:.1f} s, MiB grown: {grown}, before: {before}"
    )
    assert max(grown.values()) * MIB <= GROWN_BYTES, grown


def _check_records(records: list[dict[str, Any]]) -> None:
    """Check that each request has one record per candidate, and that it says what happened."""
    keys = Counter((record["request_id"], record["candidate"]) for record in records)
    assert keys == Counter((f"r{n}", name) for n in range(REQUESTS) for name in BAD)
    statuses: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record in records:
        statuses[record["candidate"]][record["candidate_status"]] += 1
        assert record["primary_status"] == "ok"
        assert not record["comparable"]
    for name, (_, status) in BAD.items():
        assert statuses[name] == {status: REQUESTS}, (name, statuses[name])
    errors = {r["candidate_error"] for r in records if r["candidate"] == "endless"}
    assert errors == {"the answer has more than 1048576 bytes (limits.mirror_response)"}


class _Overload:
    """Clients who ask as fast as they are answered: some seconds, and until a copy finds no memory.

    Attributes:
        is_over: they may stop asking.
        counts: right answers, by client.
        top: the most that each process held meanwhile.
    """

    body = b'"%b"' % (b"x" * 32_000)

    def __init__(self, instance: Instance) -> None:
        self.is_over = False
        self.counts: list[int] = []
        self.top: Counter[str] = Counter()
        self._instance = instance

    async def user(self) -> None:
        """Ask until it is over, and once at least."""
        host, _, port = self._instance.runtime["listen"].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        request = (
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\n\r\n%b" % (len(self.body), self.body)
        )
        count = 0
        while not (count and self.is_over):
            writer.write(request)
            status, _, answer = await read_answer(reader)
            assert (status, answer) == (200, self.body)
            count += 1
        self.counts.append(count)
        writer.close()

    async def watch(self) -> None:
        """Look at what the processes hold, and when it is enough."""
        begun_s = monotonic_s()
        while not self.is_over:
            for name, size in _held_bytes(self._instance).items():
                self.top[name] = max(self.top[name], size)
            await asyncio.sleep(0.1)
            passed_s = monotonic_s() - begun_s
            if passed_s > LOAD_S:
                counted = await asyncio.to_thread(_counted, self._instance)
                self.is_over = counted["memory"] > 0 or passed_s > PATIENCE_S


def _busy() -> Behaviour:
    """Echo, 32 requests at a time, 10 ms each."""
    places = asyncio.Semaphore(PLACES)

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        async with places:
            await asyncio.sleep(0.01)
        await echo(request, writer)

    return behave


async def test_ten_times_more_clients_than_it_can_serve_at_once(
    tmp_path: Path, record_property: Any
) -> None:
    """The candidate hangs and bodies pile up to the limit; nobody fails, nothing stays."""
    async with AsyncExitStack() as stack:
        primary = await stack.enter_async_context(Upstream(_busy()))
        candidate = await stack.enter_async_context(Upstream(hang))
        limits = {
            "memory": f"{MEMORY_BYTES // MIB}MiB",
            "mirror_body": "1MiB",
            "mirror_lag": 0,  # what is looked at are copies that hang
        }
        config = _config(primary.port, {"v2": candidate.port}, limits=limits)
        instance = stack.enter_context(running(config, tmp_path))
        before = _held_bytes(instance)
        load = _Overload(instance)
        await asyncio.gather(load.watch(), *(load.user() for _ in range(10 * PLACES)))
        total = sum(load.counts)
        accounts = await _settled(instance)
        after = _held_bytes(instance)
    assert len(load.counts) == 10 * PLACES
    assert accounts["requests routed"]["parts"] == {"ok": total}
    assert accounts["pairs journaled"]["parts"] == {"acknowledged": total}
    assert accounts["mirrors decided"]["parts"]["skipped memory"] > 0
    workers = [name for name in before if name.startswith("worker")]
    peak = {name: (load.top[name] - before[name]) / MIB for name in workers}
    grown = {name: (after[name] - before[name]) / MIB for name in workers}
    record_property("overload", f"{total} answers, MiB at the top: {peak}, after: {grown}")
    assert max(*peak.values(), *grown.values()) * MIB <= MEMORY_BYTES + GROWN_BYTES, peak


def _counted(instance: Instance) -> dict[str, int]:
    """Return what the instance's workers have counted of the candidate's copies, and who sheds now."""
    text = instance.admin("GET", "/metrics").text
    found = {
        "shed": r'mirror_skipped_total{candidate="v2",reason="overload",route="m"}',
        "memory": r'mirror_skipped_total{candidate="v2",reason="memory",route="m"}',
        "sent": r'mirror_sent_total{candidate="v2",route="m"}',
        "shedding": "workers_shedding",
        "times": "sheddings_total",
    }
    return {
        name: int(float(re.findall(rf"^understudy_{re.escape(metric)} (.+)$", text, re.M)[0]))
        for name, metric in found.items()
    }


async def _once(instance: Instance, condition: Callable[[dict[str, int]], bool]) -> dict[str, int]:
    """Wait until a condition holds of the counts, and return them."""

    def counted() -> dict[str, int]:
        found = _counted(instance)
        return found if condition(found) else {}

    return await asyncio.to_thread(wait_for, counted, "the counts", every_s=0.1)


async def test_an_overloaded_worker_serves_users_and_makes_no_copies(
    tmp_path: Path, record_property: Any
) -> None:
    """All answers right, what was left out is counted and told, and copies come back by themselves."""
    async with AsyncExitStack() as stack:
        primary, candidate = [await stack.enter_async_context(quick_backend()) for _ in range(2)]
        limits = {"mirror_lag": "5ms"}
        config = _config(primary, {"v2": candidate}, limits=limits) | {"workers": 1}
        instance = stack.enter_context(running(config, tmp_path))
        address = instance.runtime["listen"]
        rush, few = Rush(), Rush()
        await rush.come(address, 10 * PLACES)
        await _once(instance, lambda found: found["shed"] > 1000)
        status = await asyncio.to_thread(instance.status)
        assert any("overloaded" in problem for problem in status["problems"]), status["problems"]
        await rush.go()
        before = await _once(instance, lambda found: not found["shedding"])
        await few.come(address, 4)
        await _once(instance, lambda found: found["sent"] > before["sent"] + 20)
        await few.go()
        accounts = await _settled(instance)
        after = _counted(instance)
        records = _records(instance)
    asked = rush.asked + few.asked
    assert (rush.right, few.right) == (rush.asked, few.asked)
    assert after["shed"] == before["shed"]
    assert after["sent"] == before["sent"] + few.asked
    assert accounts["requests routed"]["parts"] == {"ok": asked}
    mirrors, pairs = accounts["mirrors decided"], accounts["pairs decided"]
    assert mirrors["total"] == pairs["total"] == asked
    assert mirrors["parts"]["skipped overload"] == pairs["parts"]["lost overload"] == after["shed"]
    assert pairs["parts"]["journaled"] == len(records) == asked - after["shed"]
    record_property("shedding", f"{after} of {asked}")
