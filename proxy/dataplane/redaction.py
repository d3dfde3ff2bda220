"""The redactor of a route, made once per configuration; None where nothing is redacted."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.config.resolved import Config, Route
    from proxy.pairs.redact import Redactor


def redactor_of(config: Config, route: Route) -> Redactor | None:
    """Return what keeps secrets out of the bodies of a route's records.

    A compressed body is read as far as a plain one would be kept, so that no answer of a candidate
    costs the worker more than that.
    """
    rules = config.record.rules_of(route)
    if not rules:
        return None
    # Where nothing is redacted, no worker pays with memory for what is needed to.
    from proxy.pairs.redact import compile_rules  # noqa: PLC0415

    return compile_rules(
        rules,
        config.record.redact.key,
        protocol=route.protocol,
        limit_bytes=config.limits.record_body_bytes,
    )
