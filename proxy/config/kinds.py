"""The schema's types looked at from outside: what stands at a path, and how its value is written.

Serves messages (a bound in the key's own unit), the JSON Schema (defaults as an operator writes
them) and the tests that hold `config/reference.yaml` to the schema.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator

from proxy.config import units
from proxy.config.resolved import Address, Split
from proxy.config.yaml_tree import Path

_WRITTEN: dict[Any, Callable[[Any], str]] = {
    units.seconds: units.duration,
    units.size_bytes: units.size,
    units.basis_points: units.percent,
}


def kind_at(model: type[BaseModel], path: Path) -> Any:
    """Return the annotated type of the value at `path`, or None where there is none."""
    kind: Any = model
    for step in path:
        kind = _inner(kind, step)
    return kind


def item_of(kind: Any) -> Any:
    """Return the type of the items of a list, or of the values of a mapping."""
    for part in _parts(kind):
        if typing.get_origin(part) in (tuple, dict):
            return typing.get_args(part)[0 if typing.get_origin(part) is tuple else 1]
    return None


def model_in(kind: Any) -> type[BaseModel] | None:
    """Return the model behind a type, if it is one."""
    for part in _parts(kind):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def unit_of(kind: Any) -> Callable[[Any], str] | None:
    """Return how numbers of this type are written, if they have a unit."""
    for found in _metadata(kind):
        if isinstance(found, BeforeValidator) and found.func in _WRITTEN:
            return _WRITTEN[found.func]
    return None


def as_written(kind: Any, value: Any) -> Any:
    """Return a value of this type as an operator writes it in YAML."""
    write = unit_of(kind)
    if write is not None and value is not None:
        return write(value)
    if isinstance(value, Split):
        return f"{value.kind}:{value.name}" if value.name else str(value.kind)
    if isinstance(value, Address):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    return list(value) if isinstance(value, tuple) else value


def _inner(kind: Any, step: str | int) -> Any:
    """Return the annotated type of the value at `step` inside a value of the type `kind`."""
    found = model_in(kind)
    if found is not None:
        for key, field in found.model_fields.items():
            if step == (field.alias or key):
                return Annotated[field.annotation, *field.metadata, None]
        return None
    return item_of(kind)


def _parts(kind: Any) -> Iterator[Any]:
    """Yield the plain types behind `Annotated[...]` and `... | None`."""
    if typing.get_origin(kind) is Annotated:
        yield from _parts(typing.get_args(kind)[0])
    elif typing.get_origin(kind) in (types.UnionType, typing.Union):
        for option in typing.get_args(kind):
            yield from _parts(option)
    else:
        yield kind


def _metadata(kind: Any) -> Iterator[Any]:
    if typing.get_origin(kind) is Annotated:
        inner, *found = typing.get_args(kind)
        yield from found
        yield from _metadata(inner)
    elif typing.get_origin(kind) in (types.UnionType, typing.Union):
        for option in typing.get_args(kind):
            yield from _metadata(option)
