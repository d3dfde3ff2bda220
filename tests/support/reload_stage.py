"""A state directory, a config file beside it, and the part of control that reads it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from proxy.config.load import load_config, write_resolved
from proxy.control.reload import Reloader
from proxy.control.snapshot import Observer
from proxy.control.status import status
from proxy.state.control_page import for_config, open_page, update
from proxy.state.orders import Source

SOURCE = Source("ann", "test", "a try", 1_700_000_000_123)


class Stage:
    """A state directory with a config file beside it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "understudy.yaml"
        self.document: dict[str, Any] = {
            "listen": "127.0.0.1:0",
            "admin": {"listen": "127.0.0.1:0", "token": "first-token"},
            "state_dir": str(folder / "state"),
            "backends": {
                name: {"endpoints": [f"http://127.0.0.1:{port}"]}
                for port, name in enumerate(("a", "b"), 9001)
            },
            "routes": [
                {
                    "name": "iris",
                    "primary": "a",
                    "candidates": [{"name": "v2", "backend": "b", "weight": "10%"}],
                }
            ],
        }
        self.write()
        self.config = load_config(self.path)
        write_resolved(self.config)
        self.state_dir = folder / "state"
        page = open_page(self.state_dir, create=True)
        update(page, lambda before: for_config(self.config, before))
        page.close()
        self.observer = Observer(self.config)
        self.reloader = Reloader(self.config, self.path, self.observer)

    def write(self, **changes: object) -> None:
        """Write the file with some keys changed for good."""
        self.document |= changes
        self.path.write_text(yaml.safe_dump(self.document))

    @property
    def told(self) -> dict[str, Any]:
        """What status says of the config."""
        found: dict[str, Any] = status(self.observer.snapshot())["config"]
        return found
