"""LiteLLM's proxy: one worker, one OpenAI-compatible upstream, no database, no network.

It only takes part where chat completions are forwarded. Its master key is left out and so are its
callbacks: what is measured is the least that it does for a call.
"""

from __future__ import annotations

import json

from benchmarks.environments import environment, package_version
from benchmarks.fleet import Fleet, Place, free_port
from benchmarks.peers.base import Mode, Setup, Target, Upstreams

_PACKAGES = ("litellm[proxy]",)
_START_S = 90.0


class LiteLLM:
    """The gateway `litellm --config` (FastAPI on uvicorn)."""

    name = "LiteLLM"
    is_slow = True

    def missing(self) -> str | None:
        """Return why its environment cannot be made."""
        return environment("litellm", _PACKAGES).missing

    def version(self) -> str:
        """Return the package's version."""
        return package_version(environment("litellm", _PACKAGES).python, "litellm")

    def start(self, fleet: Fleet, mode: Mode, upstreams: Upstreams, setup: Setup) -> Target:
        """Start it; it has no mirror of this kind, so `mode` is forward only."""
        python = environment("litellm", _PACKAGES).python
        port, name = free_port(), setup.name("litellm", mode)
        config = fleet.folder / f"{name}.yaml"
        # JSON is YAML.
        config.write_text(json.dumps(_configuration(upstreams.primary.port, setup), indent=1))
        # With a database it would do more, and it refuses an empty address.
        command = ["env", "-u", "DATABASE_URL", str(python.with_name("litellm"))]
        command += ["--config", str(config)]
        command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        env = {
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_LOG": "ERROR",
            "LITELLM_MODE": "PRODUCTION",
            "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        }
        child = fleet.start(name, command, Place.PROXY, env)
        fleet.wait_for_port(child, port, limit_s=_START_S)
        return Target(self.name, mode, f"http://127.0.0.1:{port}", child.pid, (child.pid,))


def _configuration(port: int, setup: Setup) -> dict[str, object]:
    """Return one model that is served by the upstream."""
    upstream = {
        "model": "openai/bench-model",
        "api_base": f"http://127.0.0.1:{port}/v1",
        "api_key": "none-needed",
        "timeout": setup.timeout_s,
    }
    return {
        "model_list": [{"model_name": "bench-model", "litellm_params": upstream}],
        "litellm_settings": {"telemetry": False, "num_retries": 0},
        "router_settings": {"num_retries": 0},
    }
