"""What differs between two configs, in the words of the config file, and what that takes. Pure.

Secrets are compared and never told: neither tokens and keys, nor Kafka's options, nor the values of
headers that are set or asked for (`proxy.config.secrets`). What only a restart can change is bound at the
start: sockets, numbers and niceness of processes, folders, and the times that the order of a stop was
planned with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Final

from proxy.config.resolved import (
    Address,
    Backend,
    Candidate,
    Config,
    Endpoint,
    RedactAction,
    RedactRule,
    Route,
    Split,
)
from proxy.config.units import duration, percent, size

#: Keys that are fixed at the start, and keys below them.
AT_START: Final = (
    "instance", "listen", "tls", "workers", "recorders", "state_dir", "admin.listen",
    "limits.shutdown", "journal", "record.niceness", "replicas",
)  # fmt: skip
#: The ends of keys, or of what is above them, whose values are never told.
_SECRET: Final = (
    ("admin", "token"),
    ("record", "hash_key"),
    ("redact", "key"),
    ("kafka", "options"),
    ("otlp", "headers"),
    ("set_headers",),
    ("match", "headers"),
    ("mirror_only", "headers"),
)
HIDDEN: Final = "(secret)"
_UNITS: Final = {"_s": duration, "_bp": percent, "_bytes": size}
#: What the file calls otherwise, or keeps in what is above.
_NAMES: Final = {"split": "split_by"}
#: Lists of things that have names; their order decides, too.
_THINGS: Final = frozenset({"routes", "candidates"})
_INSIDE_PARENT: Final = frozenset({"rewrite"})


@dataclass(frozen=True, slots=True)
class Change:
    """One key that differs; as text, one line.

    Attributes:
        key: as in the file, things with a name by it: `routes.iris.candidates.v2.weight`.
        old, new: the values as people write them, `(secret)` in place of a secret; None: not there.
    """

    key: str
    old: str | None
    new: str | None

    def __str__(self) -> str:
        if self.old is None:
            return f"{self.key}: added: {self.new}"
        if self.new is None:
            return f"{self.key}: removed: {self.old}"
        if self.old == self.new:
            return f"{self.key}: changed {self.new}"
        return f"{self.key}: {self.old} -> {self.new}"


@dataclass(frozen=True, slots=True)
class _Entry:
    """A value of a config: what is compared (nothing of what has a name), and what is shown.

    Attributes:
        is_order: the value is the names of some things, in their order.
    """

    value: Any
    text: str
    is_order: bool = False


def differences(old: Config, new: Config) -> tuple[Change, ...]:
    """Return every key that differs, in the order of the config; a thing that is new or gone is one."""
    before, after = dict(_entries(old)), dict(_entries(new))
    found = []
    told: list[str] = []
    for key in [*after, *(key for key in before if key not in after)]:
        one, other = before.get(key), after.get(key)
        if _is_below(key, told) or not _differ(one, other):
            continue
        texts = (None if entry is None else entry.text for entry in (one, other))
        found.append(Change(key, *texts))
        if one is None or other is None:
            told.append(key)
    return tuple(found)


def only_at_start(changes: Iterable[Change]) -> tuple[Change, ...]:
    """Return the changes that a running instance cannot take over."""
    return tuple(change for change in changes if _is_at_start(change.key))


def _differ(one: _Entry | None, other: _Entry | None) -> bool:
    if one is None or other is None:
        return not (one or other or _Entry(None, "")).is_order  # the things themselves are told
    if one.is_order:
        return [n for n in one.value if n in other.value] != [
            n for n in other.value if n in one.value
        ]
    return bool(one.value != other.value)


def _is_at_start(key: str) -> bool:
    return any(key == fixed or key.startswith(f"{fixed}.") for fixed in AT_START)


def _is_below(key: str, things: Iterable[str]) -> bool:
    return any(key.startswith(f"{thing}.") for thing in things)


def _entries(config: Config) -> Iterator[tuple[str, _Entry]]:
    for field in fields(config):
        if field.name != "version":
            yield from _walk((field.name,), getattr(config, field.name))


def _walk(path: tuple[str, ...], value: Any) -> Iterator[tuple[str, _Entry]]:
    """Yield what lies at `path` and below it."""
    if value is None:
        return
    if isinstance(value, Address | Endpoint | Split):
        yield _key(path), _Entry(value, _text(value))
    elif is_dataclass(value):
        yield from _walk_fields(path, value)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _walk((*path, name), inner)
    elif isinstance(value, tuple) and path[-1] in _THINGS:
        names = tuple(item.name for item in value)
        yield _key((*path, "order")), _Entry(names, ", ".join(names), is_order=True)
        for item in value:
            yield from _walk((*path, item.name), item)
    else:
        yield _key(path), _leaf(path, value)


def _walk_fields(path: tuple[str, ...], value: Any) -> Iterator[tuple[str, _Entry]]:
    if _is_named(value):
        yield _key(path), _Entry(None, _summary(value))
    for field in fields(value):
        if not (field.name == "name" and _is_named(value)):
            inside = () if field.name in _INSIDE_PARENT else (field.name,)
            yield from _walk((*path, *inside), getattr(value, field.name))


def _leaf(path: tuple[str, ...], value: Any) -> _Entry:
    if any(path[at : at + len(end)] == end for end in _SECRET for at in range(len(path))):
        return _Entry(value, HIDDEN)
    _, unit = _unit(path[-1])
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return _Entry(value, unit(value) if unit is not None and is_number else _text(value))


def _key(path: tuple[str, ...]) -> str:
    """Return a path as the file would name it: without units, which the values have there."""
    return ".".join((*path[:-1], _unit(path[-1])[0]))


def _unit(name: str) -> tuple[str, Any]:
    for end, unit in _UNITS.items():
        if name.endswith(end):
            return name.removesuffix(end), unit
    return _NAMES.get(name, name), None


def _text(value: Any) -> str:
    """Return a value as people write it, on one line."""
    if isinstance(value, Split):
        return f"{value.kind}:{value.name}" if value.name else str(value.kind)
    if isinstance(value, RedactRule) and value.action is RedactAction.DROP:
        return value.path
    if isinstance(value, tuple):
        return f"[{', '.join(map(_text, value))}]"
    if is_dataclass(value) and not isinstance(value, Address | Endpoint):
        parts = (_leaf((f.name,), getattr(value, f.name)).text for f in fields(value))
        names = (_unit(f.name)[0] for f in fields(value))
        return f"{{{', '.join(map(': '.join, zip(names, parts, strict=True)))}}}"
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if value != "" else '""'


def _is_named(value: Any) -> bool:
    return isinstance(value, Backend | Route | Candidate)


def _summary(value: Backend | Route | Candidate) -> str:
    """Return what a thing is, in some words."""
    if isinstance(value, Backend):
        return _text(value.endpoints)
    if isinstance(value, Route):
        return f"primary {value.primary}"
    return (
        f"backend {value.backend}, mirror {percent(value.mirror_bp)}, "
        f"weight {percent(value.weight_bp)}"
    )
