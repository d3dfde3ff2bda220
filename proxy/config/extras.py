"""What a config asks for and this installation lacks: optional packages of `understudy[...]`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

from proxy.config.schema import ConfigFile
from proxy.config.yaml_tree import Path

#: What `telemetry.otlp` needs.
OTEL_MODULES = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http.trace_exporter")


def missing_extras(file: ConfigFile) -> Iterator[tuple[Path, str]]:
    """Yield the path of each key that needs an extra which is not installed, and what to do."""
    if file.telemetry.otlp is not None and not all(map(_is_installed, OTEL_MODULES)):
        yield (
            ("telemetry", "otlp"),
            "needs packages that are not installed; run: pip install 'understudy[otel]'",
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False
