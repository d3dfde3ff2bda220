"""Backends and a config for commands against a running instance."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.counting_backend import CountingBackend, counting_backend, two_workers


@pytest.fixture
def primary() -> Iterator[CountingBackend]:
    """The backend that serves users."""
    with counting_backend("primary") as backend:
        yield backend


@pytest.fixture
def candidate() -> Iterator[CountingBackend]:
    """The backend under trial."""
    with counting_backend("candidate") as backend:
        yield backend


@pytest.fixture
def config(primary: CountingBackend, candidate: CountingBackend) -> dict[str, Any]:
    """Two workers; the candidate v2 is mirrored and serves a fifth of the users."""
    return two_workers(primary, candidate)
