"""Whether a reload of the config concerns the recorder: only where pairs and spans go does.

How a pair is expanded is the business of the config that it was made under, whatever runs by now.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

from proxy.config.resolved import Config
from proxy.errors import StateError
from proxy.state.running_config import read_config, read_state

#: How often the control page is looked at; workers journal meanwhile as ever.
LOOK_S: Final = 0.5


def concerns(config: Config) -> tuple[Any, ...]:
    """Return all of a config that the sinks are made of, and for a ramp the config: its evidence."""
    has_ramp = any(route.ramp is not None for route in config.routes)
    version = config.version if has_ramp else ""
    return config.record.kafka, config.telemetry, config.limits.journal_disk_bytes, version


async def next_config(config: Config) -> Config:
    """Return the config that runs once it has other sinks than `config`."""
    state_dir = Path(config.state_dir)
    seen = 0
    while True:
        try:
            state = read_state(state_dir)
            if state.config_revision != seen:
                found = read_config(state_dir, state.config_version)
                if concerns(found) != concerns(config):
                    return found
                seen = state.config_revision
        except StateError:
            pass  # an unreadable page changes no config
        await asyncio.sleep(LOOK_S)
