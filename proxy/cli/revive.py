"""`understudy revive`: opens the kill latch."""

from __future__ import annotations

import argparse

from proxy.cli.order_answer import Done, print_done
from proxy.cli.order_options import latch_parser, reason_of
from proxy.cli.ordering import Order, give
from proxy.state.kill import Scope

PARSER = latch_parser(
    "revive",
    """\
Open the kill latch of everything (or a route, or a candidate) and all inside it.

Also removes its kill files. Of everything, it writes an unreadable control page afresh, with the
weights of the config. It undoes no kill that came after it was given.""",
)


def run(arguments: argparse.Namespace) -> int:
    """Give the order; return the exit code."""
    scope = Scope(arguments.route, arguments.candidate)
    order = Order("revive", scope, reason_of(arguments), arguments.only)
    done = give(order, arguments.admin, arguments.state_dir)
    return print_done(done, _sentence(done), as_json=arguments.as_json)


def _sentence(done: Done) -> str:
    if done.old == ["unreadable"]:
        return "WROTE THE CONTROL PAGE AFRESH"
    if not done.opened:
        return f"nothing of {done.scope} was killed; looked"
    told = "; ".join(f"{scope} ({', '.join(parts)})" for scope, parts in done.opened.items())
    return f"revived {done.scope}: opened {told}"
