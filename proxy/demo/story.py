"""The demo's story: train, serve, mirror, ramp, kill, revive, crash, stop, compare, check.

Decides the order of things and who is started and ended when. What must hold is `checks`'s
business, what a right answer is `traffic`'s, how it looks `stage`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from rich.live import Live

from proxy.analysis.judging import Judging
from proxy.analysis.sources import open_source
from proxy.analysis.summarise import summarise
from proxy.analysis.summary import Selection, Summary
from proxy.config.load import load_config
from proxy.demo.admin import Admin, wait_ready
from proxy.demo.checks import BAD, BAD_VERSION, GOOD, GOOD_VERSION, Measured
from proxy.demo.client import NoAnswerError
from proxy.demo.folder import CONFIG, Folder
from proxy.demo.models import SPECS, Digits, Trained, load_data, train
from proxy.demo.pair_log import PairLog
from proxy.demo.phases import Phases, Plan, Scene
from proxy.demo.processes import Child, ProcessError, python, start, start_model, wait_url
from proxy.demo.stage import Board, Stage
from proxy.demo.traffic import (
    PRIMARY,
    USERS,
    Traffic,
    ask_directly,
    label_of,
    row_body,
    row_of,
    trickle,
)
from proxy.errors import UnderstudyError
from proxy.telemetry import monotonic_s

_REDRAW_S: Final = 0.2
_DRAIN_S: Final = 15.0
#: Requests a second of `play`.
TRICKLE_RATE: Final = 20.0


@dataclass(frozen=True, slots=True)
class Running:
    """What runs: the proxy, its URLs, and the model servers' URLs by name."""

    proxy: Child
    url: str
    admin_url: str
    servers: dict[str, str]


