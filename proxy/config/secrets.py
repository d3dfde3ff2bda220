"""Secrets of a config on their way to the processes: by the environment, never by a file.

`understudy serve` writes the resolved config into `state_dir` for the others to read. What is secret
in it (`PLACES`) is left out there and passed on in one environment variable, which children inherit
when they are restarted, too: no disk, backup or copied volume holds it. A process that may not go
on without its secrets reads its config by `read_whole`; without them it does not start. Whoever only
asks for names and numbers (`understudy kill`) uses `resolved.loads` and finds empty texts.

The file says of each place which of the inherited secrets belongs there. So a config that is put in
place later can have routes that come and go, and secrets at other places, as long as its secrets are
among those of the start (`apart_again`): the environment of a process that runs cannot be changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson

from proxy.config import resolved
from proxy.config.resolved import Config
from proxy.errors import StateError

#: Read by `read_whole`, set by `understudy serve`.
VARIABLE: Final = "UNDERSTUDY_SECRETS"

#: Linux takes 128 KiB for one variable (MAX_ARG_STRLEN in execve(2)).
MAX_VALUE_BYTES: Final = 120_000

#: Where secrets are in the JSON of a config; `*` is every element of a list or value of a mapping.
PLACES: Final = (
    ("admin", "token"),
    ("record", "hash_key"),
    ("record", "kafka", "options", "*"),
    ("record", "redact", "key"),
    ("routes", "*", "candidates", "*", "rewrite", "set_headers", "*"),
    ("routes", "*", "match", "headers", "*"),
    ("routes", "*", "mirror_only", "headers", "*"),
    *(
        ("routes", "*", "ramp", role, key)
        for role in ("confirm", "notify")
        for key in ("secret", "url")
    ),
    ("telemetry", "otlp", "headers", "*"),
)
#: The member of a file which says whose secrets were left out (the version of the start), and of each
#: place which one it was.
_LEFT_OUT: Final = "secrets_left_out"

#: The path to a secret in a config's JSON, and which of those that are inherited it is.
_Place: TypeAlias = tuple[list[str | int], int]


class NewSecretsError(StateError):
    """A config has secrets that processes have not inherited.

    Attributes:
        keys: where they are, in the words of the config file.
    """

    def __init__(self, keys: tuple[str, ...]) -> None:
        self.keys = keys
        super().__init__(f"secrets that are new: {', '.join(keys)}")


def apart(config: Config) -> tuple[bytes, str]:
    """Return `config` as JSON without its secrets, and the secrets as the variable's value.

    Raises:
        StateError: they are too long to be inherited.
    """
    plain = orjson.loads(resolved.dumps(config))
    secrets: list[str] = []
    places: list[_Place] = []
    for holder, key, path in _places(plain):
        if holder[key]:
            places.append((path, len(secrets)))
            secrets.append(holder[key])
            holder[key] = ""
    value = orjson.dumps({"version": config.version, "secrets": secrets})
    if len(value) > MAX_VALUE_BYTES:
        raise StateError(
            f"the config's secrets are longer than {MAX_VALUE_BYTES:,} bytes, more than processes can "
            "inherit"
        )
    return _without(plain, config.version, places), value.decode()


def apart_again(config: Config, environ: Mapping[str, str] | None = None) -> bytes:
    """Return `config` as JSON without its secrets, for processes that run already.

    Args:
        config: to be put in place.
        environ: what those processes have inherited, as this one has.

    Raises:
        NewSecretsError: it has secrets that they have not.
    """
    version, secrets = _inherited(environ)
    plain = orjson.loads(resolved.dumps(config))
    places: list[_Place] = []
    unknown: list[list[str | int]] = []
    for holder, key, path in _places(plain):
        secret = holder[key]
        if secret and secret not in secrets:
            unknown.append(path)
        elif secret:
            places.append((path, secrets.index(secret)))
            holder[key] = ""
    if unknown:
        raise NewSecretsError(tuple(dict.fromkeys(_told(plain, path) for path in unknown)))
    return _without(plain, version, places)


def hidden(config: Config) -> Config:
    """Return `config` with empty texts for its secrets, as whoever inherits none reads it."""
    plain = orjson.loads(resolved.dumps(config))
    for holder, key, _ in _places(plain):
        holder[key] = ""
    return resolved.loads(orjson.dumps(plain))


def _without(plain: Any, version: str, places: list[_Place]) -> bytes:
    plain[_LEFT_OUT] = {"of": version, "places": places}
    return orjson.dumps(plain, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)


def _inherited(environ: Mapping[str, str] | None) -> tuple[str, list[str]]:
    """Return whose secrets this process has inherited (a version), and them."""
    found = orjson.loads((os.environ if environ is None else environ).get(VARIABLE) or "{}")
    return found.get("version", ""), found.get("secrets", [])


def read_whole(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Return the config in the file at `path`, with its secrets from the environment.

    Raises:
        StateError: secrets were left out, and the environment has not those of this config.
        OSError, ValueError, KeyError, TypeError: it is no resolved config of this version.
    """
    plain = orjson.loads(path.read_bytes())
    left_out = plain.pop(_LEFT_OUT, {})
    if left_out.get("places"):
        version, secrets = _inherited(environ)
        if version != left_out["of"] or len(secrets) <= max(n for _, n in left_out["places"]):
            raise StateError(
                f"{path} was written without its secrets, and {VARIABLE} does not hold them; "
                "start with `understudy serve CONFIG`"
            )
        known = {tuple(at): secrets[number] for at, number in left_out["places"]}
        for holder, key, at in _places(plain):
            holder[key] = known.get(tuple(at), holder[key])
    return resolved.loads(orjson.dumps(plain))


def _told(plain: Any, path: list[str | int]) -> str:
    """Return a place in the words of the file: things in lists by their names, and no value."""
    words, value = [], plain
    for step in path:
        value = value[step]
        if isinstance(step, str):
            words.append(step)
        elif isinstance(value, dict) and "name" in value:
            words.append(value["name"])
    return ".".join(word for word in words if word != "rewrite")


def _places(plain: Any) -> Iterator[tuple[Any, str | int, list[str | int]]]:
    """Yield each secret of a config's JSON: what holds it, its key there, and its whole path."""
    for place in PLACES:
        yield from _below(plain, place, [])


def _below(
    value: Any, place: tuple[str, ...], path: list[str | int]
) -> Iterator[tuple[Any, str | int, list[str | int]]]:
    if value is None:  # no Kafka, no collector
        return
    step, *rest = place
    keys: list[Any] = [step]
    if step == "*":
        keys = list(range(len(value))) if isinstance(value, list) else list(value)
    for key in keys:
        if rest:
            yield from _below(value[key], tuple(rest), [*path, key])
        else:
            yield value, key, [*path, key]
