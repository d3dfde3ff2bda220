"""Fixtures that the whole test session shares."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from proxy.dataplane import client
from tests.support.kafka import BrokerError, can_start_broker, mock_broker, real_broker

# No deadline: on a shared machine it tells how busy the others are.
settings.register_profile("fast", max_examples=60, deadline=None)
settings.register_profile("deep", max_examples=2_000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

CACHE = Path(__file__).parent.parent / ".cache" / "kafka"

#: Folders of files that take long, most of it waiting.
SLOW_FOLDERS = frozenset({"acceptance", "recipes", "demo", "recorder"})

#: Starting a broker, and loading it the first time, takes longer than a test may.
BROKER_TIMEOUT_S = 700


def pytest_configure() -> None:
    """Refuse to test the sources when the compiled data plane was asked for."""
    compiled = not str(client.__file__).endswith(".py")
    if compiled != (os.environ.get("UNDERSTUDY_COMPILED") == "1"):
        pytest.exit(f"UNDERSTUDY_COMPILED and what would be tested differ: {client.__file__}", 4)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests that need a broker the time to start one, and begin with the slow folders.

    With two files at a time, a slow one that comes last would run alone.
    """
    items.sort(key=lambda item: not SLOW_FOLDERS.intersection(item.path.parts))
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if {"kafka_bootstrap", "kafka_cache"} & set(fixtures):
            item.add_marker(pytest.mark.timeout(BROKER_TIMEOUT_S))


@pytest.fixture(scope="session")
def kafka_cache() -> Path:
    """Return where the broker's jars are kept; skip where no real broker can be had.

    CI must have one: there, a missing one is a failure.
    """
    if not can_start_broker():
        message = "a real Kafka broker needs java and mvn on the path"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return CACHE


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Give the address of a broker: yours, else a real one started here, else the mock.

    `KAFKA_BOOTSTRAP_SERVERS` names yours. In CI (`CI=true`) the real one is required.
    """
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    in_ci = os.environ.get("CI") == "true"
    if given:
        yield given
    elif can_start_broker():
        try:
            with real_broker(CACHE, tmp_path_factory.mktemp("kafka") / "data") as bootstrap:
                yield bootstrap
        except BrokerError as exc:
            pytest.fail(f"the real Kafka broker did not start: {exc}")
    elif in_ci:
        pytest.fail("CI must run against a real broker: java and mvn are missing")
    else:
        with mock_broker() as bootstrap:
            yield bootstrap
