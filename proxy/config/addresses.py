"""Addresses as operators write them: `http://host:port` of an endpoint, `host:port` to listen on.

It decides about form and range only; nothing is looked up or opened.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

from proxy.config.resolved import Address

#: Hosts that mean every interface.
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_LATER = ("https", "unix", "grpc", "h2c")


def endpoint(value: Any) -> Address:
    """Return the address of an endpoint such as `http://10.0.0.7:8000` or `http://[::1]:8000`.

    Raises:
        ValueError: it is no such URL; says what to write.
    """
    if isinstance(value, Address):
        return value
    text = value if isinstance(value, str) else ""
    scheme, has_scheme, rest = text.partition("://")
    # Never repeat a URL that holds a password.
    if "@" in rest:
        raise ValueError("an endpoint must not hold a user or password; send them as headers")
    scheme = scheme.lower() if has_scheme else text.partition(":")[0].lower()
    if scheme in _LATER and (has_scheme or scheme == "unix"):
        raise ValueError(f"{text!r}: {scheme} is not supported yet; write http://host:port")
    if not has_scheme or scheme != "http":
        raise ValueError(f"{value!r} is not an endpoint; write http://host:port")
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as exc:
        raise ValueError(f"{text!r} has a wrong host or port; write http://host:port") from exc
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(
            f"{text!r} must end after the port; paths are forwarded as the client sent them"
        )
    if not _is_host(host):
        raise ValueError(f"{text!r} has no usable host name; write http://host:port")
    if port is None:
        raise ValueError(f"{text!r} has no port; write http://{host}:80 if you mean port 80")
    if port == 0:
        raise ValueError(f"{text!r}: port 0 cannot be connected to; use 1 to 65535")
    return Address(host, port)


def listener(value: Any) -> Address:
    """Return the address to listen on, such as `127.0.0.1:8080` or `[::1]:8080`.

    Raises:
        ValueError: it is no such address; says what to write.
    """
    if isinstance(value, Address):
        return value
    text = value if isinstance(value, str) else ""
    if "://" in text:
        raise ValueError(f"{text!r} must be host:port without {text.partition('://')[0]}://")
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit():
        raise ValueError(f"{value!r} is not host:port; write one such as 127.0.0.1:8080")
    if not host:
        raise ValueError(
            f"{text!r} has no host; write 127.0.0.1{text} for this machine only, or "
            f"{WILDCARDS[0]}{text} for every interface"
        )
    if len(port) > 5 or int(port) > 65535:
        raise ValueError(f"port {port[:9]} is outside 0 to 65535")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if ":" in bare and bare == host:
        raise ValueError(f"{text!r}: write an IPv6 address in brackets, such as [::1]:{port}")
    if not _is_host(bare):
        raise ValueError(f"{host!r} is not a host name or IP address")
    return Address(bare.lower(), int(port))


def network(value: Any) -> str:
    """Return a network such as `10.0.0.0/8`, or one address as the network that holds it alone.

    Raises:
        ValueError: it is neither; says what to write.
    """
    text = value if isinstance(value, str) else ""
    try:
        return str(ipaddress.ip_network(text))
    except ValueError:
        pass
    try:
        whole = ipaddress.ip_network(text, strict=False)
    except ValueError as exc:
        raise ValueError(
            f"{value!r} is not a network; write one such as 10.0.0.0/8 or fd00::/8, or an address"
        ) from exc
    raise ValueError(f"{text!r} has bits beyond its prefix; write {whole} for all of the network")


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def can_reach(target: Address, listening: Address) -> bool:
    """Tell whether connecting to `target` on this machine surely meets `listening`."""
    if target.port != listening.port or not target.port:
        return False
    here = is_loopback(target.host) or target.host in WILDCARDS
    return target.host == listening.host or (
        here and (listening.host in WILDCARDS or is_loopback(listening.host))
    )


def collide(one: Address, other: Address) -> bool:
    """Tell whether two sockets cannot be bound at once."""
    if one.port != other.port or not one.port:
        return False
    return one.host == other.host or one.host in WILDCARDS or other.host in WILDCARDS


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        # An all-numeric name is a mistyped IPv4 address, never a host (RFC 1123 section 2.1).
        is_numeric = bool(re.fullmatch(r"[0-9.]+", host))
        return bool(_HOST.fullmatch(host)) and len(host) <= 253 and not is_numeric
    return True
