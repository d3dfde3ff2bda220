"""What lies in config/: current, complete, and true to the code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import orjson
import pytest
import yaml
from pydantic import BaseModel

from proxy.comparison.comparators import names
from proxy.config import json_schema, kinds, yaml_tree
from proxy.config.cross_checks import COMPARE_KEYS
from proxy.config.load import load_config
from proxy.config.schema import ConfigFile
from proxy.config.schema_route import CompareFile
from proxy.config.values import COMPARATORS, KAFKA_OPTIONS, json_path
from proxy.errors import ConfigError
from proxy.kafka.options import NAMES, client_settings
from proxy.pairs import paths

CONFIG = Path(__file__).parents[2] / "config"
FILES = ("sidecar", "gateway", "reference")

#: Shown with an example in reference.yaml, because by default they are left out.
EXAMPLES = {
    "instance", "tls", "tls.client_ca", "backends.health", "backends.tls.ca", "backends.stream_timeout",
    "backends.first_byte_timeout",
    "backends.tls.certificate", "backends.tls.key", "routes.candidates", "routes.candidates.timeout", "routes.ramp",
    "routes.experiment_id", "routes.ramp.gates.budget", "routes.ramp.confirm", "routes.ramp.notify",
    "record.kafka", "log.slow", "telemetry.otlp",
    "record.redact.json", "routes.segments", "routes.record.bodies", "routes.record.redact.json",
}  # fmt: skip
#: Shown as comments, because each fits only some comparators.
COMMENTED = {f"routes.compare.{key}" for key in COMPARE_KEYS}


@pytest.mark.parametrize("name", FILES)
def test_the_files_in_config_are_good(name: str) -> None:
    """With nothing set in the environment."""
    assert load_config(CONFIG / f"{name}.yaml", {}).routes


@pytest.mark.parametrize("name", FILES)
def test_editors_accept_the_files_in_config(name: str) -> None:
    """The JSON Schema takes them as they are, references to the environment included."""
    schema = json_schema.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    value = yaml.load((CONFIG / f"{name}.yaml").read_text(), yaml_tree._Loader)
    jsonschema.Draft202012Validator(schema).validate(value)


def test_editors_refuse_what_they_can() -> None:
    """Unknown keys, wrong units and missing keys show while typing."""
    validator = jsonschema.Draft202012Validator(json_schema.json_schema())
    good = yaml.load((CONFIG / "reference.yaml").read_text(), yaml_tree._Loader)
    changes: list[dict[str, Any]] = [
        {"lisen": "x"},
        {"workers": 0},
        {"limits": {"memory": "2K"}},
        {"backends": {}},
    ]
    for change in changes:
        assert not validator.is_valid({**good, **change}), change


def test_the_schema_in_config_is_current() -> None:
    """Refresh it with: understudy schema config > config/config.schema.json."""
    assert (CONFIG / "config.schema.json").read_bytes() == json_schema.schema_text()


def test_every_key_has_a_description() -> None:
    """It is what editors show."""
    schema = json_schema.json_schema()
    for name, place in {"": schema, **schema["$defs"]}.items():
        for key, value in place.get("properties", {}).items():
            assert "description" in value or "$ref" in value, f"{name}.{key}"


def _keys(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any, Any]]:
    """Yield every key of a model: its dotted name, its field and its type."""
    for key, field in model.model_fields.items():
        here = (*path, field.alias or key)
        kind = kinds.kind_at(model, (here[-1],))
        yield ".".join(here), field, kind
        inner = kinds.model_in(kind) or kinds.model_in(kinds.item_of(kind))
        if inner is not None:
            yield from _keys(inner, here)


def _first(value: Any, dotted: str) -> Any:
    """Return the value of a key in the first item that has it."""
    for key in dotted.split("."):
        if isinstance(value, dict) and key not in value:
            value = next(iter(value.values()))  # a mapping by name, such as backends
        value = value[0] if isinstance(value, list) else value
        value = value[key]
    return value


def _as_text(default: Any) -> str:
    """Return a default of `compare` as it stands in the reference."""
    if isinstance(default, float):
        return f"{default:g}".replace("e-0", "e-")
    return "[]" if default == () else str(default).lower()


def test_the_reference_shows_every_key_with_its_default() -> None:
    """Where there is none, an example, and the comment says so."""
    text = (CONFIG / "reference.yaml").read_text()
    value = yaml.load(text, yaml_tree._Loader)
    for dotted, field, kind in _keys(ConfigFile):
        key = dotted.rpartition(".")[2]
        if dotted in COMMENTED:
            assert f"# {key}: {_as_text(field.default)}\n" in text
            continue
        shown = _first(value, dotted)
        if not field.is_required() and dotted not in EXAMPLES and kinds.model_in(kind) is None:
            assert shown == kinds.as_written(kind, field.default), dotted


def test_templates_are_the_files_in_config() -> None:
    """`understudy init` writes what the repository shows."""
    for name in ("sidecar", "gateway"):
        template = CONFIG.parent / "proxy" / "cli" / "templates" / f"{name}.yaml"
        assert template.read_bytes() == (CONFIG / f"{name}.yaml").read_bytes()


def test_the_schema_knows_the_comparators_there_are() -> None:
    """The list is written twice, because config stands below comparison."""
    assert sorted(COMPARATORS) == sorted(names())
    owners = {name for owners in COMPARE_KEYS.values() for name in owners}
    assert owners <= {*COMPARATORS}
    assert {*COMPARE_KEYS} == {*CompareFile.model_fields} - {"prediction", "comparator"}


def test_the_schema_knows_the_kafka_options_there_are() -> None:
    """The list is written twice, because config stands below the recorder."""
    assert tuple(sorted(KAFKA_OPTIONS)) == tuple(sorted(NAMES))
    for name, allowed in KAFKA_OPTIONS.items():
        if name.startswith("ssl."):
            continue
        for value in allowed if isinstance(allowed, tuple) else ("1",):
            client_settings({name: value})
        if allowed is not None:
            with pytest.raises(ConfigError):
                client_settings({name: "nonsense"})


@pytest.mark.parametrize(
    "path",
    ["a", "a.b", "a[*].b", "[0].a", "[*]", "a[0][1]", 'a."x-y"', '"x y"', "*", "a.*", "", ".a",
     "a.", "a..b", "a[-1]", "a[01]", "a b", "a[x]", "$.a", '"', "a[", "[0]a", 'a"b"', "**", "a[1].[2]"],
)  # fmt: skip
def test_the_schema_takes_the_redaction_paths_there_are(path: str) -> None:
    """The grammar is written twice, because config stands below pairs."""

    def can(parse: Any) -> bool:
        try:
            parse(path)
        except ValueError:
            return False
        return True

    assert can(json_path) == can(paths.parse)


def test_the_schema_file_is_plain_json() -> None:
    """Editors read it without us."""
    assert (
        orjson.loads((CONFIG / "config.schema.json").read_bytes())["title"] == "Understudy config"
    )
