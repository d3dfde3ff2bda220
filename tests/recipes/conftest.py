"""Pairs that the proxy really wrote: one serve tree per sink, with traffic, for all recipes."""

from __future__ import annotations

import uuid
from typing import Any

import httpx
import orjson
import pytest

from tests.recipes.model import candidate, model, noisy_primary
from tests.recipes.recorded import Recorded, Topic
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.instance import Instance, running, understudy
from tests.support.kafka_topics import consume, create_topic
from tests.support.pair_log import wait_pairs

#: Requests to each route.
REQUESTS = 200


def _config(primary: str, candidate_url: str, **more: Any) -> dict[str, Any]:
    def route(name: str, mirror: str) -> dict[str, Any]:
        return {
            "name": name,
            "match": {"path_prefix": f"/{name}"},
            "protocol": "json",
            "primary": "v1",
            "split_by": "header:x-user-id",
            "segments": {"tier": "header:x-tier"},
            "candidates": [{"name": "v2", "backend": "v2", "mirror": mirror}],
            "replicate": "30%",
            "compare": {"prediction": "y", "comparator": "numeric"},
        }

    return {
        "backends": {"v1": {"endpoints": [primary]}, "v2": {"endpoints": [candidate_url]}},
        "routes": [route("score", "100%"), route("rank", "50%")],
        **more,
    }


def _ask(base_url: str) -> None:
    """Ask about every number on both routes, each for a user of its own."""
    with httpx.Client(trust_env=False, timeout=PATIENCE_S) as client:
        for route in ("score", "rank"):
            for x in range(REQUESTS):
                answer = client.post(
                    f"{base_url}/{route}", json={"x": x},
                    headers={"x-user-id": f"u{x}", "x-request-id": f"{route}-{x}",
                             "x-tier": "gold" if x % 4 else "free"},
                )  # fmt: skip
                assert answer.status_code == 200


def _pairs(instance: Instance) -> int:
    """Return how many pairs there are, once no request and no pair is under way any more."""

    def settled() -> int:
        accounts = {account["name"]: account for account in instance.status()["ledger"]}
        requests, pairs = accounts["requests routed"], accounts["pairs decided"]
        is_settled = requests["total"] == 2 * REQUESTS and not requests["open"] + pairs["open"]
        return int(pairs["total"]) if is_settled else 0

    return wait_for(settled, "all pairs to be journaled")


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Record to the local log, export it to Parquet as the README says, and write labels."""
    folder = tmp_path_factory.mktemp("recorded")
    with (
        model(noisy_primary()) as v1,
        model(candidate) as v2,
        running(_config(v1, v2), folder) as instance,
    ):
        _ask(instance.base_url)
        records = wait_pairs(folder / "state", _pairs(instance))
    labels = [{"request_id": f"score-{x}", "label": x % 10} for x in range(0, REQUESTS, 2)]
    lines = [orjson.dumps(label) + b"\n" for label in labels]
    (folder / "labels.ndjson").write_bytes(b"".join(lines))
    done = understudy(
        "pairs", "export", "--from", "state", "--to", "parquet", "--out", "pairs.parquet",
        cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return Recorded(folder, records)


@pytest.fixture(scope="session")
def topic(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Topic:
    """Record to Kafka."""
    folder = tmp_path_factory.mktemp("shipped")
    prefix = f"recipes-{uuid.uuid4().hex[:8]}"
    name = f"{prefix}.pairs.v1"
    create_topic(kafka_bootstrap, name)
    kafka = {"bootstrap_servers": [kafka_bootstrap], "topic_prefix": prefix}
    with (
        model(noisy_primary()) as v1,
        model(candidate) as v2,
        running(_config(v1, v2, record={"kafka": kafka}), folder) as instance,
    ):
        _ask(instance.base_url)
        count = _pairs(instance)
        messages = consume(kafka_bootstrap, name, count)
    records = [orjson.loads(message.value() or b"") for message in messages]
    return Topic(kafka_bootstrap, name, records)
