"""A state directory with a ramp in it: control's driver, ticked by hand, and recorders' words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from proxy.comparison.counts import three_counts
from proxy.comparison.evidence import EvidenceCounts, EvidenceKey, GateCounts
from proxy.comparison.gates import Metric
from proxy.config.resolved import Config, Gate, Ramp, Step, Webhook, digest
from proxy.control.ejections import Ejection
from proxy.control.judging import Judging
from proxy.control.ramps import Ramps
from proxy.ramp.state import RampState
from proxy.state import decisions
from proxy.state.control_page import CandidateState, ControlPage, for_config, open_page, update
from proxy.telemetry import wall_ns
from tests.support.resolved_config import small_config

MIN_PAIRS = 100


def ramp_config(
    state_dir: Path, *, approval: str = "auto", confirm: Webhook | None = None,
    notify: Webhook | None = None,
) -> Config:  # fmt: skip
    """Return a config whose candidate `v2` is ramped in two steps that may last for no time."""
    config = small_config(state_dir)
    steps = (
        Step(2_500, MIN_PAIRS, 0.0, 3600.0, approval),
        Step(10_000, MIN_PAIRS, 0.0, 3600.0, "auto"),
    )
    plan = Ramp(steps, (Gate("availability", 0.02, 0.0),), confirm, notify)
    candidate = replace(config.routes[0].candidates[0], weight_bp=0)
    route = replace(config.routes[0], ramp=plan, candidates=(candidate,))
    config = replace(config, routes=(route,))
    return replace(config, version=digest(config))


class Stage:
    """The driver and its surroundings.

    Attributes:
        page: the control page that all share.
        same, worse: what the recorder has counted so far.
        found: what the guards of workers have found.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.state_dir = Path(config.state_dir)
        self.page = open_page(self.state_dir, create=True)
        update(self.page, lambda before: for_config(config, before))
        self.same = self.worse = 0
        self.found: tuple[Ejection, ...] = ()
        self.restart()

    def restart(self) -> None:
        """Let control die and come back."""
        self.ramps = Ramps(
            self.config, self.give_page, Judging(is_threaded=False), lambda _: self.found
        )
        assert self.ramps.driver is not None
        assert self.ramps._webhooks is not None
        self.driver, self.webhooks = self.ramps.driver, self.ramps._webhooks

    def give_page(self) -> ControlPage:
        """Return the page, as control's observer would."""
        return self.page

    def close(self) -> None:
        """Unmap the page."""
        self.page.close()

    @property
    def state(self) -> RampState:
        """Where the ramp is."""
        return self.driver.entries["iris/v2"].kept.state

    @property
    def waits(self) -> str:
        """What it waits for."""
        return self.driver.entries["iris/v2"].waits

    @property
    def live(self) -> CandidateState:
        """The candidate on the page."""
        return self.page.read().routes["iris"].candidates["v2"]

    @property
    def decisions(self) -> list[dict[str, Any]]:
        """The decisions, the oldest first."""
        return decisions.read_last(self.state_dir, 1000)[::-1]

    def count(self, *, same: int = 0, worse: int = 0, age_ms: int = -1_000) -> None:
        """Let the recorder count pairs more; it has caught up `age_ms` ago (a second to come)."""
        self.same += same
        self.worse += worse
        counts = three_counts(better=0, same=self.same, worse=self.worse)
        key = EvidenceKey("iris", "iris", "v2", self.config.version, None, None)
        now_ms = wall_ns() // 1_000_000
        part = {
            "counts": EvidenceCounts(key, (GateCounts(Metric.AVAILABILITY, counts),)),
            "last_ms": now_ms,
        }
        content = {
            "updated_ms": now_ms,
            "caught_up_ms": now_ms - age_ms,
            "config_version": self.config.version,
            "parts": [part],
        }
        fresh = self.state_dir / ".evidence.new"
        fresh.write_bytes(orjson.dumps(content))
        fresh.replace(self.state_dir / "evidence-0.json")

    def tick(self) -> None:
        """Look once."""
        self.driver.tick()

    def gather(self, *, same: int = 1_000, worse: int = 0) -> None:
        """Draw the line of the step, count pairs behind it, and look again."""
        self.count()
        self.tick()
        self.count(same=same, worse=worse)
        self.tick()
