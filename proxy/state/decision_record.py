"""The decision record, version 1: its fields, their types, and the JSON Schema of it. Pure.

One record is one decision: what an operator, a ramp, a guard or the proxy itself did or refused to
do. It is the same in `state_dir/decisions.ndjson`, in the topic of decisions and in the answer of
`GET /api/v1/decisions`. The table is the single source: the schema in `config/decision.schema.json` is
written from it, and every record is made with its names. Within one `schema_version` fields may be
added, never removed, renamed or retyped.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import orjson

from proxy.telemetry import rfc3339

SCHEMA_VERSION: Final = "1"
#: Of what concerns every route, in place of an experiment.
EVERYTHING: Final = "*"
DONE: Final = "done"
REFUSED: Final = "refused"

_UUID7: Final = "^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$"
_TS: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$"


@dataclass(frozen=True, slots=True)
class Decision:
    """What somebody decided, as whoever carries it out tells it; `proxy.state.decisions` keeps it.

    Attributes:
        ts_ms: wall clock, milliseconds since the Unix epoch.
        action: `kill`, `revive`, `weight`, `reload`, `start`, `verdict`; `ramp_` and its event.
        who: the person or program that asked, as far as it said so.
        via: the way it came: `api 127.0.0.1`, `state-dir`, `file KILL`, `signal SIGUSR1`.
        scope: `*`, `route` or `route/candidate`.
        old, new: the killed parts of the scope, its weight in basis points, config
            versions, a ramp's phase or a verdict's outcome; of what was refused, what was asked.
        reason: why it was asked.
        note: what else the order did, or did not do; mostly empty.
        evidence: the verdict that it rests on, with the counts that it was made from.
        diff: of a config, each key that changed, as a line without secrets; the first ones.
        refusal: why it was not done; empty when it was.
    """

    ts_ms: int
    action: str
    who: str
    via: str
    scope: str
    old: list[str] | int | str | None
    new: list[str] | int | str | None
    reason: str
    note: str = ""
    evidence: Any = None
    diff: tuple[str, ...] = ()
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class About:
    """What a record says beside its decision, as the instance's config has it.

    Attributes:
        instance: its name.
        config_version: of the config; empty where none can be read.
        experiments: the experiment of each route.
    """

    instance: str = ""
    config_version: str = ""
    experiments: dict[str, str] = field(default_factory=dict)


class Field(NamedTuple):
    """One field; `types` are JSON's, none for any JSON value."""

    name: str
    types: tuple[str, ...]
    description: str
    pattern: str = ""
    choices: tuple[str, ...] = ()
    unit: str = ""


_TEXT: Final = ("string",)
_TEXT_OR_NULL: Final = ("string", "null")

#: Every field of the record, in order.
FIELDS: Final[tuple[Field, ...]] = (
    Field("schema_version", _TEXT, "Version of this record.", choices=(SCHEMA_VERSION,)),
    Field("decision_id", _TEXT, "UUIDv7 of the decision, the same however often it is shipped.", _UUID7),
    Field("seq", ("integer",), "Number of the decision in its instance's log, from 1; a gap is a loss."),
    Field("ts", _TEXT, "When it was taken: RFC 3339, UTC.", _TS),
    Field("ts_ms", ("integer",), "The same instant since the Unix epoch.", unit="ms"),
    Field("instance", _TEXT, "The config's name for the instance; empty where it could not be read."),
    Field("experiment_id", _TEXT, "The route's experiment, and the key of the topic; * of what concerns "
          "every route."),
    Field("config_version", _TEXT_OR_NULL, "Hash of the resolved config that ran then."),
    Field("action", _TEXT, "kill, revive, weight, reload (of the config), start (with another config than "
          "before), verdict, or ramp_ and what happened to a ramp; later releases may have others.",
          "^[a-z][a-z0-9_]*$"),
    Field("outcome", _TEXT, "Whether it was done; refused: nothing was changed.", choices=(DONE, REFUSED)),
    Field("scope", _TEXT, "What it is about: *, ROUTE or ROUTE/CANDIDATE."),
    Field("route", _TEXT_OR_NULL, "The route of the scope; null: all of them."),
    Field("candidate", _TEXT_OR_NULL, "The candidate of the scope; null: all of them."),
    Field("who", _TEXT, "The person or program that asked, as far as it said so."),
    Field("via", _TEXT, "The way it came, such as api 127.0.0.1, state-dir, file KILL or signal SIGUSR1."),
    Field("reason", _TEXT, "Why, in the words of whoever asked."),
    Field("old", (), "What was before: killed parts (array), a weight (integer, basis points), a config "
          "version, a ramp's phase (array) or a verdict (string)."),
    Field("new", (), "What is now, in the same form; of what was refused, what was asked for."),
    Field("note", _TEXT_OR_NULL, "What else it did, or did not do."),
    Field("refusal", _TEXT_OR_NULL, "Why it was refused; null of what was done."),
    Field("evidence", ("object", "null"), "The verdict that it rests on, with counts, parameters and "
          "offsets: `understudy verdict --from-record` makes it again from them."),
    Field("diff", ("array", "null"), "Of a config: each key that changed, one line each, without secrets."),
)  # fmt: skip


