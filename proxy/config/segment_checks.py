"""What may not become a segment: it would be in every record in plain. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from proxy.config.resolved import SplitKind
from proxy.config.schema import ConfigFile
from proxy.config.schema_route import RouteFile
from proxy.config.yaml_tree import Path


def segment_checks(file: ConfigFile) -> Iterator[tuple[Path, str]]:
    """Yield the path and the explanation of each segment that redaction forbids."""
    secret = {name.lower() for name in file.record.redact.headers}
    for number, route in enumerate(file.routes):
        rules = _rules(file, route)
        for name, source in route.segments.items():
            where: Path = ("routes", number, "segments", name)
            if source.kind is SplitKind.HEADER and source.name.lower() in secret:
                yield where, f"{source.name} is redacted (record.redact.headers), so it is no label"
            rule = next((rule for rule in rules if _covers(rule, source.name)), "")
            if source.kind is SplitKind.JSON and rule:
                yield where, f"{source.name} is redacted ({rule}), so it is no label"


def _rules(file: ConfigFile, route: RouteFile) -> list[str]:
    """Return the paths that are redacted in a route's bodies."""
    every = *file.record.redact.json_rules, *route.record.redact.json_rules
    return [rule.path for rule in every]


def _covers(rule: str, path: str) -> bool:
    """Tell whether what is at `path` may be at, in or around what a rule redacts.

    JMESPath can say more than a rule's path, so keys are compared and not places: better one
    segment refused too many than a secret written.
    """
    wanted, found = _keys(rule), _keys(path)
    shared = min(len(wanted), len(found))
    return bool(found) and wanted[:shared] == found[:shared]


def _keys(path: str) -> list[str]:
    return re.findall(r"[A-Za-z_][A-Za-z0-9_-]*", path)
