"""The phases of the demo's traffic: shadow, ten percent, half, kill, revive.

Decides what is ordered when, and what is counted at the candidates' own servers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from proxy.demo.admin import Admin, server_stats
from proxy.demo.checks import GOOD, GOOD_VERSION, Kill, Measured
from proxy.demo.models import SPECS
from proxy.demo.stage import Board, Stage
from proxy.demo.traffic import PRIMARY, USERS, Load, Tally, Traffic
from proxy.telemetry import monotonic_s

#: Shares of the requests that the phases get.
SHARES: Final = {"shadow": 0.4, "ten": 0.15, "half": 0.15, "kill": 0.2, "revive": 0.1}
#: After the kill: copies that were on their way have arrived by then.
_SETTLE_S: Final = 0.25


@dataclass(frozen=True, slots=True)
class Plan:
    """How much traffic there is: requests in all, and at most so many a second."""

    requests: int
    rate: float


@dataclass(frozen=True, slots=True)
class Scene:
    """Where the phases play: what they show on, what they fill, the model servers' URLs."""

    stage: Stage
    board: Board
    measured: Measured
    servers: Mapping[str, str]

    def begin(self, title: str, count: int, tally: Tally) -> None:
        """Let the board show a phase."""
        board = self.board
        if board.count:
            board.done.append(board.tally)
        board.title, board.count, board.tally = title, count, tally


class Phases:
    """The phases of the traffic, in order."""

    def __init__(self, scene: Scene, traffic: Traffic, admin: Admin, plan: Plan) -> None:
        self._scene = scene
        self._traffic = traffic
        self._admin = admin
        self._plan = plan
        self._number = 0

    async def run(self) -> None:
        """Send the traffic of every phase, with the orders between and within them.

        Raises:
            AdminError: the proxy refused an order.
        """
        measured = self._scene.measured
        tally = await self._phase("shadow", "both candidates get copies", (PRIMARY,))
        self._end("shadow", f"{tally.answered:,} requests, the primary answers all", tally)
        for name, percent in (("ten", 10), ("half", 50)):
            await self._admin.weight(GOOD, percent, "demo: shift traffic")
            title = f"{percent}% of the users on {GOOD}"
            tally = await self._phase(name, title, (PRIMARY, GOOD_VERSION))
            users = len(tally.users_of(GOOD_VERSION))
            served = tally.served[GOOD_VERSION] / max(tally.answered, 1)
            seen = f"{GOOD} serves {served:.1%}, {users} of {USERS} users"
            self._end(f"{percent}%", seen, tally)
        await self._kill()
        await self._admin.revive("demo: open the kill again")
        measured.after_kill = range(self._first_after, self._traffic.sent)
        self._traffic.primary_only_from = None
        tally = await self._phase("revive", "revived", (PRIMARY, GOOD_VERSION))
        users = len(tally.users_of(GOOD_VERSION))
        self._end("revive", f"{users} users are back on {GOOD}", tally)

    @property
    def _first_after(self) -> int:
        kill = self._scene.measured.kill
        return kill.first_after if kill else self._traffic.sent

    async def _phase(self, name: str, title: str, allowed: Sequence[str]) -> Tally:
        self._number += 1
        load = Load(max(int(self._plan.requests * SHARES[name]), 1), self._plan.rate)
        tally = Tally()
        self._scene.begin(f"{self._number}/{len(SHARES)} {title}", load.count, tally)
        await self._traffic.run(load, allowed, tally)
        self._scene.measured.tallies[name] = tally
        return tally

    async def _kill(self) -> None:
        """Kill in the middle of the phase's traffic, and count at the candidates themselves."""
        middle = int(self._plan.requests * SHARES["kill"] / 2)
        before = self._traffic.sent
        async with asyncio.TaskGroup() as group:
            title = "kill switch in the middle of the traffic"
            phase = group.create_task(self._phase("kill", title, (PRIMARY, GOOD_VERSION)))
            await self._traffic.reach(before + middle)
            kill, settled = await self._order_kill()
        ended = await self._candidate_arrivals()
        kill = Kill(
            kill.certain, kill.first_after, kill.confirmed_s, kill.effect_s, ended[0] - settled
        )
        self._scene.measured.kill = kill
        seen = f"killed in {kill.effect_s * 1000:.1f} ms"
        more = self._traffic.sent - kill.first_after
        self._end("kill", f"{seen}, {more} since by the primary", phase.result())

    async def _order_kill(self) -> tuple[Kill, int]:
        """Return what the kill did, and how many requests the candidates had when all settled."""
        certain = frozenset(self._traffic.settled())
        ordered_s = monotonic_s()
        await self._admin.kill("demo: the kill switch")
        confirmed_s = monotonic_s() - ordered_s
        first_after = self._traffic.primary_only_from = self._traffic.sent
        await asyncio.sleep(_SETTLE_S)
        arrived, last_s = await self._candidate_arrivals()
        effect_s = max(last_s - ordered_s, 0.0)
        return Kill(certain, first_after, confirmed_s, effect_s, 0), arrived

    async def _candidate_arrivals(self) -> tuple[int, float]:
        """Return how many requests the candidates' servers have got, and when the last came."""
        stats = await server_stats(dict(self._scene.servers))
        candidates = [stats[spec.name] for spec in SPECS[1:]]
        return sum(s["infer"] for s in candidates), max(s["last_infer_s"] for s in candidates)

    def _end(self, name: str, text: str, tally: Tally) -> None:
        bad = tally.failed + tally.wrong
        trouble = f" · [bold red]{bad} wrong or failed[/bold red]" if bad else ""
        latency = (
            f"p50 {tally.latency_ms(0.5) or 0:.1f} ms, p99 {tally.latency_ms(0.99) or 0:.1f} ms"
        )
        self._scene.stage.done(name, f"{text} · {latency}{trouble}")
