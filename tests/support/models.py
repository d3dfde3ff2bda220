"""Real model servers for end-to-end tests: the demo's digit models, as processes.

with digit_servers(tmp_path, "digits-v1", "digits-v3") as servers:
    servers["digits-v1"].url
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from proxy.demo.models import SPECS, Digits, Trained, load_data, train
from proxy.demo.processes import Child, start_model, wait_url
from tests.support.deadline import START_PATIENCE_S


@cache
def digits() -> Digits:
    """Return the data, split; loaded once a session."""
    return load_data()


@cache
def trained(name: str) -> Trained:
    """Return one of the demo's models; trained once a session."""
    return train(next(spec for spec in SPECS if spec.name == name), digits())


@contextmanager
def digit_servers(
    directory: Path, *names: str, flags: Mapping[str, Sequence[str]] | None = None
) -> Iterator[dict[str, Child]]:
    """Serve the named models (all by default) until the block ends.

    Args:
        directory: where models and logs are written.
        names: such as `digits-v1`.
        flags: further flags of `proxy.demo.server` by name, such as `--slow-ms 50`.
    """
    chosen = names or tuple(spec.name for spec in SPECS)
    with ExitStack() as stack:
        servers: dict[str, Child] = {}
        for name in chosen:
            model = trained(name)
            path = directory / f"{name}.joblib"
            model.model.save(path)
            extra = (flags or {}).get(name, ())
            child = start_model(name, model.spec.version, path, directory / f"{name}.log", extra)
            stack.callback(child.stop)
            servers[name] = child
        for child in servers.values():
            wait_url(child, START_PATIENCE_S)
        yield servers
