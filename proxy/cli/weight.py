"""`understudy weight`: the live canary weight of one candidate."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from proxy.cli import options
from proxy.cli.ordering import Order, give
from proxy.errors import AdminError
from proxy.state.kill import Scope


def weight(  # noqa: PLR0913 - an argument for each option
    route: Annotated[str, typer.Argument(help="The route.")],
    candidate: Annotated[str, typer.Argument(help="The candidate.")],
    percent: Annotated[str, typer.Argument(help="0 to 100, such as 2.5 or 2.5%.")],
    *,
    reason: options.Reason = "set by hand",
    admin: options.Admin = "",
    state_dir: options.StateDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Set the share of live traffic that a candidate serves."""
    order = Order("weight", Scope(route, candidate), reason, percent=_percent(percent))
    done = give(order, admin, state_dir)
    sentence = f"weight of {done.scope}: {_share(done.old)} -> {_share(done.new)}"
    options.print_done(done, sentence, as_json=as_json)


def _percent(text: str) -> float:
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        value = math.nan
    if not 0 <= value <= 100:
        raise AdminError(f"{text!r} is no percentage from 0 to 100")
    if abs(round(value * 100) - value * 100) > 1e-6:
        raise AdminError(f"{text!r} is finer than the step of 0.01%")
    return value


def _share(weight_bp: object) -> str:
    return f"{weight_bp / 100:g}%" if isinstance(weight_bp, int) else str(weight_bp)
