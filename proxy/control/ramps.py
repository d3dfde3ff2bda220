"""Ramps as control runs them: the driver of the config that runs, its ticks, and its webhooks.

The driver is imported with the first config that has a ramp: judging needs numpy, 15 MB that control
does without elsewhere.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from proxy.config.resolved import Config
from proxy.control.ejections import Ejection
from proxy.state.control_page import ControlPage

if TYPE_CHECKING:
    from proxy.control.judging import Judging
    from proxy.control.ramp_driver import RampDriver
    from proxy.control.replicas import Replicas
    from proxy.control.webhooks import Webhooks

logger = logging.getLogger("understudy.control")

#: How often the driver looks.
TICK_S: Final = 0.5


class Ramps:
    """What drives the ramps of the config that runs.

    Attributes:
        driver: None while the config has no ramp.

    Args:
        config: the one to begin with.
        page: returns the control page; raises StateError when it cannot be opened.
        judging: makes the verdicts; left out: on threads.
        ejections: tells what guards have found of a candidate; left out: there are none.
        replicas: with whom ramps are driven together; left out: alone.
    """

    def __init__(
        self,
        config: Config,
        page: Callable[[], ControlPage],
        judging: Judging | None = None,
        ejections: Callable[[tuple[str, str]], tuple[Ejection, ...]] = lambda _: (),
        replicas: Replicas | None = None,
    ) -> None:
        self._page = page
        self._ejections = ejections
        self._replicas = replicas
        self._judging = judging
        self._webhooks: Webhooks | None = None
        self.driver: RampDriver | None = None
        self.follow(config)

    def follow(self, config: Config) -> None:
        """Drive the ramps of `config` from now on; each goes on from what is remembered of it."""
        if all(route.ramp is None for route in config.routes):
            self.driver = None
            return
        if self._webhooks is None:
            self._webhooks = importlib.import_module("proxy.control.webhooks").Webhooks()
        if self._judging is None:
            self._judging = importlib.import_module("proxy.control.judging").Judging()
        means = (config, self._page, self._webhooks, self._judging, self._ejections)
        if self._replicas is None:
            self.driver = importlib.import_module("proxy.control.ramp_driver").RampDriver(*means)
            return
        module = importlib.import_module("proxy.control.shared_ramps")
        self.driver = module.SharedRampDriver(*means, self._replicas)

    def tick(self) -> None:
        """Let the driver look; a fault is logged."""
        try:
            if self.driver is not None:
                self.driver.tick()
        except Exception:
            logger.exception("a tick of the ramps failed")

    async def run(self) -> None:
        """Tick, and make the calls, until cancelled; a fault is logged, and the next tick comes."""
        calls: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as tasks:
            while True:
                if calls is None and self._webhooks is not None:
                    calls = tasks.create_task(self._webhooks.run())
                self.tick()
                await asyncio.sleep(TICK_S)
