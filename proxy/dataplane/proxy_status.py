"""What went wrong with a backend, in the words of `Proxy-Status` (RFC 9209 section 2.3)."""

from __future__ import annotations

import errno
import socket
from enum import StrEnum


class Fault(StrEnum):
    """An error type of RFC 9209, by the section that defines it."""

    DNS_ERROR = "dns_error"  # 2.3.2
    UNROUTABLE = "destination_ip_unroutable"  # 2.3.6
    REFUSED = "connection_refused"  # 2.3.7
    TERMINATED = "connection_terminated"  # 2.3.8
    CONNECT_TIMEOUT = "connection_timeout"  # 2.3.9
    READ_TIMEOUT = "connection_read_timeout"  # 2.3.10
    WRITE_TIMEOUT = "connection_write_timeout"  # 2.3.11
    LIMIT_REACHED = "connection_limit_reached"  # 2.3.12
    REQUEST_ERROR = "http_request_error"  # 2.3.16
    INCOMPLETE = "http_response_incomplete"  # 2.3.18
    HEAD_SIZE = "http_response_header_section_size"  # 2.3.19
    BODY_SIZE = "http_response_body_size"  # 2.3.21
    CODING = "http_response_transfer_coding"  # 2.3.24
    RESPONSE_TIMEOUT = "http_response_timeout"  # 2.3.26
    PROTOCOL_ERROR = "http_protocol_error"  # 2.3.28


_UNROUTABLE = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL})


def connect_fault(error: OSError) -> Fault:
    """Return why no connection could be opened."""
    if isinstance(error, socket.gaierror):
        return Fault.DNS_ERROR
    return Fault.UNROUTABLE if error.errno in _UNROUTABLE else Fault.REFUSED


def status_line(fault: Fault, received: int | None = None) -> bytes:
    """Return the header line; `received` is the status that the backend's own answer had."""
    line = b"proxy-status: understudy; error=%b" % fault.encode()
    if received is not None:
        line += b"; received-status=%d" % received
    return line + b"\r\n"
