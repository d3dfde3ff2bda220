"""`understudy ramp`: an operator's words to a ramp, and where every ramp is.

Ramps are driven by control, so the words go to the admin API, however the instance is found.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console

from proxy.cli import options
from proxy.cli.admin_api import TIMEOUT_S, call
from proxy.cli.instance import find_instance, with_token
from proxy.cli.ramp_table import ramp_table

ramp = typer.Typer(add_completion=False, no_args_is_help=True)

#: Each word, and what it does.
WORDS = {
    "start": "Begin: the candidate is judged in the shadow, at 0%, before it gets its first user.",
    "pause": "Leave the weight as it is until a resume. The gates may still roll it back.",
    "resume": "Go on from the highest step that is not above the live weight.",
    "promote": "Approve the step that is holding, where its approval is manual.",
    "abort": "Take the weight to 0; only a new start leads out of that.",
}
#: Words that hold whenever they arrive, like a kill.
_ALWAYS = ("pause", "abort")


@ramp.callback()
def _ramp() -> None:
    """Move traffic to a candidate step by step, through gates, and back by itself."""


def _command(word: str, summary: str) -> Callable[..., None]:
    def command(  # noqa: PLR0913 - one argument for each option of the command
        route: Annotated[str, typer.Argument(help="The route.", metavar="ROUTE")],
        *,
        candidate: Annotated[
            str,
            typer.Option(
                help="Which candidate; needed where the route has several.", metavar="CANDIDATE"
            ),
        ] = "",
        reason: Annotated[
            str, typer.Option(help="Why; kept in the decisions log.", metavar="TEXT")
        ] = "by hand",
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")
        ] = False,
        as_json: options.AsJson = False,
        admin: options.Admin = "",
        state_dir: options.StateDir = None,
    ) -> None:
        instance = with_token(find_instance(admin, state_dir))
        body: dict[str, Any] = {"reason": reason, "dry_run": dry_run}
        if candidate:
            body["candidate"] = candidate
        if word not in _ALWAYS:
            status = call(instance, "GET", "/api/v1/status")
            body["seen_generation"] = status["control_page"]["generation"]
            body["expires_ms"] = status["now_ms"] + round(TIMEOUT_S * 1000)
        answer = call(instance, "POST", f"/api/v1/routes/{route}/ramp/{word}", body)
        _print(answer, as_json=as_json)

    command.__doc__ = summary
    return command


for _word, _summary in WORDS.items():
    ramp.command(_word)(_command(_word, _summary))


@ramp.command("status")
def status(
    route: Annotated[str, typer.Argument(help="Only this route.", metavar="ROUTE")] = "",
    *,
    as_json: options.AsJson = False,
    admin: options.Admin = "",
    state_dir: options.StateDir = None,
) -> None:
    """Show where each ramp is, what its gates say, and what it waits for."""
    instance = with_token(find_instance(admin, state_dir))
    routes = call(instance, "GET", "/api/v1/routes")["routes"]
    ramps = {
        f"{each['name']}/{candidate['name']}": candidate["ramp"]
        for each in routes
        for candidate in each["candidates"]
        if candidate["ramp"] is not None and route in ("", each["name"])
    }
    if as_json:
        print(orjson.dumps(ramps).decode())
    else:
        Console().print(ramp_table(ramps) if ramps else "no ramp here: `ramp:` of a route has none")


def _print(answer: dict[str, Any], *, as_json: bool) -> None:
    for warning in answer["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if as_json:
        print(orjson.dumps(answer).decode())
        return
    would = "would go" if answer["dry_run"] else "went"
    weights = f"{answer['old_weight_bp'] / 100:g}% -> {answer['new_weight_bp'] / 100:g}%"
    print(
        f"ramp of {answer['scope']} {would} from {answer['old']} to {answer['new']}; weight {weights}"
    )
    if answer["waits"]:
        print(f"  waits: {answer['waits']}")
