"""How the commands that change something give their order: on the page itself, or by the admin API.

Where the instance runs on this machine and its folder may be written, the command changes the control
page itself, whatever else is alive: nothing is shorter, and nothing can wait in a queue. Elsewhere the
admin API is asked. A kill goes on when its way is blocked: from the API to the page, from a page that
refuses to a kill file for the launcher.

An order by the API may wait behind a control that is frozen or being replaced. A revive or a weight
therefore asks for the state first, and then says what it saw and until when it holds; a kill says
until when if it goes another way afterwards, and else holds whenever it arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from proxy.cli.instance import Instance, find_instance, with_token
from proxy.cli.order_answer import Done
from proxy.cli.quick_kill import QuickKill
from proxy.cli.state_dirs import can_order, is_running, is_state_dir, operator
from proxy.errors import AdminError, StateError
from proxy.state import kill as latch
from proxy.state.control_page import ControlPage, Part, decode, is_readable, open_page
from proxy.state.decision_record import Decision
from proxy.state.instance_config import config_of
from proxy.state.kill import ALL_PARTS, Scope, UnknownScopeError
from proxy.state.mending import kill_by_file, kill_by_signal, kill_past_the_disk, revive_corrupt
from proxy.state.orders import (
    Change,
    Source,
    killed_of,
    logged,
    make_decision,
    note_of,
    order_file_kills,
    order_kill,
    order_revive,
    order_weight,
)
from proxy.state.page_file import try_page
from proxy.state.refusals import log_refusal
from proxy.state.syncing import HangingDiskError
from proxy.telemetry import monotonic_s, wall_ns

#: What the page keeps as the way of an order that was carried out here.
VIA = "state-dir"
#: A hung control must not hold up a kill that can go round it.
KILL_TIMEOUT_S = 0.5
#: What an answer of the admin API means for a kill that can go round it: try the other way.
_BLOCKED_STATUSES = (408, 412, 500, 502, 503, 504)


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


def give(order: Order, admin: str, state_dir: Path | None) -> Done:
    """Carry out an order; `admin` and `state_dir` are the command's options.

    Raises:
        AdminError: no instance was found, or it refused.
        StateError: the page cannot be changed.
    """
    began_s = monotonic_s()
    instance = find_instance(admin, state_dir)
    done = _carried_out(order, instance)
    return replace(done, took_ms=round((monotonic_s() - began_s) * 1000, 1))


def tell_quick_kill(order: Order, quick: QuickKill) -> Done:
    """Finish a kill that is in effect already: check it, log it, tell it.

    Raises:
        StateError: it did not do what a kill does, and neither can the long way.
    """
    before, after = decode(quick.before), decode(quick.after)
    source = Source(quick.who, VIA, order.reason, quick.now_ms)
    part = Part[order.only.upper()] if order.only else Part.DEFAULT
    meant = latch.kill(before, order.scope, part, note_of(source))
    if after != replace(meant, kill_generation=after.kill_generation):
        return _on_page(order, quick.state_dir)  # a defect of ours; kill as everybody else does
    old, new = killed_of(before, order.scope), killed_of(after, order.scope)
    change = Change(before, after, make_decision("kill", order.scope, old, new, source))
    done = _done(order, logged(quick.state_dir, change), quick.state_dir)
    return replace(done, took_ms=quick.took_ms)


def _carried_out(order: Order, instance: Instance) -> Done:
    folder = instance.state_dir
    if folder is not None and (instance.is_named or can_order(folder)):
        return _on_page(order, folder)
    try:
        return _by_api(order, instance)
    except AdminError as exc:
        if not _is_blocked(exc):
            raise
        if order.action == "kill" and folder is not None and is_state_dir(folder):
            return _on_page(order, folder, (str(exc),))
        raise AdminError(f"{exc}; {_way_out(order, folder)}") from exc


def _way_out(order: Order, folder: Path | None) -> str:
    told = (
        "it may still take effect when control goes on"
        if order.action == "kill"
        else "nothing was changed, and nothing will be by this command"
    )
    return f"{told}; on its machine, --state-dir {folder or 'FOLDER'} does it without the admin API"


# By the admin API.


def _by_api(order: Order, instance: Instance) -> Done:
    # Imported here because it takes as long as all the rest of a kill on the page.
    from proxy.cli.admin_api import TIMEOUT_S, call  # noqa: PLC0415

    instance = with_token(instance)
    timeout_s, conditions = TIMEOUT_S, {}
    if order.action != "kill":
        status = call(instance, "GET", "/api/v1/status")
        conditions = {
            "seen_generation": status["control_page"]["generation"],
            "expires_ms": status["now_ms"] + round(TIMEOUT_S * 1000),
        }
    elif instance.state_dir is not None and is_state_dir(instance.state_dir):
        timeout_s = KILL_TIMEOUT_S
        conditions = {"expires_ms": wall_ns() // 1_000_000 + round(timeout_s * 1000)}
    method, path, body = _request(order)
    answer = call(instance, method, path, {**body, **conditions}, timeout_s=timeout_s)
    warnings = (*answer["warnings"], *filter(None, [answer["log_error"]]))
    return Done(
        order.action, answer["scope"], answer["old"], answer["new"], answer["killed"],
        f"admin API at {instance.admin_url}", 0.0, answer["opened"], answer["in_effect"], warnings,
    )  # fmt: skip


def _request(order: Order) -> tuple[str, str, dict[str, Any]]:
    body: dict[str, Any] = {"reason": order.reason}
    scope = order.scope
    if order.action == "weight":
        path = f"/api/v1/routes/{scope.route}/candidates/{scope.candidate}/weight"
        return "PUT", path, {**body, "percent": order.percent}
    names = {"route": scope.route, "candidate": scope.candidate, "only": order.only}
    body |= {key: value for key, value in names.items() if value}
    return "POST", f"/api/v1/{order.action}", body


def _is_blocked(exc: AdminError) -> bool:
    """Return whether the API did not take an order that may be good."""
    from proxy.cli.admin_api import RefusedError, UnreachableError  # noqa: PLC0415 - see above

    if isinstance(exc, RefusedError):
        return exc.status in _BLOCKED_STATUSES
    return isinstance(exc, UnreachableError)


# On the page itself.


def _on_page(order: Order, state_dir: Path, warnings: tuple[str, ...] = ()) -> Done:
    source = Source(operator(), VIA, order.reason, wall_ns() // 1_000_000)
    try:
        change = _change(order, state_dir, source)
    except StateError as exc:
        if order.action != "kill" or order.only or isinstance(exc, UnknownScopeError):
            log_refusal(state_dir, _asked(order, source), str(exc))
            raise
        if isinstance(exc, HangingDiskError):
            change = kill_past_the_disk(state_dir, source, exc)
            done = _done(order, change, state_dir, (*warnings, change.decision.note))
            return replace(done, via=change.decision.via, in_effect=False)
        try:
            change = kill_by_file(state_dir, config_of(state_dir), order.scope, source)
        except StateError as no_file:
            if isinstance(no_file, UnknownScopeError) or not is_readable(state_dir):
                raise
            return _past_the_disk(order, state_dir, source, (*warnings, f"{exc}; {no_file}"))
        is_in_effect = not is_readable(state_dir)
        effect = "only the primary serves already" if is_in_effect else "NOT IN EFFECT YET"
        told = f"{exc}; a kill file was left for the launcher; {effect}"
        done = _done(order, change, state_dir, (*warnings, told))
        return replace(done, via=change.decision.via, in_effect=is_in_effect)
    return _done(order, change, state_dir, warnings)


def _past_the_disk(
    order: Order, state_dir: Path, source: Source, warnings: tuple[str, ...]
) -> Done:
    """Kill where the folder cannot be written: control and launcher have mapped the page before."""
    try:
        done = _by_api(order, find_instance("", state_dir))
        return replace(done, warnings=(*warnings, *done.warnings))
    except AdminError as exc:
        change = kill_by_signal(state_dir, source)
        told = f"{exc}; the launcher was told by SIGUSR1, so everything is killed"
    done = _done(order, change, state_dir, (*warnings, told))
    return replace(done, via=change.decision.via)


def _asked(order: Order, source: Source) -> Decision:
    """Return an order as the decision that it would have been."""
    if order.action == "weight":
        return make_decision("weight", order.scope, None, round(order.percent * 100), source)
    default = Part.DEFAULT if order.action == "kill" else ALL_PARTS
    part = Part[order.only.upper()] if order.only else default
    return make_decision(order.action, order.scope, None, latch.part_names(part), source)


def _done(order: Order, change: Change, state_dir: Path, warnings: tuple[str, ...] = ()) -> Done:
    decision = change.decision
    more = []
    if not is_running(state_dir):
        more.append(f"nothing seems to run on {state_dir} now; this holds for the next start")
    if order.action != "kill":
        more.append(decision.note)
    more.append(change.log_error)
    return Done(
        order.action, decision.scope, decision.old, decision.new, change.killed,
        f"control page in {state_dir}", 0.0, change.opened,
        warnings=(*warnings, *filter(None, more)),
    )  # fmt: skip


def _change(order: Order, state_dir: Path, source: Source) -> Change:
    part = Part[order.only.upper()] if order.only else None
    orders: dict[str, Callable[[ControlPage, Source], Change]] = {
        "kill": lambda page, by: order_kill(page, order.scope, part or Part.DEFAULT, by),
        "revive": lambda page, by: order_revive(page, order.scope, part or ALL_PARTS, by),
        "weight": lambda page, by: order_weight(page, order.scope, round(order.percent * 100), by),
    }
    try_page(state_dir)
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
        if order.action != "kill":
            # What the giver sees is what is there now, kill files that nobody has latched included.
            order_file_kills(page, source.now_ms)
            source = replace(source, seen_generation=page.generation())
        return orders[order.action](page, source)
    finally:
        page.close()
