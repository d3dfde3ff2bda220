"""The real launcher over stub children: `stub_launcher.py RESOLVED_CONFIG`."""

from __future__ import annotations

import sys
from pathlib import Path

from proxy.errors import UnderstudyError
from proxy.launcher.run import run

STUB = str(Path(__file__).with_name("stub_child.py"))

try:
    sys.exit(run(Path(sys.argv[1]), lambda role: (sys.executable, STUB, role.value)))
except UnderstudyError as exc:
    sys.exit(f"error: {exc}")
