"""One broker for all tests of the recorder that stop, freeze or secure one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.authority import Authority
from tests.support.kafka import Broker, broker
from tests.support.kafka_security import FORMAT_OPTIONS, LISTENERS, security_settings


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return who has signed the certificate of `own_broker`."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def own_broker(
    kafka_cache: Path, tmp_path_factory: pytest.TempPathFactory, authority: Authority
) -> Iterator[Broker]:
    """Give a broker that a test may stop and freeze; it creates no topic by itself."""
    settings = {"auto.create.topics.enable": "false", **security_settings(authority)}
    data = tmp_path_factory.mktemp("own") / "data"
    with broker(kafka_cache, data, settings, FORMAT_OPTIONS, LISTENERS) as found:
        yield found


@pytest.fixture
def prefix() -> str:
    """Return a topic prefix that no other test uses."""
    return f"test-{uuid.uuid4().hex[:12]}"
