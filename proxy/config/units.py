"""The units operators write, as the numbers processes use: seconds, bytes, basis points. Pure.

It decides what a duration, a size and a percent look like, and how a wrong one is explained. Which
range a setting accepts is `proxy.config.schema`'s to say.

All arithmetic is decimal: 0.29% is 29 basis points, which binary floats would make 28.
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import Any

_PART = r"[0-9]+(?:\.[0-9]+)?(?:us|ms|s|m|h|d)"

#: Patterns for editors; `seconds`, `size_bytes` and `basis_points` explain better than these can.
DURATION_PATTERN = rf"^(?:{_PART})+$"
SIZE_PATTERN = r"^[0-9]+(?:\.[0-9]+)? ?(?:B|[kK]B|MB|GB|TB|KiB|MiB|GiB|TiB)$"
PERCENT_PATTERN = r"^[0-9]+(?:\.[0-9]{1,2})? ?%$"

_SECONDS = {
    "us": Decimal("0.000001"),
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
    "d": Decimal(86400),
}
_BYTES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_ONE_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)")
_LONGEST = 40
_MAX_BYTES = 2**60


def seconds(value: Any) -> float:
    """Return a duration such as `250ms`, `30s` or `1h30m` in seconds.

    Raises:
        ValueError: it is no duration; says how to write one.
    """
    if _is_zero(value):
        return 0.0
    text = _text(value)
    if re.fullmatch(DURATION_PATTERN, text):
        parts = _ONE_PART.findall(text)
        return float(sum(Decimal(number) * _SECONDS[unit] for number, unit in parts))
    if _is_number(text):
        raise ValueError(f"{text} has no unit; write {text}ms, {text}s or {text}m")
    raise ValueError(f"{_quoted(value)} is not a duration; write one such as 250ms, 30s, 10m or 1h")


def size_bytes(value: Any) -> int:
    """Return a size such as `32KiB` (1,024), `10MB` (1,000,000) or a plain number, in bytes.

    Raises:
        ValueError: it is no size of whole bytes; says how to write one.
    """
    text = _text(value)
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{_quoted(value)} is not a size; write one such as 64KiB, 8MiB or 10GB")
    number, unit = match.groups()
    if unit.upper() in ("K", "M", "G", "T"):
        raise ValueError(
            f"{text} could mean two sizes; write {number}{unit.upper()}iB (powers of 1,024) "
            f"or {number}{unit.upper()}B (powers of 1,000)"
        )
    factor = _BYTES.get(unit.lower() or "b")
    if factor is None:
        raise ValueError(f"{text} has an unknown unit; use B, KiB, MiB, GiB, kB, MB or GB")
    exact = Decimal(number) * factor
    if exact != exact.to_integral_value():
        raise ValueError(f"{text} is not a whole number of bytes")
    if exact > _MAX_BYTES:
        raise ValueError(f"{text} is more than any disk holds")
    return int(exact)


def basis_points(value: Any) -> int:
    """Return a percent such as `2%` or `0.05%` in basis points, 0 to 10,000.

    Raises:
        ValueError: it is no percent from 0% to 100% in steps of 0.01%; says how to write one.
    """
    if _is_zero(value):
        return 0
    text = _text(value)
    number = text.removesuffix("%").rstrip()
    if not _is_number(number):
        raise ValueError(f"{_quoted(value)} is not a percent; write one such as 2% or 0.5%")
    if number == text:
        raise ValueError(f"{text} has no percent sign; write {text}%")
    exact = Decimal(number) * 100
    if exact < 0 or exact > 10_000:
        raise ValueError(f"{text} is outside 0% to 100%")
    if exact != exact.to_integral_value():
        raise ValueError(f"{text} has more than 2 decimals; the smallest step is 0.01%")
    return int(exact)


def percent(share_bp: int) -> str:
    """Return basis points as people read them: `50%`, `0.5%`, `0.05%`."""
    whole, rest = divmod(share_bp, 100)
    return f"{whole}%" if not rest else f"{whole}.{rest:02d}".rstrip("0") + "%"


def size(count_bytes: int) -> str:
    """Return a number of bytes in the largest unit of 1,024 that divides it: `8MiB`, `1500B`."""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count_bytes and count_bytes % factor == 0:
            return f"{count_bytes // factor}{unit}"
    return f"{count_bytes}B"


def duration(duration_s: float) -> str:
    """Return seconds in the largest unit that gives a whole number: `10m`, `90s`, `1500ms`."""
    if not duration_s:
        return "0s"
    exact = Decimal(str(duration_s))
    for unit in ("d", "h", "m", "s", "ms", "us"):
        count = exact / _SECONDS[unit]
        if count == count.to_integral_value():
            return f"{int(count)}{unit}"
    return f"{duration_s:g}s"


def _text(value: Any) -> str:
    """Return a scalar as it was written; a bool, list or mapping is nobody's unit."""
    if isinstance(value, str):
        text = value.strip()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        text = str(value)
    else:
        raise ValueError(f"{_quoted(value)} is not a number with a unit")  # noqa: TRY004 - pydantic reports ValueError
    if len(text) > _LONGEST:
        raise ValueError(f"{_quoted(text)} is too long for a number with a unit")
    return text


def _is_zero(value: Any) -> bool:
    """Tell whether the value is a bare 0, the one number that needs no unit."""
    return not isinstance(value, bool) and (value == 0 or value == "0")


def _is_number(text: str) -> bool:
    try:
        return Decimal(text).is_finite()
    except InvalidOperation:
        return False


def _quoted(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
