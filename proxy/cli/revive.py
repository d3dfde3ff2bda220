"""`understudy revive`: opens the kill latch."""

from __future__ import annotations

from proxy.cli import options
from proxy.cli.ordering import Order, give
from proxy.state.kill import Scope


def revive(  # noqa: PLR0913 - an argument for each option
    *,
    reason: options.Reason,
    route: options.Route = "",
    candidate: options.Candidate = "",
    only: options.Only = None,
    admin: options.Admin = "",
    state_dir: options.StateDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Open the kill latch of everything (or a route, or a candidate) and all inside it.

    Also removes its kill files. Of everything, it writes a corrupt control page afresh.
    """
    order = Order("revive", Scope(route, candidate), reason, only or "")
    done = give(order, admin, state_dir)
    options.print_done(done, f"revived {done.scope}", as_json=as_json)
