"""Ramps as control runs them: the driver's ticks, and its webhooks beside it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from proxy.config.resolved import Config
from proxy.control.ramp_driver import TICK_S, RampDriver
from proxy.control.webhooks import Webhooks
from proxy.state.control_page import ControlPage

logger = logging.getLogger("understudy.control")


class Ramps:
    """The driver of one config with what it needs; `run` ticks until it is cancelled."""

    def __init__(self, config: Config, page: Callable[[], ControlPage]) -> None:
        self.webhooks = Webhooks()
        self.driver = RampDriver(config, page, self.webhooks)

    async def run(self) -> None:
        """Tick, and make the calls; a fault in one tick is logged, and the next one comes."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.webhooks.run())
            while True:
                try:
                    self.driver.tick()
                except Exception:
                    logger.exception("a tick of the ramps failed")
                await asyncio.sleep(TICK_S)
