"""The pair record's schema stays what readers of version 1 were written against.

`schema_v1.json` is frozen. A change that the test refuses needs a new `schema_version`, a new topic
(`pairs.v2`) and a frozen file of its own; a new field is no such change, and goes into the frozen
file with the release that brings it.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest

from proxy.pairs.record import SCHEMA_VERSION, json_schema
from tests.support.records import pair
from tests.support.schema_changes import breaking_changes

FROZEN: dict[str, Any] = orjson.loads((Path(__file__).parent / "schema_v1.json").read_bytes())
CURRENT = Path(__file__).parents[2] / "config" / "pair.schema.json"


def test_the_schema_breaks_no_reader_of_its_version() -> None:
    """Both what the code says and what is published."""
    assert SCHEMA_VERSION == "1", "freeze the schema of the new version beside schema_v1.json"
    assert breaking_changes(FROZEN, json_schema()) == []
    assert breaking_changes(FROZEN, orjson.loads(CURRENT.read_bytes())) == []


def test_a_record_of_today_is_valid_for_a_reader_of_the_frozen_schema() -> None:
    """By a validator that is not ours."""
    jsonschema.Draft202012Validator.check_schema(FROZEN)
    for record in (pair(1), pair(2, [1.5], [1.6], replicate=[1.5]), pair(3, "a", "b")):
        jsonschema.Draft202012Validator(FROZEN).validate(record)


def _field(name: str, **changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(schema: dict[str, Any]) -> None:
        schema["properties"][name] |= changes

    return change


def _remove(schema: dict[str, Any]) -> None:
    del schema["properties"]["candidate_latency_ms"]
    schema["required"].remove("candidate_latency_ms")


def _rename(schema: dict[str, Any]) -> None:
    schema["properties"]["latency"] = schema["properties"].pop("candidate_latency_ms")
    schema["required"].append("latency")
    schema["required"].remove("candidate_latency_ms")


def _no_longer_required(schema: dict[str, Any]) -> None:
    schema["required"].remove("equal")


def _half_added(schema: dict[str, Any]) -> None:
    schema["properties"]["extra"] = {"type": "string"}


def _closed(schema: dict[str, Any]) -> None:
    schema["additionalProperties"] = False


def _without_unit(schema: dict[str, Any]) -> None:
    del schema["properties"]["candidate_latency_ms"]["x-unit"]


def _without_pattern(schema: dict[str, Any]) -> None:
    del schema["properties"]["pair_id"]["pattern"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_remove, "candidate_latency_ms: removed"),
        (_rename, "candidate_latency_ms: removed"),
        (_field("equal", type="boolean"), "equal: type was"),
        (_field("seq", type=["integer", "null"]), "seq: type was"),
        (_field("candidate_latency_ms", type=["integer", "null"]), "candidate_latency_ms: type"),
        (_field("primary_prediction", type="number"), "primary_prediction: type was None"),
        (_no_longer_required, "equal: required before, and not so now"),
        (_field("mode", enum=["shadow"]), "mode: enum was"),
        (_field("mode", enum=["shadow", "canary", "dark"]), "mode: enum was"),
        (_field("route", enum=["iris"]), "route: enum was None"),
        (_without_pattern, "pair_id: pattern was"),
        (_field("segments", additionalProperties={"type": "number"}), "segments: additional"),
        (_without_unit, "candidate_latency_ms: x-unit was 'ms'"),
        (_field("candidate_latency_ms", **{"x-unit": "s"}), "x-unit was 'ms', is 's'"),
        (_half_added, "extra: new, and not required"),
        (_closed, "record: additionalProperties was None"),
    ],
)
def test_each_kind_of_breaking_change_is_refused(
    change: Callable[[dict[str, Any]], None], told: str
) -> None:
    """One sentence for each, that begins with the field."""
    changed = deepcopy(FROZEN)
    change(changed)
    (found,) = breaking_changes(FROZEN, changed)
    assert told in found


def test_what_breaks_nobody_is_let_through() -> None:
    """A new field, a better sentence, another order."""
    changed = deepcopy(FROZEN)
    changed["properties"]["colour"] = {"type": ["string", "null"], "description": "New."}
    changed["required"] = [*reversed(changed["required"]), "colour"]
    changed["properties"]["mode"]["enum"].reverse()
    changed["properties"]["mode"]["description"] = "Said better."
    changed["properties"] = dict(reversed(changed["properties"].items()))
    assert breaking_changes(FROZEN, changed) == []
