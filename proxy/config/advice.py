"""What is not wrong with a config, and not what its writer may think either. Pure."""

from __future__ import annotations

from proxy.config.resolved import Config


def advice(config: Config) -> list[str]:
    """Return a sentence for each thing in `config` that has no effect yet; mostly none."""
    return [
        f"routes.{route.name}.ramp is checked and not run yet: no gate acts, and only "
        "`understudy weight` moves the weight"
        for route in config.routes
        if route.ramp is not None
    ]
