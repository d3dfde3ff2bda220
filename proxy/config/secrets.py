"""Secrets of a config on their way to the processes: by the environment, never by a file.

`understudy serve` writes the resolved config into `state_dir` for the others to read. What is secret
in it (`PLACES`) is left out there and passed on in one environment variable, which children inherit
when they are restarted, too: no disk, backup or copied volume holds it. A process that may not go
on without its secrets reads its config by `read_whole`; without them it does not start. Whoever only
asks for names and numbers (`understudy kill`) uses `resolved.loads` and finds empty texts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

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
#: The member of a file which says how many secrets were left out.
_LEFT_OUT: Final = "secrets_left_out"


def apart(config: Config) -> tuple[bytes, str]:
    """Return `config` as JSON without its secrets, and the secrets as the variable's value.

    Raises:
        StateError: they are too long to be inherited.
    """
    plain = orjson.loads(resolved.dumps(config))
    secrets = []
    for holder, key, path in _places(plain):
        if holder[key]:
            secrets.append((path, holder[key]))
            holder[key] = ""
    plain[_LEFT_OUT] = len(secrets)
    value = orjson.dumps({"version": config.version, "secrets": secrets})
    if len(value) > MAX_VALUE_BYTES:
        raise StateError(
            f"the config's secrets are longer than {MAX_VALUE_BYTES:,} bytes, more than processes can "
            "inherit"
        )
    data = orjson.dumps(plain, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS)
    return data, value.decode()


def read_whole(path: Path, environ: Mapping[str, str] | None = None) -> Config:
    """Return the config in the file at `path`, with its secrets from the environment.

    Raises:
        StateError: secrets were left out, and the environment has not those of this config.
        OSError, ValueError, KeyError, TypeError: it is no resolved config of this version.
    """
    plain = orjson.loads(path.read_bytes())
    left_out = plain.pop(_LEFT_OUT, 0)
    if left_out:
        found = orjson.loads((os.environ if environ is None else environ).get(VARIABLE, "{}"))
        known = {tuple(at): value for at, value in found.get("secrets", ())}
        if found.get("version") != plain["version"] or len(known) != left_out:
            raise StateError(
                f"{path} was written without its secrets, and {VARIABLE} does not hold them; "
                "start with `understudy serve CONFIG`"
            )
        for holder, key, at in _places(plain):
            holder[key] = known.get(tuple(at), holder[key])
    return resolved.loads(orjson.dumps(plain))


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
