"""The launcher's life: prepare, start, watch, stop.

One loop with a tick of 50 ms: signals, ended children, kill files, heartbeats. It waits for nobody and
holds no policy: restarts are `supervisor`'s, the order of a stop `stop`'s, kills `kill_watch`'s, and who
hangs is `hung_watch`'s.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from setproctitle import setproctitle

from proxy.config.resolved import Config, loads
from proxy.errors import StateError
from proxy.launcher.children import Child, Role, python_command
from proxy.launcher.config_watch import ConfigWatch
from proxy.launcher.hung_watch import LOOK_S, PATIENCE, HungWatch
from proxy.launcher.kill_watch import KillWatch
from proxy.launcher.log import log
from proxy.launcher.runtime import FILE_NAME, take_lock, write_runtime
from proxy.launcher.sockets import LaunchError, bound_address, listen
from proxy.launcher.stop import Phase, Stop
from proxy.launcher.supervisor import Supervisor
from proxy.state import decisions
from proxy.state.control_page import ControlPage, ControlState, for_config, open_page, update
from proxy.state.joining import held
from proxy.state.kill import Scope
from proxy.state.orders import Source, make_decision, weights_moved
from proxy.state.running_config import config_path
from proxy.state.shares_page import make_shares
from proxy.state.syncing import HangingDiskError, thread_of
from proxy.telemetry import monotonic_s, wall_ns

#: How long the loop sleeps: the delay of a kill file, and of a restart beyond its backoff. A signal, the
#: end of a child included, wakes it at once.
TICK_S = 0.05
#: How often decisions that the disk did not take are tried again.
LOG_AGAIN_S = 1.0
#: What the processes of a launcher that was killed get beyond their own time, to go.
MARGIN_S = 2.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGCHLD)


def run(
    config_path: Path,
    command: Callable[[Role], tuple[str, ...]] = python_command,
    source: Path | None = None,
) -> int:
    """Run an instance until SIGTERM or SIGINT; return the exit code.

    Args:
        config_path: a resolved config, written by `proxy.config.load.write_resolved`.
        command: how a role is run, to which the arguments of the contract are added.
        source: the file that it was made of, which control reads again; None: nobody does.

    Raises:
        LaunchError: a port or `state_dir` cannot be used; nothing was started then.
    """
    setproctitle("understudy: launcher")
    wakeup = _Wakeup()
    config = _load(config_path)
    state_dir = Path(config.state_dir)
    lock = take_lock(state_dir)
    # A runtime.json that nobody removed: a launcher was killed here, and its workers may still be
    # finishing their requests on our port.
    was_killed = (state_dir / FILE_NAME).exists()
    patience_s = config.limits.workers_stop_s + MARGIN_S if was_killed else 0.0
    with (
        listen(config.listen, "listen", patience_s=patience_s) as public,
        listen(config.admin.listen, "admin.listen", patience_s=patience_s) as admin,
    ):
        page = _prepare_page(state_dir, config)
        plan = _Plan(config_path, command, source)
        launcher = _Launcher(config, plan, (public, admin), page)
        try:
            launcher.latch()
            launcher.announce()
            launcher.loop(wakeup)
        finally:
            # A disk that hangs is waited for by the thread, and this process ends after it.
            with suppress(HangingDiskError):
                path = state_dir / FILE_NAME
                thread_of(FILE_NAME).do(FILE_NAME, lambda: path.unlink(missing_ok=True))
            os.close(lock)
    log("info", "stopped")
    return 0


def _load(config_path: Path) -> Config:
    try:
        config = loads(config_path.read_bytes())
        Path(config.state_dir).mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise LaunchError(f"cannot use {exc.filename}: {exc.strerror}") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise LaunchError(
            f"{config_path} is no resolved config of this version ({exc!r}); "
            "start with `understudy serve CONFIG`, which writes one"
        ) from exc
    return config


def _prepare_page(state_dir: Path, config: Config) -> ControlPage | None:
    """Open the control page and adapt it to `config`; leave a corrupt one exactly as it is."""
    try:
        page = open_page(state_dir, create=True)
    except StateError as exc:
        _complain_of_page(exc)
        return None
    seen: list[ControlState] = []

    def adapt(before: ControlState) -> ControlState:
        seen.append(before)
        return _adapted(config, before)

    try:
        after = update(page, adapt)
    except StateError as exc:
        _complain_of_page(exc)
    else:
        _log_start(state_dir, seen[0], after)
    return page


def _log_start(state_dir: Path, before: ControlState, after: ControlState) -> None:
    """Put into the decisions log that another config runs than before, and which weights it moved."""
    if before.config_version in ("", after.config_version):
        return
    source = Source("understudy", "start", "another config than before", wall_ns() // 1_000_000)
    versions = before.config_version, after.config_version
    start = make_decision("start", Scope(), *versions, source)
    error = decisions.append_all(state_dir, (start, *weights_moved(before, after, source)))
    if error:
        log("error", "decision_not_logged", why=error)


def _adapted(config: Config, before: ControlState) -> ControlState:
    """Return the state to start with: `before`, as `config` wants it; a new replica's is held."""
    state = for_config(config, before)
    is_fresh = before == ControlState()
    return held(state, Path(config.state_dir)) if config.replicas and is_fresh else state


