"""What is not wrong with a config, and not what its writer may think either. Pure."""

from __future__ import annotations

from proxy.config.resolved import Config


def advice(config: Config) -> list[str]:
    """Return a sentence for each thing in `config` that has no effect yet; mostly none."""
    return [
        f"routes.{route.name}.ramp has a gate on correctness, and no recorder joins labels yet: it "
        "has no data, so the ramp holds, and is rolled back at a step's max_duration"
        for route in config.routes
        if route.ramp is not None and any(gate.metric == "correctness" for gate in route.ramp.gates)
    ]
