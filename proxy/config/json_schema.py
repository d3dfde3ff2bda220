"""The JSON Schema of the config file, for editors. Looser than the real check, never stricter.

It is generated from `proxy.config.schema`, kept in `config/config.schema.json` and refreshed with
`understudy schema config`. Every scalar may also be a reference to the environment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
from pydantic import BaseModel

from proxy.config.kinds import as_written, item_of, kind_at, model_in
from proxy.config.schema import ConfigFile

_REFERENCE = {"$ref": "#/$defs/EnvironmentReference"}
_NUMBERS = ("integer", "number")
_LEFT_ALONE = ("default", "propertyNames", "required")
_SCALARS = {"string", "integer", "number", "boolean"}
#: Bounds of types that pydantic checks after our own conversion come under pydantic's names.
_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the config file."""
    schema = ConfigFile.model_json_schema(by_alias=True, mode="validation")
    definitions = schema.pop("$defs")
    for definition in definitions.values():
        if "enum" in definition:
            # Written for readers of the code; the keys say what operators need.
            definition.pop("description", None)
    for model in _models(ConfigFile):
        place = schema if model is ConfigFile else definitions[model.__name__]
        _write_defaults(model, place["properties"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:understudy:config:v1",
        **_with_references(schema),
        "title": "Understudy config",
        "$defs": {
            **{name: _with_references(each) for name, each in definitions.items()},
            "EnvironmentReference": {
                "description": "${VAR} or ${VAR:-default}, taken from the environment.",
                "type": "string",
                "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}",
            },
        },
    }


def schema_text() -> bytes:
    """Return `json_schema` as the bytes of `config/config.schema.json`."""
    return orjson.dumps(json_schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _models(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Yield a model and all models inside it."""
    yield model
    for key, field in model.model_fields.items():
        kind = kind_at(model, (field.alias or key,))
        for inner in (kind, item_of(kind)):
            found = model_in(inner)
            if found is not None:
                yield from _models(found)


def _write_defaults(model: type[BaseModel], properties: dict[str, Any]) -> None:
    """Replace the defaults, which pydantic writes as numbers, by what an operator writes."""
    for key, field in model.model_fields.items():
        name = field.alias or key
        place = properties[name]
        place.pop("default", None)
        place.pop("title", None)
        default = field.default
        if not field.is_required() and default is not None and not isinstance(default, BaseModel):
            place["default"] = as_written(kind_at(model, (name,)), default)


def _with_references(schema: Any) -> Any:
    """Return `schema` with every scalar in it free to be a reference instead."""
    if isinstance(schema, list):
        return [_with_references(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if not _is_scalar(schema):
        # `propertyNames` are keys, and keys are never expanded.
        return {
            key: value if key in _LEFT_ALONE else _with_references(value)
            for key, value in schema.items()
            if key not in _BOUNDS
        }
    outer = {key: schema[key] for key in ("description", "default") if key in schema}
    inner = {
        _BOUNDS.get(key, key): value
        for key, value in schema.items()
        if key not in outer and (key not in _BOUNDS or schema.get("type") in _NUMBERS)
    }
    return {**outer, "anyOf": [inner, _REFERENCE]}


def _is_scalar(schema: dict[str, Any]) -> bool:
    if "enum" in schema or "const" in schema:
        return True
    kind = schema.get("type")
    kinds = set(kind) if isinstance(kind, list) else {kind}
    return bool(kinds & _SCALARS)
