"""Which other protocol a request and its answer agree on (RFC 9110 section 7.8). Pure."""

from __future__ import annotations

from collections.abc import Set as AbstractSet


def _names(field: bytes) -> list[bytes]:
    return [name.strip(b" \t") for name in field.split(b",")]


def chosen_upgrade(asked: bytes, allowed: AbstractSet[bytes]) -> bytes:
    """Return of the protocols that a request asks for those that are allowed, as one field value.

    Args:
        asked: the value of its Upgrade field.
        allowed: protocol names in lower case.
    """
    return b", ".join(name for name in _names(asked) if name.lower() in allowed)


def is_chosen(granted: bytes, asked: bytes) -> bool:
    """Tell whether a 101 grants only what was asked for; it must grant something."""
    wanted = _names(asked.lower())
    return bool(granted) and all(name in wanted for name in _names(granted.lower()))


def upgrade_lines(upgrade: bytes) -> bytes:
    """Return the two lines that ask for, or grant, another protocol."""
    return b"connection: Upgrade\r\nupgrade: %b\r\n" % upgrade
