"""How the commands that change something give their order: by the admin API, or on the page itself.

With `--state-dir` the page is written here, whatever else is alive. Else the admin API is asked; when
it does not answer and the state directory is known, a `kill` goes on by itself: first on the page,
and if not even that can be written, as a kill file for the launcher.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxy.cli.instance import Instance, UnreachableError, call, config_of, find_instance, operator
from proxy.errors import AdminError, StateError
from proxy.state.control_page import ControlPage, Part, open_page
from proxy.state.kill import ALL_PARTS, FILE_PREFIX, Scope, UnknownScopeError
from proxy.state.orders import (
    Change,
    Source,
    order_kill,
    order_revive,
    order_weight,
    revive_corrupt,
    still_killed,
)
from proxy.telemetry import monotonic_s, wall_ns

#: A hung control must not hold up a kill that can go round it. Giving an order twice does no harm.
KILL_TIMEOUT_S = 0.5


@dataclass(frozen=True, slots=True)
class Order:
    """What an operator asks for.

    Attributes:
        action: `kill`, `revive` or `weight`.
        only: `mirror`, `canary`, `record` or empty.
        percent: for `weight`.
    """

    action: str
    scope: Scope
    reason: str
    only: str = ""
    percent: float = 0.0


@dataclass(frozen=True, slots=True)
class Done:
    """What became of an order.

    Attributes:
        killed: every latch that is closed now, with its parts.
        took_ms: from the start of the command to the answer.
        warnings: what did not go the usual way.
    """

    action: str
    scope: str
    old: list[str] | int
    new: list[str] | int
    killed: dict[str, list[str]]
    via: str
    took_ms: float
    warnings: tuple[str, ...] = ()


def give(order: Order, admin: str, state_dir: Path | None) -> Done:
    """Carry out an order; `admin` and `state_dir` are the command's options.

    Raises:
        AdminError: no instance was found, or it refused.
        StateError: the page cannot be changed.
    """
    began_s = monotonic_s()
    instance = find_instance(admin, state_dir)
    if state_dir is not None:
        return _on_page(order, state_dir, began_s, ())
    try:
        return _by_api(order, instance, began_s)
    except UnreachableError as exc:
        if instance.state_dir is None:
            raise AdminError(
                f"{exc}; on its machine, --state-dir FOLDER does it without the admin API"
            ) from exc
        if order.action != "kill":
            raise AdminError(
                f"{exc}; to do it without: add --state-dir {instance.state_dir}"
            ) from exc
        return _on_page(order, instance.state_dir, began_s, (str(exc),))


def _by_api(order: Order, instance: Instance, began_s: float) -> Done:
    body: dict[str, Any] = {"reason": order.reason}
    method, path = "POST", f"/api/v1/{order.action}"
    if order.action == "weight":
        method = "PUT"
        path = f"/api/v1/routes/{order.scope.route}/candidates/{order.scope.candidate}/weight"
        body["percent"] = order.percent
    else:
        names = {"route": order.scope.route, "candidate": order.scope.candidate, "only": order.only}
        body |= {key: value for key, value in names.items() if value}
    is_urgent = order.action == "kill" and instance.state_dir is not None
    timeout = {"timeout_s": KILL_TIMEOUT_S} if is_urgent else {}
    answer = call(instance, method, path, body, **timeout)
    warnings = (answer["log_error"],) if answer["log_error"] else ()
    return Done(
        order.action, answer["scope"], answer["old"], answer["new"], answer["killed"],
        f"admin API at {instance.admin_url}", _ms_since(began_s), warnings,
    )  # fmt: skip


def _on_page(order: Order, state_dir: Path, began_s: float, warnings: tuple[str, ...]) -> Done:
    source = Source(operator(), "state-dir", order.reason, wall_ns() // 1_000_000)
    try:
        change = _change(order, state_dir, source)
    except UnknownScopeError:
        raise
    except StateError as exc:
        if order.action != "kill" or order.only:
            raise
        return _leave_kill_file(order, state_dir, began_s, (*warnings, str(exc)))
    if change.log_error:
        warnings = (*warnings, change.log_error)
    decision = change.decision
    return Done(
        order.action, decision.scope, decision.old, decision.new, still_killed(change.after),
        f"control page in {state_dir}", _ms_since(began_s), warnings,
    )  # fmt: skip


def _change(order: Order, state_dir: Path, source: Source) -> Change:
    part = Part[order.only.upper()] if order.only else None
    orders: dict[str, Callable[[ControlPage], Change]] = {
        "kill": lambda page: order_kill(page, order.scope, part or Part.DEFAULT, source),
        "revive": lambda page: order_revive(page, order.scope, part or ALL_PARTS, source),
        "weight": lambda page: order_weight(page, order.scope, round(order.percent * 100), source),
    }
    try:
        page = open_page(state_dir)
        try:
            page.read()
        except StateError:
            page.close()
            raise
    except StateError:
        config = config_of(state_dir)
        if order.action == "revive" and order.scope == Scope() and not part and config:
            return revive_corrupt(state_dir, config, source)
        raise
    try:
        return orders[order.action](page)
    finally:
        page.close()


def _leave_kill_file(
    order: Order, state_dir: Path, began_s: float, warnings: tuple[str, ...]
) -> Done:
    name = ".".join(filter(None, (FILE_PREFIX, order.scope.route, order.scope.candidate)))
    path = state_dir / name
    try:
        path.write_text(f"{order.reason}\n", encoding="utf-8")
    except OSError as exc:
        raise StateError(
            f"{'; '.join(warnings)}; and cannot leave {path}: {exc.strerror}; "
            "send SIGUSR1 to the launcher"
        ) from exc
    parts = ["mirror", "canary"]
    return Done(
        order.action, str(order.scope), [], parts, {str(order.scope): parts},
        f"kill file {path}, which the launcher latches", _ms_since(began_s), warnings,
    )  # fmt: skip


def _ms_since(began_s: float) -> float:
    return round((monotonic_s() - began_s) * 1000, 1)