class Story:
    """One demo in `folder`. Use as a context manager: leaving it ends every process.

    Attributes:
        running: what runs, once `start` has returned.
        measured: what was measured so far.
    """

    running: Running

    def __init__(self, folder: Folder, stage: Stage) -> None:
        self.folder = folder
        self._stage = stage
        self._stack = ExitStack()
        self._children: dict[str, Child] = {}
        self._digits: Digits = load_data()
        self._bodies = [row_body(n, row) for n, row in enumerate(self._digits.held_out_rows)]
        self.trained: list[Trained] = []
        self._board = Board(self.trained, PairLog(folder.state / "pairs"))
        self.measured = Measured(self._board.log, {})

    def __enter__(self) -> Story:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def train(self) -> None:
        """Train the models and write them to the folder."""
        self._stage.title(
            f"Training on scikit-learn's digits; tested on {len(self._bodies)} held-out rows"
        )
        for spec in SPECS:
            with self._stage.busy(f"training {spec.name}"):
                trained = train(spec, self._digits)
            trained.model.save(self.folder.model(spec.name))
            self.trained.append(trained)
            self._stage.say(
                f"[green]✓[/green] [bold]{spec.name}[/bold]  {trained.accuracy:.1%} right  "
                f"{spec.role}: {spec.summary}"
            )
        rows = self._digits.held_out_rows
        self.measured.labels = {t.spec.version: t.model.predict(rows)[0] for t in self.trained}

    async def start(self, plan: Plan) -> None:
        """Start the model servers and the proxy; wait until they serve.

        Args:
            plan: says how candidates get their users.

        Raises:
            ProcessError: one did not start.
        """
        self._stage.title("Starting three model servers and the proxy")
        with self._stage.busy("starting"):
            children = [self._start_model(trained) for trained in self.trained]
            servers = {child.name: await asyncio.to_thread(wait_url, child) for child in children}
            self.folder.write_config(servers, plan.weights)
            command = [*python(), "-m", "proxy", "serve", CONFIG]
            proxy = start("the proxy", command, self.folder.log("proxy"), cwd=self.folder.path)
            self._stack.callback(proxy.stop)
            url, admin_url = await wait_ready(proxy, self.folder.state)
            self.running = Running(proxy, url, admin_url, servers)
        for name, server in servers.items():
            self._stage.say(f"[green]✓[/green] {name}  {server}")
        self._stage.say(f"[green]✓[/green] proxy      {url}")
        self._stage.say(f"[green]✓[/green] dashboard  {admin_url}")

    def _start_model(self, trained: Trained, flags: Sequence[str] = ()) -> Child:
        spec = trained.spec
        model, log = self.folder.model(spec.name), self.folder.log(spec.name)
        child = start_model(spec.name, spec.version, model, log, flags)
        self._stack.callback(child.stop)
        self._children[spec.name] = child
        return child

    def _crash(self) -> None:
        """End the good candidate's server as a machine that fails does."""
        self._children[SPECS[1].name].process.kill()

    def repair(self) -> None:
        """Start the server that was ended again, where it was.

        Raises:
            ProcessError: it did not start.
        """
        trained = self.trained[1]
        port = urlsplit(self.running.servers[trained.spec.name]).port
        wait_url(self._start_model(trained, ("--port", str(port))))

    async def perform(self, plan: Plan) -> None:
        """Send the traffic of all phases, and give the orders between and within them.

        Raises:
            AdminError: the proxy refused an order.
            ProcessError: a model server does not answer as its model does.
        """
        self._stage.title(
            f"{USERS} users ask {plan.rate:g} times a second: rows that no model has seen"
        )
        traffic = Traffic(self.running.url, self._bodies, await self._expected())
        async with Admin(self.running.admin_url) as admin:
            self.measured.weights = plan.weights
            servers = self.running.servers
            scene = Scene(self._stage, self._board, self.measured, servers, self._crash)
            try:
                await self._shown(Phases(scene, traffic, admin, plan))
            except* UnderstudyError as errors:
                raise _first_error(errors) from errors
            with self._stage.busy("waiting for the last pairs"):
                self.measured.sent = traffic.sent
                self.measured.status = await self._settled(admin)

    async def _shown(self, phases: Phases) -> None:
        """Run the phases with the live board."""
        with self._stage.live(self._board) as live:
            async with asyncio.TaskGroup() as group:
                redraw = group.create_task(self._redraw(live))
                await phases.run()
                redraw.cancel()

    async def _expected(self) -> dict[str, list[bytes]]:
        """Return what the servers that may serve say about each row, asked without the proxy."""
        expected = {}
        for trained in self.trained[:2]:
            spec = trained.spec
            try:
                answers = await ask_directly(self.running.servers[spec.name], self._bodies)
            except* NoAnswerError as failures:
                raise ProcessError(f"{spec.name}: {failures.exceptions[0]}") from failures
            labels = self.measured.labels[spec.version]
            if any(label_of(a) != label for a, label in zip(answers, labels, strict=True)):
                raise ProcessError(f"{spec.name} does not answer as its model does")
            expected[spec.version] = answers
        return expected

    async def _redraw(self, live: Live) -> None:
        while True:
            self._board.log.read()
            live.refresh()
            await asyncio.sleep(_REDRAW_S)

    async def _settled(self, admin: Admin) -> dict[str, object]:
        """Return the status when nothing is under way and every pair is in the log, or late."""
        deadline_s = monotonic_s() + _DRAIN_S
        while True:
            status = await admin.status()
            accounts = {account["name"]: account for account in status["ledger"]}
            self._board.log.read()
            is_settled = not any(account["open"] for account in accounts.values())
            is_logged = self._board.log.pairs == accounts["pairs decided"]["total"]
            if (is_settled and is_logged) or monotonic_s() > deadline_s:
                return status
            await asyncio.sleep(_REDRAW_S)

    def stop(self) -> None:
        """Stop the proxy, which flushes what it holds, and read the log to its end."""
        with self._stage.busy("stopping the proxy"):
            self.measured.exit_code = self.running.proxy.stop()
        self._board.log.read()

    def compare(self) -> Summary:
        """Return the comparison of what was recorded, as `understudy compare` makes it.

        Until the crash: what came after it says nothing about the models.

        Raises:
            SourceError: the records cannot be read.
        """
        judging = Judging(config=load_config(self.folder.config))
        until = Selection(until_ms=self.measured.crashed_ms)
        return summarise(open_source(str(self.folder.state)), until, judging=judging)

    def who_is_right(self) -> list[str]:
        """Return, for each candidate, what the labels say about the pairs that differ.

        The proxy never saw the labels; the demo has them.
        """
        truth, predicted = self._digits.held_out_labels, self.measured.labels
        sentences = []
        for name, version in ((GOOD, GOOD_VERSION), (BAD, BAD_VERSION)):
            verdicts = self.measured.log.candidates[name].verdicts
            rows = [row_of(request) for request, is_equal in verdicts.items() if not is_equal]
            candidate, primary = (
                sum(int(predicted[v][row] == truth[row]) for row in rows)
                for v in (version, PRIMARY)
            )
            sentences.append(
                f"{len(rows)} pairs differ: {name} is right in {candidate}, "
                f"the primary in {primary}"
            )
        return sentences

    async def play(self) -> None:
        """Keep a little traffic going until cancelled, so that there is something to see."""
        await trickle(self.running.url, self._bodies, TRICKLE_RATE)

    def sample_request(self) -> bytes:
        """Return an inference request to try by hand."""
        return self._bodies[0]


def _first_error(group: BaseExceptionGroup[UnderstudyError]) -> UnderstudyError:
    """Return the first error of a group of groups: a person wants one sentence."""
    first = group.exceptions[0]
    return _first_error(first) if isinstance(first, BaseExceptionGroup) else first
