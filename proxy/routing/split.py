"""From a request to its split key, and from a key to buckets.

A bucket is a 64-bit hash of the key under a salt. A share of `bp` basis points holds the buckets
below `bp / 10,000 * 2**64`, so raising a share only ever adds keys, and the same key falls into the
same bucket on every worker, replica and restart. BLAKE2b because it is keyed, uniform and, at
0.7 us for a short key, cheaper than any pure-Python mixer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jmespath
import orjson

from proxy.config.resolved import FULL_BP, Split, SplitKind

#: One more than the largest bucket.
BUCKETS = 1 << 64

#: Reads a split key from (header fields, body, client address); None where there is none.
KeyReader = Callable[[Mapping[bytes, bytes], bytes, bytes], bytes | None]


def salt_of(*words: str) -> bytes:
    """Return a 16-byte salt for a purpose, such as a route's canary or a candidate's mirror."""
    return hashlib.blake2b("\0".join(words).encode(), digest_size=16).digest()


def unit_hash(salt: bytes) -> hashlib.blake2b:
    """Return a hash with the salt in it, to be copied for each key: a third cheaper than afresh."""
    return hashlib.blake2b(digest_size=24, key=salt)


def unit_digest(salted: hashlib.blake2b, key: bytes) -> bytes:
    """Return 24 bytes: three independent big-endian buckets (for unit, canary and replicate)."""
    found = salted.copy()
    found.update(key)
    return found.digest()


def recorded_hash(secret: str, route: str) -> hashlib.blake2b:
    """Return a hash with the secret in it, to be copied for each key that is recorded.

    What is recorded is not what decides: buckets must be the same on every replica and cost
    nothing to check (`understudy explain`), so that whoever knows the route's name could try all
    addresses of clients. Of 8 bytes, so that two of a million units collide once in 10 million logs.
    """
    key = hashlib.blake2b(secret.encode()).digest()
    return hashlib.blake2b(digest_size=8, key=key, salt=salt_of("unit", route))


def bucket(salt: bytes, key: bytes) -> int:
    """Return the one bucket of `key` under `salt`, in [0, 2**64)."""
    return int.from_bytes(hashlib.blake2b(key, digest_size=8, key=salt).digest(), "big")


def threshold(share_bp: int) -> int:
    """Return the number of buckets that a share of `share_bp` basis points holds."""
    return share_bp * BUCKETS // FULL_BP


def needs_body(split: Split) -> bool:
    """Tell whether the key is in the body, so that the decision must wait for it."""
    return split.kind is SplitKind.JSON


def key_reader(split: Split) -> KeyReader:
    """Return the function that finds the split key of a request.

    The function returns None where the key is missing, empty or (in JSON) not a scalar; the caller
    then splits by request id, so that such requests spread evenly and stick to nobody.
    """
    name = split.name.lower().encode()
    if split.kind is SplitKind.HEADER:
        return lambda fields, _body, _peer: fields.get(name) or None
    if split.kind is SplitKind.COOKIE:
        wanted = split.name.encode()
        return lambda fields, _body, _peer: _cookie(fields.get(b"cookie", b""), wanted)
    if split.kind is SplitKind.CLIENT_IP:
        return lambda _fields, _body, peer: peer or None
    if split.kind is SplitKind.JSON:
        search = jmespath.compile(split.name).search
        return lambda _fields, body, _peer: _json_scalar(search, body)
    return lambda fields, _body, _peer: fields.get(b"x-request-id") or None


def _cookie(header: bytes, wanted: bytes) -> bytes | None:
    """Return the value of the first cookie called `wanted` (RFC 6265 section 4.2.1)."""
    for part in header.split(b";"):
        name, _, value = part.strip().partition(b"=")
        if name == wanted:
            return value.strip(b'"') or None
    return None


def _json_scalar(search: Callable[[Any], Any], body: bytes) -> bytes | None:
    try:
        found = search(orjson.loads(body))
    except (orjson.JSONDecodeError, ValueError):
        return None
    if isinstance(found, str):
        return found.encode() or None
    if isinstance(found, int | float) and not isinstance(found, bool):
        return str(found).encode()
    return None
