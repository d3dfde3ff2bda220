"""`understudy reload`: read the config file again, now."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
import typer

from proxy.cli import options
from proxy.cli.admin_api import RefusedError, call
from proxy.cli.instance import find_instance, with_token
from proxy.cli.terminal import GREEN, YELLOW, complain, paint
from proxy.errors import AdminError

#: Reading a large file, and the time that workers get to follow.
_PATIENCE_S = 15.0


def reload(
    *,
    reason: Annotated[
        str, typer.Option(help="Why; kept in the decisions log.", metavar="TEXT")
    ] = "reloaded by hand",
    as_json: options.AsJson = False,
    admin: options.Admin = "",
    state_dir: options.StateDir = None,
) -> None:
    """Read the config file again; say what changed, or why it was refused.

    A refused file changes nothing: the config of before stays. Exit code 1 then.
    """
    instance = with_token(find_instance(admin, state_dir))
    try:
        answer = call(instance, "POST", "/api/v1/reload", {"reason": reason}, timeout_s=_PATIENCE_S)
    except RefusedError as exc:
        if "faults" not in exc.answer:
            raise
        if as_json:
            print(orjson.dumps(exc.answer).decode())
        for fault in exc.answer["faults"]:
            complain(str(fault))
        raise AdminError(f"refused; the config of before stays ({exc.answer['version']})") from exc
    if as_json:
        print(orjson.dumps(answer).decode())
        return
    print("\n".join(_lines(answer)))


def _lines(answer: dict[str, Any]) -> list[str]:
    if answer["result"] == "unchanged":
        return [f"nothing has changed (version {answer['version']})"]
    found = [f"{paint('reloaded:', GREEN)} {answer['old_version']} -> {answer['version']}"]
    found += [f"  {line}" for line in answer["diff"]]
    if answer["lagging_workers"]:
        workers = ", ".join(map(str, answer["lagging_workers"]))
        found.append(
            f"{paint('warning:', YELLOW)} not taken over yet by worker {workers}; see its log"
        )
    if answer["log_error"]:
        found.append(f"{paint('warning:', YELLOW)} {answer['log_error']}")
    return found
