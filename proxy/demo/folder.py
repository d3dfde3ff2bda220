"""The demo's folder: what is in it, and when an earlier one may be replaced.

It is kept after the demo, because the pairs in it are what the analyst's commands read. The next
demo replaces it, but only a folder that a demo made and that no demo is using.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from proxy.errors import UnderstudyError

MARKER: Final = ".understudy-demo"
CONFIG: Final = "understudy.yaml"
_OWN_FOLDERS: Final = ("logs", "models", "state")

_YAML: Final = """\
# Written by `understudy demo`: three versions of a digit classifier behind one proxy.
listen: 127.0.0.1:0           # 0: any free port; `state/runtime.json` says which
workers: 2
state_dir: ./state
admin: {{listen: 127.0.0.1:0}}
backends:
  digits-v1: {{endpoints: [{digits-v1}], timeout: 10s}}
  digits-v2: {{endpoints: [{digits-v2}], timeout: 10s}}
  digits-v3: {{endpoints: [{digits-v3}], timeout: 10s}}
routes:
  - name: digits
    match: {{path_prefix: /v2/models/digits, methods: [POST]}}
    protocol: open-inference
    primary: digits-v1
    split_by: header:x-user-id
    candidates:
      - {{name: v2, backend: digits-v2, mirror: 100%, weight: 0%}}
      - {{name: v3, backend: digits-v3, mirror: 50%, weight: 0%}}
    compare: {{prediction: "outputs[0].data", comparator: label}}
    ramp:                     # the way to 100% of the users, for both candidates
      steps:                  # times for a demo: in production min_duration is 10m or more
{steps}
      gates:
        - {{metric: agreement, margin: 0.02}}    # so many more wrong answers would be tolerable
        - {{metric: availability, margin: 0.02}}
        - {{metric: latency, budget: 200ms, margin: 0.05}}
"""
_STEP: Final = (
    "        - {{weight: {percent}%, min_pairs: {pairs}, min_duration: {seconds:g}s, "
    "max_duration: 1m}}"
)
#: What a step of the demo's ramps asks for beside the gates.
MIN_PAIRS: Final = 200
MIN_DURATION_S: Final = 2.0


class Folder:
    """A folder prepared for one demo and locked while it runs.

    Raises:
        UnderstudyError: it is not a demo's, is in use, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = path / "state"
        self.config = path / CONFIG
        try:
            path.mkdir(parents=True, exist_ok=True)
            if any(path.iterdir()) and not (path / MARKER).exists():
                raise UnderstudyError(f"{path} holds files that no demo made; give another --dir")
            self._lock = os.open(path / MARKER, os.O_RDWR | os.O_CREAT, 0o600)
            self._take_lock()
            self._clear()
            for name in _OWN_FOLDERS:
                (path / name).mkdir(mode=0o700)
        except OSError as exc:
            raise UnderstudyError(f"cannot use {exc.filename or path}: {exc.strerror}") from exc

    def model(self, name: str) -> Path:
        """Return where a model is kept."""
        return self.path / "models" / f"{name}.joblib"

    def log(self, name: str) -> Path:
        """Return where a process writes what it has to say."""
        return self.path / "logs" / f"{name}.log"

    def write_config(self, urls: Mapping[str, str], weights: Sequence[int]) -> None:
        """Write the proxy's config.

        Args:
            urls: the model servers' by name.
            weights: of the ramp's steps, percent, rising.
        """
        steps = "\n".join(
            _STEP.format(percent=percent, pairs=MIN_PAIRS, seconds=MIN_DURATION_S)
            for percent in weights
        )
        self.config.write_text(_YAML.format(**urls, steps=steps), encoding="utf-8")

    def close(self) -> None:
        """Let the next demo have it."""
        os.close(self._lock)

    def _take_lock(self) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(self._lock)
            raise UnderstudyError(f"another demo runs in {self.path}; give another --dir") from exc

    def _clear(self) -> None:
        for name in _OWN_FOLDERS:
            with suppress(FileNotFoundError):
                shutil.rmtree(self.path / name)
