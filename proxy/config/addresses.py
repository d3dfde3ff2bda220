"""Addresses as operators write them: `http://host:port` of an endpoint, `host:port` to listen on.

It decides about form and range only; nothing is looked up or opened.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import urlsplit

from proxy.config.resolved import Address, Endpoint

#: Hosts that mean every interface.
WILDCARDS = ("0.0.0.0", "::")  # noqa: S104 - compared with, not bound to

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_FORMS = "http://host:port, https://host:port or unix:/path/to/socket"
#: A Unix socket's path is at most 107 bytes long (sun_path in unix(7)); macOS takes 103.
_MAX_SOCKET_PATH_BYTES = 103


def endpoint(value: Any) -> Endpoint:
    """Return an endpoint such as `http://10.0.0.7:8000`, `https://[::1]:8443` or `unix:/run/m.sock`.

    Raises:
        ValueError: it is no such URL; says what to write.
    """
    if isinstance(value, Endpoint):
        return value
    text = value if isinstance(value, str) else ""
    if text.startswith("unix:"):
        return _unix_socket(text)
    scheme, has_scheme, rest = text.partition("://")
    scheme = scheme.lower()
    # Never repeat a URL that holds a password.
    if "@" in rest:
        raise ValueError("an endpoint must not hold a user or password; send them as headers")
    if scheme in ("grpc", "h2c") and has_scheme:
        raise ValueError(f"{text!r}: {scheme} is not supported; write {_FORMS}")
    if not has_scheme or scheme not in ("http", "https"):
        raise ValueError(f"{value!r} is not an endpoint; write {_FORMS}")
    host, port = _host_and_port(text, scheme)
    return Endpoint(host, port, is_tls=scheme == "https")


def _host_and_port(text: str, scheme: str) -> tuple[str, int]:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError as exc:
        raise ValueError(f"{text!r} has a wrong host or port; write {scheme}://host:port") from exc
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError(
            f"{text!r} must end after the port; paths are forwarded as the client sent them"
        )
    if not _is_host(host):
        raise ValueError(f"{text!r} has no usable host name; write {scheme}://host:port")
    if port is None:
        usual = 443 if scheme == "https" else 80
        raise ValueError(
            f"{text!r} has no port; write {scheme}://{host}:{usual} if you mean port {usual}"
        )
    if port == 0:
        raise ValueError(f"{text!r}: port 0 cannot be connected to; use 1 to 65535")
    return host, port


def _unix_socket(text: str) -> Endpoint:
    path = text.removeprefix("unix:")
    if path.startswith("//"):  # the form of a URL, with an empty authority
        path = path.removeprefix("//")
    if not path.startswith("/") or not path.isprintable():
        raise ValueError(
            f"{text!r} is not a socket; write unix:/path/to/socket, whole from the root"
        )
    if len(path.encode()) > _MAX_SOCKET_PATH_BYTES:
        raise ValueError(
            f"{text[:40]!r}…: a socket's path has {_MAX_SOCKET_PATH_BYTES} bytes at most"
        )
    return Endpoint("", 0, socket_path=path)


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


def can_reach(target: Endpoint, listening: Address) -> bool:
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
