"""What must fit together in redaction: keys of hashes, headers that records are made of. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from proxy.config.resolved import RedactAction
from proxy.config.schema import ConfigFile
from proxy.config.schema_redact import RedactRuleFile
from proxy.config.yaml_tree import Path

#: Headers whose values are fields of every record, and which; no rule can keep them out.
RECORDED_HEADERS = {
    "content-encoding": "content_encoding",
    "content-type": "content_type",
    "traceparent": "trace_id",
    "x-request-id": "request_id",
}

_NEEDS_KEY = (
    'hash needs `record.redact.key`, such as "${UNDERSTUDY_REDACT_KEY}": without a key, whoever '
    "guesses a value can see that it is right"
)


def redact_checks(file: ConfigFile) -> Iterator[tuple[Path, str]]:
    """Yield the path and the explanation of each rule that cannot be followed."""
    redact = file.record.redact
    for index, name in enumerate(redact.headers):
        field = RECORDED_HEADERS.get(name.lower())
        if field is not None:
            yield (
                ("record", "redact", "headers", index),
                f"{name} is a field of every record ({field}), so it must hold no secret",
            )
    if redact.key:
        return
    lists: list[tuple[Path, tuple[RedactRuleFile, ...]]] = [
        (("record", "redact", "json"), redact.json_rules)
    ]
    for number, route in enumerate(file.routes):
        own = route.record.redact.json_rules
        lists.append((("routes", number, "record", "redact", "json"), own))
    for path, rules in lists:
        for index, rule in enumerate(rules):
            if rule.action is RedactAction.HASH:
                yield (*path, index, "action"), _NEEDS_KEY
