"""`understudy kill`: everything, a route or a candidate back to the primary, now."""

from __future__ import annotations

from proxy.cli import options
from proxy.cli.ordering import Order, give
from proxy.state.kill import Scope


def kill(  # noqa: PLR0913 - an argument for each option
    *,
    reason: options.Reason,
    route: options.Route = "",
    candidate: options.Candidate = "",
    only: options.Only = None,
    admin: options.Admin = "",
    state_dir: options.StateDir = None,
    as_json: options.AsJson = False,
) -> None:
    """Send everything (or a route, or a candidate) back to the primary, now.

    Stops the mirror and the canary unless --only names a part. The latch survives restarts; only
    `understudy revive` opens it. When the admin API does not answer, the control page is written
    directly.
    """
    order = Order("kill", Scope(route, candidate), reason, only or "")
    done = give(order, admin, state_dir)
    new = ", ".join(done.new) if isinstance(done.new, list) else done.new
    options.print_done(done, f"killed {done.scope} ({new})", as_json=as_json)
