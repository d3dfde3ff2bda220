"""The decision record, version 1: what is published, what is frozen, and what records say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
from jsonschema import Draft202012Validator

from proxy.state.decision_record import (
    FIELDS,
    SCHEMA_VERSION,
    About,
    Decision,
    json_schema,
    make,
    schema_text,
)
from tests.support.schema_changes import breaking_changes

#: Frozen: a change that the test refuses needs a new `schema_version` and a new topic.
FROZEN: dict[str, Any] = orjson.loads(
    (Path(__file__).parent / "decision_schema_v1.json").read_bytes()
)
PUBLISHED = Path(__file__).parents[2] / "config" / "decision.schema.json"
ABOUT = About("gateway-a", "b63859afb41fb9dd", {"iris": "iris-may"})
KILL = Decision(1_700_000_000_123, "kill", "ann", "api 127.0.0.1", "iris/v2", [], ["mirror"], "why")


def test_the_schema_file_is_current() -> None:
    """`understudy schema decision > config/decision.schema.json` mends it."""
    assert PUBLISHED.read_bytes() == schema_text()
    Draft202012Validator.check_schema(json_schema())


def test_the_schema_breaks_no_reader_of_version_1() -> None:
    """Fields may come; nothing that was promised goes or changes."""
    assert SCHEMA_VERSION == "1", "freeze the schema of the new version beside this one"
    assert breaking_changes(FROZEN, json_schema()) == []


@pytest.mark.parametrize(
    "decision",
    [
        KILL,
        Decision(
            1, "weight", "ramp", "control", "iris/v2", 100, 2_500, "a step", evidence={"a": 1}
        ),
        Decision(1, "reload", "ann", "api", "*", "a", "b", "edited", diff=("x: 1 -> 2",)),
        Decision(1, "reload", "ann", "api", "*", "a", None, "edited", refusal="line 3: no"),
        Decision(1, "ramp_pass", "ramp", "control", "iris/v2", ["shadow"], ["holding"], "r", "n"),
        Decision(1, "verdict", "ramp", "control", "iris/v2", None, "promote", "within_margin"),
    ],
)
def test_a_record_is_valid_and_has_every_field(decision: Decision) -> None:
    """By a validator that is not ours, and by the frozen schema, too."""
    record = orjson.loads(orjson.dumps({**make(decision, ABOUT), "seq": 1}))
    assert list(record) == [field.name for field in FIELDS]
    for schema in (json_schema(), FROZEN):
        jsonschema.validate(record, schema, Draft202012Validator)


def test_a_record_says_whose_experiment_it_is() -> None:
    """The key of the topic is the route's experiment; of what is about everything, an asterisk."""
    record = make(KILL, ABOUT)
    names = ("experiment_id", "route", "candidate", "instance", "config_version", "outcome")
    assert [record[name] for name in names] == [
        "iris-may", "iris", "v2", "gateway-a", "b63859afb41fb9dd", "done",
    ]  # fmt: skip
    everything = make(Decision(1, "kill", "ann", "api", "*", [], ["mirror"], "why"), ABOUT)
    assert [everything[name] for name in names[:3]] == ["*", None, None]
    unknown = make(Decision(1, "kill", "ann", "api", "rose", [], ["mirror"], "why"), About())
    assert [unknown[name] for name in names] == ["rose", "rose", None, "", None, "done"]


def test_each_decision_has_an_id_of_its_own_that_begins_with_its_time() -> None:
    """UUIDv7, so ids sort by time."""
    ids = {make(KILL, ABOUT)["decision_id"] for _ in range(100)}
    assert len(ids) == 100
    assert {each[:13] for each in ids} == {"018bcfe5-687b"}
