"""The admin application over a real state directory."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from proxy.control.app import build_app
from proxy.control.snapshot import Observer
from proxy.state.control_page import for_config, open_page, update
from proxy.state.stats_file import Layout, open_stats
from tests.support.admin import Instance
from tests.support.resolved_config import small_config


@pytest.fixture
def token() -> str:
    """No token, unless a module says otherwise."""
    return ""


@pytest.fixture
def instance(tmp_path: Path, token: str) -> Iterator[Instance]:
    """A healthy instance."""
    config = small_config(tmp_path, token=token)
    page = open_page(tmp_path, create=True)
    update(page, lambda before: for_config(config, before))
    observer = Observer(config)
    stats = open_stats(tmp_path, 0, Layout(config))
    found = Instance(config, tmp_path, page, stats, observer)
    found.write_runtime(os.getpid())
    found.write_recorder()
    yield found
    page.close()
    stats.close()
    observer.close()


@pytest.fixture
async def client(instance: Instance) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the admin application."""
    transport = httpx.ASGITransport(build_app(instance.config, instance.observer))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:9090") as client:
        yield client
