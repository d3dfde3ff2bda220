"""What is not wrong with a config, and not what its writer may think either. Pure."""

from __future__ import annotations

from proxy.config.resolved import Config


def advice(config: Config) -> list[str]:
    """Return a sentence for each thing in `config` that has no effect yet; mostly none."""
    return [
        f"routes.{route.name}.ramp has a gate on correctness, and labels are joined by one recorder "
        f"of {config.recorders}, with its own pairs alone: set recorders: 1"
        for route in config.routes
        if config.recorders > 1
        and route.ramp is not None
        and any(gate.metric == "correctness" for gate in route.ramp.gates)
    ]
