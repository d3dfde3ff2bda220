"""Which pair it is, and when: the same however often a journal is read. Pure.

A `pair_id` is a UUIDv7 (RFC 9562 section 5.7): 48 bits of milliseconds, 42 bits that name instance
and candidate (a BLAKE2b hash in place of random bits), and the pair's number in its instance as a
counter (section 6.2, method 1). So it sorts by time, and within a worker's run by number. Hashing
what does not change only once saves 1 us for each pair. Digits are padded by a number that is one
digit longer: mypyc leaves format specifications to `str.format`, which makes an id and a time 0.8 us
more expensive.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Final

import orjson

#: The year 10000: beyond RFC 3339.
_LIMIT_S: Final = 253_402_300_800
_COUNTER: Final = 0xFFFF_FFFF
#: Added, these put a 1 before the digits of a number: 8 and 12 in base 16, 6 in base 10.
_OVER_COUNTER: Final = 1 << 32
_OVER_MS: Final = 1 << 48
_OVER_US: Final = 1_000_000
_MAX_SOURCES: Final = 1024


class Identities:
    """Names pairs; keeps what the pair before had in common with this one."""

    def __init__(self) -> None:
        self._ms: int | None = None
        self._second_s: int | None = None
        self._second = self._time = ""
        self._sources: dict[tuple[str, str], str] = {}

    def of(self, ts_us: int, instance: str, seq: int, candidate: str) -> tuple[str, str]:
        """Return (`pair_id`, `ts`): the id, and the instant as RFC 3339 in microseconds, UTC.

        Raises:
            ValueError: the instant is before 1970 or after the year 9999.
        """
        ms = ts_us // 1000
        if ms != self._ms:
            self._turn_to(ms)
        source = self._sources.get((instance, candidate)) or self._source(instance, candidate)
        return (
            self._time + source + hex(_OVER_COUNTER + (seq & _COUNTER))[3:],
            self._second + str(_OVER_US + ts_us % _OVER_US)[1:] + "Z",
        )

    def _turn_to(self, ms: int) -> None:
        second_s = ms // 1000
        if second_s != self._second_s:
            if not 0 <= second_s < _LIMIT_S:
                raise ValueError(f"{second_s} s since 1970 is no time")
            self._second = datetime.fromtimestamp(second_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
            self._second_s = second_s
        digits = hex(_OVER_MS + ms)[3:]
        self._time = f"{digits[:8]}-{digits[8:]}-7"
        self._ms = ms

    def _source(self, instance: str, candidate: str) -> str:
        """Return the part of an id that names the source, `AAA-VBBB-CCCC`, in hex digits."""
        name = orjson.dumps((instance, candidate))
        digest = hashlib.blake2b(name, digest_size=6).hexdigest()
        variant = "89ab"[int(digest[3], 16) & 3]
        source = f"{digest[:3]}-{variant}{digest[4:7]}-{digest[7:11]}"
        if len(self._sources) >= _MAX_SOURCES:
            self._sources.clear()
        self._sources[instance, candidate] = source
        return source


def pair_id(ts_us: int, instance: str, seq: int, candidate: str) -> str:
    """Return the id of one pair; `Identities` is for many."""
    return Identities().of(ts_us, instance, seq, candidate)[0]
