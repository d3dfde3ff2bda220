"""One route with a candidate that sees everything: its config, and the records that come of it."""

from __future__ import annotations

from typing import Any

from tests.support.instance import Instance
from tests.support.pair_log import wait_pairs

Records = list[dict[str, Any]]


def shadow_config(
    route: dict[str, Any], primary: str, candidate: str, **more: Any
) -> dict[str, Any]:
    """Return a config with one route, its candidate `v2` mirrored at 100%.

    Args:
        route: name, protocol and whatever else is not as usual.
        primary: URL of its backend.
        candidate: URL of its backend.
        more: sections beside it, such as `record`.
    """
    return {
        "workers": 1,
        "backends": {
            "v1": {"endpoints": [primary], "timeout": "10s"},
            "v2": {"endpoints": [candidate], "timeout": "10s"},
        },
        "routes": [
            {
                "primary": "v1",
                "split_by": "header:x-user-id",
                "candidates": [{"name": "v2", "backend": "v2", "mirror": "100%"}],
                **route,
            }
        ],
        **more,
    }


def records_of(instance: Instance, prefix: str, count: int) -> Records:
    """Wait for exactly `count` records whose request ids begin with `prefix`."""
    records = wait_pairs(instance.state_dir, count, prefix)
    assert len(records) == count
    return records
