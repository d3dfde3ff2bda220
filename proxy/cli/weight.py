"""`understudy weight`: the live canary weight of one candidate."""

from __future__ import annotations

import argparse
import math

from proxy.cli.order_answer import print_done
from proxy.cli.order_options import order_parser, reason_of
from proxy.cli.ordering import Order, give
from proxy.errors import AdminError
from proxy.state.kill import Scope

PARSER = order_parser("weight", "Set the share of live traffic that a candidate serves.")
PARSER.add_argument("route", metavar="ROUTE", help="The route.")
PARSER.add_argument("candidate", metavar="CANDIDATE", help="The candidate.")
PARSER.add_argument("percent", metavar="PERCENT", help="0 to 100, such as 2.5 or 2.5%%.")
PARSER.add_argument(
    "--reason", metavar="TEXT", default="set by hand", help="Why; kept in the decisions log."
)


def run(arguments: argparse.Namespace) -> int:
    """Give the order; return the exit code."""
    scope = Scope(arguments.route, arguments.candidate)
    order = Order("weight", scope, reason_of(arguments), percent=_percent(arguments.percent))
    done = give(order, arguments.admin, arguments.state_dir)
    sentence = f"weight of {done.scope}: {_share(done.old)} -> {_share(done.new)}"
    return print_done(done, sentence, as_json=arguments.as_json)


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
