"""`understudy kill`: everything, a route or a candidate back to the primary, now."""

from __future__ import annotations

import argparse

from proxy.cli.order_options import latch_parser, reason_of
from proxy.cli.quick_kill import try_quick_kill

PARSER = latch_parser(
    "kill",
    """\
Send everything (or a route, or a candidate) back to the primary, now.

Stops the mirror and the canary unless --only names a part. The latch survives restarts; only
`understudy revive` opens it. On the machine of the instance this writes the control page itself and
needs neither control nor any other process.""",
)


def run(arguments: argparse.Namespace) -> int:
    """Give the order; return the exit code."""
    quick = try_quick_kill(arguments)
    # Imported here because the kill is in effect by now, mostly, and this takes as long again.
    from proxy.cli import ordering  # noqa: PLC0415
    from proxy.cli.order_answer import print_done  # noqa: PLC0415
    from proxy.state.kill import Scope  # noqa: PLC0415

    scope = Scope(arguments.route, arguments.candidate)
    order = ordering.Order("kill", scope, reason_of(arguments), arguments.only)
    if quick is not None:
        done = ordering.tell_quick_kill(order, quick)
    else:
        done = ordering.give(order, arguments.admin, arguments.state_dir)
    new = ", ".join(done.new) if isinstance(done.new, list) else done.new
    sentence = (
        f"killed {done.scope} ({new})" if done.in_effect else f"ordered a kill of {done.scope}"
    )
    return print_done(done, sentence, as_json=arguments.as_json)
