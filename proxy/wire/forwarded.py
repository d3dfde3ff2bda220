"""Who the client is, where a proxy that the operator trusts stands before us. Pure.

Such a proxy says it in `X-Forwarded-For` or `Forwarded` (RFC 7239). Each hop adds to the right end,
so only the right end can be believed: the client is the right-most address that is no trusted
proxy's; what stands left of it may be the client's own invention, and is passed on but not used.
Malformed text ends the list, from the right. Two lists that name different clients mean that one of
them is not kept by the proxy in front, and so neither is believed.

From everybody else these fields are dropped (`proxy.wire.request_head`). Only connections of trusted
peers come here, so that others pay nothing: 8 us per request with one `X-Forwarded-For`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from proxy.wire.fields import TOKEN, is_host
from proxy.wire.upstream_head import peer_lines

Address = IPv4Address | IPv6Address

#: Hops that are read and passed on, from the right; longer chains are loops or inventions.
MAX_HOPS: Final = 32

#: All that a trusted peer may say; the rest of the head has been checked by then. Names with an
#: underscore are not among them: they are the tricks of others.
_LINES: Final = re.compile(
    rb"\r\n(forwarded|x-real-ip|x-forwarded-[0-9a-z.!#$%&'*+^`|~-]++):([^\r]*+)", re.IGNORECASE
)
_READ_HERE: Final = frozenset({b"forwarded", b"x-forwarded-for", b"x-forwarded-proto"})
#: An address, perhaps with a port: some load balancers add it, and RFC 7239 section 6 allows it.
_NODE: Final = re.compile(
    rb"\[([0-9A-Fa-f:.]++)\](?::[0-9]{1,5})?|([0-9.]++)(?::[0-9]{1,5})?|([0-9A-Fa-f:.]++)"
)
#: A pair of an element (RFC 7239 section 4) and what ends it; elements may be empty (RFC 9110 5.6.1).
_PAIR: Final = re.compile(
    rb"[ \t]*+(?:(%b)=(%b|\"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*+\"))?[ \t]*+([;,]|\Z)"
    % (TOKEN, TOKEN)
)
_QUOTED_PAIR: Final = re.compile(rb"\\(.)")
_SCHEMES: Final = frozenset({b"http", b"https"})

#: The parameters of one hop, by lower-case name, values unquoted.
Element = dict[bytes, bytes]


class TrustedProxies:
    """The networks whose word is taken."""

    def __init__(self, networks: Sequence[str]) -> None:
        found = [ip_network(network) for network in networks]
        self._v4 = [network for network in found if isinstance(network, IPv4Network)]
        self._v6 = [network for network in found if isinstance(network, IPv6Network)]

    def covers(self, address: Address) -> bool:
        """Tell whether the address is a trusted proxy's."""
        if isinstance(address, IPv4Address):
            return any(address in network for network in self._v4)
        return any(address in network for network in self._v6)

    def peer(self, host: bytes, scheme: bytes, pseudonym: bytes) -> TrustedPeer | None:
        """Return what reads the fields of a peer's requests, or None where it is not trusted."""
        address = read_address(host) if self._v4 or self._v6 else None
        if address is None or not self.covers(address):
            return None
        return TrustedPeer(self, host, scheme, pseudonym)