def _complain_of_page(exc: StateError) -> None:
    log(
        "error",
        "control_page_unusable",
        why=str(exc),
        effect="workers serve the primary only; nothing is mirrored",
        mend="understudy revive --reason TEXT",
    )


class _Wakeup:
    """Signals as bytes on a pipe, so that the loop can wait for them and for time at once."""

    def __init__(self) -> None:
        self._read_end, write_end = os.pipe()
        os.set_blocking(self._read_end, False)
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        for number in _SIGNALS:
            signal.signal(number, lambda *_: None)

    def wait(self, timeout_s: float) -> bytes:
        """Return the numbers of the signals that came, after at most `timeout_s`."""
        ready, _, _ = select.select([self._read_end], [], [], timeout_s)
        return os.read(self._read_end, 4096) if ready else b""


@dataclass(frozen=True, slots=True)
class _Plan:
    """How children are run; see `run`."""

    config_path: Path
    command: Callable[[Role], tuple[str, ...]]
    source: Path | None


class _Launcher:
    """The children, their stop and the kill watch of one instance."""

    def __init__(
        self,
        config: Config,
        plan: _Plan,
        listeners: tuple[socket.socket, socket.socket],
        page: ControlPage | None,
    ) -> None:
        self._config = config
        self._config_path = plan.config_path
        self._config_version = config.version
        self._public, self._admin = listeners
        self._state_dir = Path(config.state_dir)
        self._supervisor = Supervisor(self._children(plan), self._publish)
        self._stop = Stop(self._supervisor, config.limits)
        self._kill_watch = KillWatch(
            self._state_dir, page, lambda: self._supervisor.send(Role.WORKER, signal.SIGUSR2)
        )
        self._hung_watch = HungWatch(self._state_dir)
        self._config_watch = ConfigWatch(self._state_dir)
        self._log_again_s = 0.0

    def _children(self, plan: _Plan) -> list[Child]:
        shares = make_shares(self._config.workers)  # lives as long as the launcher

        def child(role: Role, index: int, listener: socket.socket | None = None) -> Child:
            words = [*plan.command(role), "--config", str(plan.config_path)]
            if role is not Role.CONTROL:
                words += ["--index", str(index)]
            elif plan.source is not None:
                words += ["--source", str(plan.source)]
            inherited = {"--fd": listener.fileno()} if listener else {}
            if role is Role.WORKER and shares >= 0:
                inherited["--shares"] = shares
            words += [word for name, each in inherited.items() for word in (name, str(each))]
            return Child(role, index, tuple(words), tuple(inherited.values()))

        return [
            *(child(Role.WORKER, index, self._public) for index in range(self._config.workers)),
            child(Role.CONTROL, 0, self._admin),
            *(child(Role.RECORDER, index) for index in range(self._config.recorders)),
        ]

    def latch(self) -> None:
        """Latch the kill that waits in a file: it holds before anybody learns that we listen."""
        self._kill_watch.look(monotonic_s(), wall_ns() // 1_000_000)

    def announce(self) -> None:
        """Say where the instance listens: to programs, in the log and to the person who waits."""
        public, admin = bound_address(self._public), bound_address(self._admin)
        self._publish()
        log(
            "info", "listening", scheme=self._config.scheme, listen=str(public), admin=str(admin), pid=os.getpid(),
            config_version=self._config.version, state_dir=str(self._state_dir),
            workers=self._config.workers,
        )  # fmt: skip
        line = f"understudy listens on {self._config.scheme}://{public}, admin on http://{admin}\n"
        try:
            os.write(sys.stdout.fileno(), line.encode())
        except (OSError, ValueError):  # no stdout, or nobody reads it
            return

    def loop(self, wakeup: _Wakeup) -> None:
        """Run until everything has stopped."""
        numbers = b""
        while not self._stop.is_over:
            now_s, wall_ms = monotonic_s(), wall_ns() // 1_000_000
            for number in numbers:
                self._on_signal(number, now_s)
            self._supervisor.reap(now_s)
            self._kill_watch.look(now_s, wall_ms)
            self._replace_hung(now_s)
            self._follow_config(now_s)
            self._log_decisions(now_s)
            self._supervisor.start_due(now_s, wall_ms)
            self._stop.advance(now_s)
            if not self._stop.is_over:
                numbers = wakeup.wait(TICK_S)

    def _replace_hung(self, now_s: float) -> None:
        if self._stop.phase is not Phase.RUNNING:
            return  # it has deadlines of its own
        for index in self._hung_watch.hung(now_s, self._supervisor.living(Role.WORKER)):
            why = f"its heartbeat has stood still for {PATIENCE * LOOK_S:g} s"
            self._supervisor.replace(Role.WORKER, index, why)

    def _follow_config(self, now_s: float) -> None:
        """Start children with the config that is in place now, and tell commands which it is."""
        version = self._config_watch.changed(now_s, self._config_version)
        if version is not None:
            path = config_path(self._state_dir, version)
            self._supervisor.replace_argument(str(self._config_path), str(path))
            self._config_path, self._config_version = path, version
            log("info", "config_followed", config_version=version)
            self._publish()

    def _log_decisions(self, now_s: float) -> None:
        """Log what the disk did not take at first."""
        if now_s >= self._log_again_s:
            self._log_again_s = now_s + LOG_AGAIN_S
            decisions.retry(self._state_dir)

    def _on_signal(self, number: int, now_s: float) -> None:
        name = signal.Signals(number).name
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stop.request(now_s, name)
        elif number == signal.SIGUSR1:
            self._kill_watch.kill_everything(name)
        elif number == signal.SIGHUP:
            # Control reads the config when it starts, too, so one that is down misses nothing.
            log("info", "reload_asked", signal=name)
            self._supervisor.send(Role.CONTROL, signal.SIGHUP)

    def _publish(self) -> None:
        runtime: dict[str, Any] = {
            "pid": os.getpid(),
            "scheme": self._config.scheme,
            "listen": str(bound_address(self._public)),
            "admin": str(bound_address(self._admin)),
            "config_version": self._config_version,
            "workers": self._config.workers,
            "processes": self._supervisor.statistics(),
        }
        try:
            # Beside the loop: a disk that hangs must hold up neither kills nor restarts.
            thread_of(FILE_NAME).do(FILE_NAME, lambda: write_runtime(self._state_dir, runtime))
        except (OSError, HangingDiskError) as exc:
            # The proxy serves without it; only commands find it less easily.
            log("error", "runtime_not_written", why=getattr(exc, "strerror", None) or str(exc))
