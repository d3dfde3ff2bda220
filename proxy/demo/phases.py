"""The phases of the demo's traffic: shadow, two ramps, kill, revive, crash.

Decides what is ordered when, and what is counted at the candidates' own servers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from proxy.demo.admin import ROUTE, Admin, server_stats
from proxy.demo.checks import BAD, GOOD, GOOD_VERSION, Kill, Measured
from proxy.demo.models import SPECS
from proxy.demo.ramping import Ramping, follow, place_of
from proxy.demo.stage import Board, Stage
from proxy.demo.traffic import PRIMARY, Load, Tally, Traffic
from proxy.telemetry import monotonic_s, wall_ns

PHASES: Final = 6
#: After the kill: copies that were on their way have arrived by then.
_SETTLE_S: Final = 0.25
#: After a ramp has ended, so that the phase shows what holds then.
_AFTER_S: Final = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """How much traffic there is, and how far a ramp goes at a time.

    Attributes:
        rate: requests a second, at most.
        seconds: of the phases that no ramp ends: shadow, kill and revive.
        weights: of the ramp's steps, percent, rising.
    """

    rate: float
    seconds: tuple[float, float, float]
    weights: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """Where the phases play.

    Attributes:
        stage, board: what they show on.
        measured: what they fill.
        servers: the model servers' URLs by name.
        crash: ends the good candidate's server without warning.
    """

    stage: Stage
    board: Board
    measured: Measured
    servers: Mapping[str, str]
    crash: Callable[[], None]

    def begin(self, title: str, count: int | None, tally: Tally) -> None:
        """Let the board show a phase."""
        board = self.board
        if board.title:
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
        shadow_s, kill_s, revive_s = self._plan.seconds
        tally = await self._counted("shadow", "both candidates get copies", shadow_s, (PRIMARY,))
        self._end("shadow", f"{tally.answered:,} requests, the primary answers all", tally)
        self._scene.stage.plan(self._plan.weights)
        await self._halted()
        await self._promoted()
        self._scene.stage.title("What else happens to a candidate that serves everybody")
        await self._kill(kill_s)
        await self._admin.revive("demo: open the kill again")
        measured = self._scene.measured
        measured.after_kill = range(self._first_after, self._traffic.sent)
        self._traffic.primary_only_from = None
        both = PRIMARY, GOOD_VERSION
        tally = await self._counted("revive", "revived", revive_s, both)
        users = len(tally.users_of(GOOD_VERSION))
        self._end("revive", f"{users} of {len(tally.users)} users are back on {GOOD}", tally)
        await self._crash()

    @property
    def _first_after(self) -> int:
        kill = self._scene.measured.kill
        return kill.first_after if kill else self._traffic.sent

    async def _halted(self) -> None:
        """Let the bad candidate ask for users; the evidence says no."""
        ramping = self._ramping(BAD)
        await self._admin.start_ramp(BAD, "demo: a release that passed its tests")
        end = follow(self._admin, ramping, "rolled_back", self._tell)
        tally = await self._while("halted", f"the ramp of {BAD}", (PRIMARY,), end)
        stats = (await server_stats(dict(self._scene.servers)))[SPECS[-1].name]
        live = self._scene.measured.bad_live = stats["infer"] - stats["mirrored"]
        seen = f"{ramping.words} after {ramping.seconds:.1f} s; {live} users had an answer of it"
        self._end(BAD, seen, tally)

    async def _promoted(self) -> None:
        """Let the good candidate have one user after the other, as the evidence grows."""
        ramping = self._ramping(GOOD)
        await self._admin.start_ramp(GOOD, "demo: a release that passed its tests")
        end = follow(self._admin, ramping, "promoted", self._tell)
        both = PRIMARY, GOOD_VERSION
        tally = await self._while("promoted", f"the ramp of {GOOD}", both, end)
        weight = ramping.told["effective_weight_bp"] / 100
        seen = f"{ramping.words} after {ramping.seconds:.1f} s; {weight:g}% of the users have it"
        self._end(GOOD, seen, tally)

    async def _crash(self) -> None:
        """End the server of the candidate that serves everybody, and do nothing about it."""
        told = self._scene.measured.ramps[GOOD].decisions
        ramping = Ramping(GOOD, list(told))
        self._scene.measured.crash = self._scene.board.ramping = ramping

        async def watch() -> None:
            await asyncio.sleep(_AFTER_S)
            self._scene.stage.say(f"[dim]$ kill -9 ...  # the server of {GOOD}[/dim]")
            self._scene.measured.crashed_ms = wall_ns() // 1_000_000
            self._scene.crash()
            await follow(self._admin, ramping, "rolled_back", self._tell)

        both = PRIMARY, GOOD_VERSION
        tally = await self._while("crash", f"{GOOD} loses its server", both, watch())
        rescued = ramping.told["rescued"]
        seen = (
            f"{ramping.words} after {ramping.seconds:.1f} s; {rescued} calls of its users "
            "were rescued"
        )
        self._end("crash", seen, tally)

    def _ramping(self, candidate: str) -> Ramping:
        ramping = self._scene.measured.ramps[candidate] = Ramping(candidate)
        self._scene.board.ramping = ramping
        self._scene.stage.say(f"[dim]$ understudy ramp start {ROUTE} --candidate {candidate}[/dim]")
        return ramping

    async def _while(
        self, name: str, title: str, allowed: Sequence[str], watch: Coroutine[Any, Any, None]
    ) -> Tally:
        """Send traffic until `watch` returns, and a moment longer."""
        async with asyncio.TaskGroup() as group:
            phase = group.create_task(self._phase(name, title, None, allowed))
            await watch
            await asyncio.sleep(_AFTER_S)
            self._traffic.finish()
        return phase.result()

    def _tell(self, decision: Mapping[str, Any]) -> None:
        """Show a decision that rests on evidence."""
        if decision["action"] in ("ramp_pass", "ramp_halt"):
            self._scene.stage.evidence(place_of(decision["old"][0]), decision["evidence"])

    async def _counted(
        self, name: str, title: str, seconds: float, allowed: Sequence[str]
    ) -> Tally:
        return await self._phase(name, title, int(self._plan.rate * seconds), allowed)

    async def _phase(
        self, name: str, title: str, count: int | None, allowed: Sequence[str]
    ) -> Tally:
        self._number += 1
        tally = Tally()
        self._scene.begin(f"{self._number}/{PHASES} {title}", count, tally)
        await self._traffic.run(Load(count, self._plan.rate), allowed, tally)
        self._scene.measured.tallies[name] = tally
        return tally

    async def _kill(self, seconds: float) -> None:
        """Kill in the middle of the phase's traffic, and count at the candidates themselves."""
        middle = int(self._plan.rate * seconds / 2)
        before = self._traffic.sent
        both = PRIMARY, GOOD_VERSION
        async with asyncio.TaskGroup() as group:
            title = "kill switch in the middle of the traffic"
            phase = group.create_task(self._counted("kill", title, seconds, both))
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
        latency = f"p99 {tally.latency_ms(0.99) or 0:.0f} ms"
        self._scene.stage.done(name, f"{text} · {latency}{trouble}")
