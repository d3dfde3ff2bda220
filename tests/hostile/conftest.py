"""Hostile clients meet the event loop that workers run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Give uvloop: pauses, resets and half-closed sockets differ from asyncio's own loop."""
    return {"uvloop": uvloop.new_event_loop}