def make(decision: Decision, about: About) -> dict[str, Any]:
    """Return the record of a decision; its `seq` is 0 until it is in the log."""
    route, _, candidate = decision.scope.partition("/")
    is_of_route = route not in ("", EVERYTHING)
    values = {
        "schema_version": SCHEMA_VERSION,
        "decision_id": _identity(decision.ts_ms),
        "seq": 0,
        "ts": rfc3339(decision.ts_ms),
        "ts_ms": decision.ts_ms,
        "instance": about.instance,
        "experiment_id": about.experiments.get(route, route) if is_of_route else EVERYTHING,
        "config_version": about.config_version or None,
        "action": decision.action,
        "outcome": REFUSED if decision.refusal else DONE,
        "scope": decision.scope,
        "route": route if is_of_route else None,
        "candidate": candidate or None,
        "who": decision.who,
        "via": decision.via,
        "reason": decision.reason,
        "old": decision.old,
        "new": decision.new,
        "note": decision.note or None,
        "refusal": decision.refusal or None,
        "evidence": decision.evidence,
        "diff": list(decision.diff) or None,
    }
    return {each.name: values[each.name] for each in FIELDS}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a record.

    Every field is required; further ones are allowed, so that a reader of version 1 accepts what
    a later release adds.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:understudy:decision:v{SCHEMA_VERSION}",
        "title": "Understudy decision record",
        "description": "One decision: who did what, why, from what to what, on what evidence; or what was "
        "refused, and why. Every field is always present and null when absent.",
        "type": "object",
        "properties": {each.name: _property(each) for each in FIELDS},
        "required": [each.name for each in FIELDS],
    }


def schema_text() -> bytes:
    """Return `json_schema` as the bytes of `config/decision.schema.json`."""
    return orjson.dumps(json_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _property(each: Field) -> dict[str, Any]:
    found: dict[str, Any] = {"description": each.description}
    if each.unit:
        found["x-unit"] = each.unit
    if each.types:
        found["type"] = each.types[0] if len(each.types) == 1 else [*each.types]
    if "array" in each.types:
        found["items"] = {"type": "string"}
    if each.choices:
        found["enum"] = [*each.choices]
    if each.pattern:
        found["pattern"] = each.pattern
    return found


def _identity(ts_ms: int) -> str:
    """Return a UUIDv7 (RFC 9562 section 5.7): the time, then chance."""
    chance = int.from_bytes(os.urandom(10), "big")
    number = (ts_ms & 0xFFFF_FFFF_FFFF) << 80 | chance
    number = number & ~(0xF << 76) | 0x7 << 76  # its version
    number = number & ~(0x3 << 62) | 0x2 << 62  # its variant
    digits = f"{number:032x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
