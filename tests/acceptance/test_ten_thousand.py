"""Ten thousand requests through a whole instance: every user right, every pair there once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confluent_kafka
import orjson
import pytest
import zstandard

from tests.support.dataplane import until
from tests.support.instance import Instance, running
from tests.support.ledgers import wait_balanced
from tests.support.upstreams import Behaviour, Request, Upstream, hang, reset, unused_port
from tests.support.users import body_of, send_all

pytestmark = pytest.mark.slow

REQUESTS = 10_000
CONCURRENCY = 64

Records = list[dict[str, Any]]


def model(version: int) -> Behaviour:
    """Answer as a model of this version: the answer depends on the request and on the model."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        body = answer_of(version, request.body)
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (len(body), body)
        )

    return behave


def answer_of(version: int, request: bytes) -> bytes:
    """Return what model `version` answers to a request."""
    number = orjson.loads(request)["inputs"][0]["data"][0]
    return orjson.dumps(
        {"model_version": str(version), "outputs": [{"name": "y", "data": [number * version]}]}
    )


def config(ports: dict[str, int], candidates: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return a config with one backend per port, `v1` the primary, on two workers."""
    return {
        "workers": 2,
        "backends": {
            name: {"endpoints": [f"http://127.0.0.1:{port}"], "timeout": "10s"}
            for name, port in ports.items()
        },
        "routes": [
            {
                "name": "m",
                "match": {"path_prefix": "/v2/models/m"},
                "protocol": "open-inference",
                "primary": "v1",
                "split_by": "header:x-user-id",
                "candidates": candidates,
            }
        ],
        **more,
    }


def local_records(instance: Instance) -> Records:
    """Read the local log."""
    found: Records = []
    for path in sorted((instance.state_dir / "pairs").glob("*.ndjson.zst")):
        with path.open("rb") as file:
            reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            lines = reader.read().splitlines(keepends=True)
            # The last one may be half written by now.
            found += [orjson.loads(line) for line in lines if line.endswith(b"\n")]
    return found


def topic_reader(bootstrap: str, topic: str) -> Callable[[Instance], Records]:
    """Return a function that gives all records of a topic so far, read by librdkafka."""
    consumer = confluent_kafka.Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": topic,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
    )
    found: Records = []
    consumer.subscribe([topic])

    def read(instance: Instance) -> Records:
        del instance
        for message in consumer.consume(5000, timeout=0.5):
            if message.error() is None:
                found.append(orjson.loads(message.value() or b""))
        return found

    return read


@pytest.fixture(params=["local", pytest.param("kafka", marks=pytest.mark.kafka)])
def sink(request: pytest.FixtureRequest) -> tuple[dict[str, Any], Callable[[Instance], Records]]:
    """Give the `record` section of each sink, and how its records are read back."""
    if request.param == "local":
        return {}, local_records
    bootstrap = request.getfixturevalue("kafka_bootstrap")
    record = {"kafka": {"bootstrap_servers": [bootstrap], "topic_prefix": "tenk"}}
    return {"record": record}, topic_reader(bootstrap, "tenk.pairs.v1")


async def test_every_answer_is_the_primarys_and_every_pair_is_there_once(
    tmp_path: Path, sink: tuple[dict[str, Any], Callable[[Instance], Records]]
) -> None:
    """Two workers, two candidates at 100% and 30%, concurrency 64; then again after a restart."""
    more, read = sink
    async with Upstream(model(1)) as one, Upstream(model(2)) as two, Upstream(model(3)) as three:
        candidates = [
            {"name": "v2", "backend": "v2", "mirror": "100%"},
            {"name": "v3", "backend": "v3", "mirror": "30%"},
        ]
        ports = {"v1": one.port, "v2": two.port, "v3": three.port}
        settings = config(ports, candidates, **more)
        with running(settings, tmp_path) as instance:
            address = instance.runtime["listen"]
            answers = await send_all(address, range(REQUESTS), concurrency=CONCURRENCY)
            assert answers == {n: answer_of(1, body_of(n)) for n in range(REQUESTS)}
            accounts = await asyncio.to_thread(wait_balanced, instance, 60)
            sampled = {request.fields[b"x-user-id"] for request in three.requests}
            expected = REQUESTS + len(sampled)
            records = await until(
                lambda: found if len(found := read(instance)) >= expected else None,
                f"{expected} records",
            )
            check_records(records, sampled)
            assert accounts["pairs journaled"]["parts"] == {"acknowledged": expected}
            assert abs(len(sampled) / REQUESTS - 0.30) <= 0.015
        three.requests.clear()
        with running(settings, tmp_path) as instance:
            await send_all(instance.runtime["listen"], range(1000), concurrency=8)
            wanted = {user for user in sampled if int(user[1:]) < 1000}
            await until(lambda: len(three.requests) >= len(wanted), "the mirrors")
            assert {request.fields[b"x-user-id"] for request in three.requests} == wanted


def check_records(records: Records, sampled: set[bytes]) -> None:
    """Check that the records are exactly those of the requests, each with both answers."""
    assert len({record["pair_id"] for record in records}) == len(records)
    keys = Counter((record["request_id"], record["candidate"]) for record in records)
    assert set(keys.values()) == {1}
    assert {key for key in keys if key[1] == "v2"} == {(f"r{n}", "v2") for n in range(REQUESTS)}
    wanted = {("r" + user[1:].decode(), "v3") for user in sampled}
    assert {key for key in keys if key[1] == "v3"} == wanted
    for record in records:
        number = int(record["request_id"][1:])
        version = int(record["candidate"][1:])
        assert record["primary_body"].encode() == answer_of(1, body_of(number))
        assert record["candidate_body"].encode() == answer_of(version, body_of(number))
        assert record["equal"] is (number == 0)
        assert record["sample_prob"] == (1.0 if version == 2 else 0.3)


@pytest.mark.parametrize(
    ("behaviour", "status"), [(hang, "timeout"), (None, "connect_error"), (reset, "reset")]
)
async def test_broken_candidates_cost_no_user_anything(
    tmp_path: Path, behaviour: Behaviour | None, status: str
) -> None:
    """10,000 right answers; the records say how it broke, or shed: by the cap or the breaker."""
    async with Upstream(model(1)) as one, Upstream(behaviour or hang) as two:
        ports = {"v1": one.port, "v2": two.port if behaviour else unused_port()}
        candidates: list[dict[str, Any]] = [{"name": "v2", "backend": "v2", "mirror": "100%"}]
        if behaviour is hang:
            candidates[0]["timeout"] = "2s"
        with running(config(ports, candidates), tmp_path) as instance:
            address = instance.runtime["listen"]
            answers = await send_all(address, range(REQUESTS), concurrency=CONCURRENCY)
            assert answers == {n: answer_of(1, body_of(n)) for n in range(REQUESTS)}
            records = await until(
                lambda: found if len(found := local_records(instance)) >= REQUESTS else None,
                "every record",
            )
            accounts = await asyncio.to_thread(wait_balanced, instance)
            assert accounts["pairs journaled"]["parts"] == {"acknowledged": REQUESTS}
    statuses = Counter(record["candidate_status"] for record in records)
    assert len(records) == REQUESTS
    assert set(statuses) <= {status, "shed"}
    assert statuses[status] >= 5
    assert all(record["primary_status"] == "ok" for record in records)
    assert not any(record["comparable"] for record in records)
