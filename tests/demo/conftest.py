"""Real servers that the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from proxy.demo.processes import Child
from tests.support.models import digit_servers


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Child]]:
    """Serve the good models as they are, and the bad one slow and failing at every second call."""
    flags = {"digits-v3": ("--slow-ms", "20", "--fail-percent", "50")}
    with digit_servers(tmp_path_factory.mktemp("digits"), flags=flags) as running:
        yield running