class TrustedPeer:
    """A proxy in front of us, and what its requests say of their clients.

    Attributes:
        host: its own address.
    """

    def __init__(
        self, trusted: TrustedProxies, host: bytes, scheme: bytes, pseudonym: bytes
    ) -> None:
        self._trusted = trusted
        self.host = host
        self._scheme = scheme
        self._pseudonym = pseudonym

    def read(self, block: bytes) -> tuple[bytes, bytes]:
        """Return (the client's address, the lines about it that go upstream).

        Args:
            block: a head that was accepted, without the empty line that ends it.
        """
        said: dict[bytes, bytes] = {}
        others: list[bytes] = []
        for name, text in _LINES.findall(block):
            key, value = name.lower(), text.strip(b" \t")
            if key in _READ_HERE:
                said[key] = b"%b, %b" % (said[key], value) if key in said else value
            elif key != b"x-forwarded-host" or is_host(value):
                others.append(b"%b: %b\r\n" % (key, value))
        chain = read_chain(said.get(b"x-forwarded-for", b""))
        elements = read_elements(said.get(b"forwarded", b""))
        hops = _hops_of(elements)
        client = self._client(chain or hops)
        if chain and hops and self._client(hops) != client:
            chain, hops, elements, client = [], [], [], self.host
        scheme = self._scheme_of(said.get(b"x-forwarded-proto", b""), elements, client)
        path = b", ".join([*map(_text, chain or hops), self.host])
        lines = [peer_lines(self._pseudonym, path, scheme), *others]
        if hops:
            own = {b"for": _node(self.host), b"proto": self._scheme}
            lines.append(b"forwarded: %b\r\n" % b", ".join(map(_element, [*elements, own])))
        return client, b"".join(lines)

    def _client(self, hops: list[Address]) -> bytes:
        """Return the right-most address that is not trusted; where all are, the left-most."""
        if not hops:
            return self.host
        covers = self._trusted.covers
        return _text(next((hop for hop in reversed(hops) if not covers(hop)), hops[0]))

    def _scheme_of(self, said: bytes, elements: list[Element], client: bytes) -> bytes:
        """Return the scheme that the client used; ours where nothing usable is said."""
        scheme = said.lower()
        if scheme in _SCHEMES:
            return scheme
        for element in elements:
            address = read_address(element.get(b"for", b""))
            scheme = element.get(b"proto", b"").lower()
            if address is not None and _text(address) == client and scheme in _SCHEMES:
                return scheme
        return self._scheme


def read_address(node: bytes) -> Address | None:
    """Return the address of `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1` or `[2001:db8::1]:80`.

    An IPv4 address that IPv6 carries (`::ffff:192.0.2.1`) is the IPv4 address.
    """
    found = _NODE.fullmatch(node)
    if found is None:
        return None
    try:
        address = ip_address((found[1] or found[2] or found[3]).decode())
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        return address.ipv4_mapped or address
    return None if found[1] else address


def read_chain(value: bytes) -> list[Address]:
    """Return the addresses at the right end of an X-Forwarded-For, left to right."""
    hops: list[Address] = []
    for node in reversed(value.rsplit(b",", MAX_HOPS)[-MAX_HOPS:]):
        address = read_address(node.strip(b" \t"))
        if address is None:
            break
        hops.append(address)
    hops.reverse()
    return hops


def read_elements(value: bytes) -> list[Element]:
    """Return the right end of a Forwarded, left to right; nothing where any of it is malformed.

    Elements before one without a usable address are left out: nobody vouches for them.
    """
    elements: list[Element] = []
    element: Element = {}
    at = 0
    while at < len(value):
        found = _PAIR.match(value, at)
        if found is None:
            return []
        at = found.end()
        name, text = found[1], found[2]
        if name is not None:
            if name.lower() in element:  # RFC 7239 section 4: once per element
                return []
            element[name.lower()] = _unquoted(text)
        if element and found[3] != b";":
            elements.append(element)
            element = {}
    if element:
        elements.append(element)
    usable: list[Element] = []
    for element in reversed(elements[-MAX_HOPS:]):
        if read_address(element.get(b"for", b"")) is None:
            break
        usable.append(element)
    usable.reverse()
    return usable


def _hops_of(elements: list[Element]) -> list[Address]:
    found = [read_address(element[b"for"]) for element in elements]
    return [address for address in found if address is not None]


def _text(address: Address) -> bytes:
    return str(address).encode()


def _node(host: bytes) -> bytes:
    """Return an address as RFC 7239 section 6 writes it."""
    return b"[%b]" % host if b":" in host else host


def _unquoted(text: bytes) -> bytes:
    return _QUOTED_PAIR.sub(rb"\1", text[1:-1]) if text.startswith(b'"') else text


def _element(pairs: Element) -> bytes:
    return b";".join(b"%b=%b" % (name, _quoted(value)) for name, value in pairs.items())


def _quoted(value: bytes) -> bytes:
    if _TOKEN_ONLY.fullmatch(value):
        return value
    return b'"%b"' % value.replace(b"\\", b"\\\\").replace(b'"', b'\\"')


_TOKEN_ONLY: Final = re.compile(TOKEN)
