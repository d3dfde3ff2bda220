"""The files that TLS settings name: whether they can be read, fit together, and still hold.

`understudy check` and `serve` look at them before a socket opens; a worker makes its context of them
and looks again when they are renewed. No message repeats anything out of a key.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from proxy.config.resolved import Backend, Config, Tls, UpstreamTls
from proxy.errors import UnderstudyError

#: A warning this long before the certificate ends; ACME clients renew 30 days before.
SOON_S = 14 * 86_400.0
#: Inode, size and time of the last change (ns) of a file; zeros where there is none.
FileStamp = tuple[int, int, int]
_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
#: A handshake in memory takes three turns.
_MAX_TURNS = 10


class TlsFileError(UnderstudyError):
    """A file of a `tls` setting cannot be used.

    Attributes:
        key: the config key, such as `certificate`.
    """

    def __init__(self, key: str, message: str) -> None:
        self.key = key
        super().__init__(message)


def server_context(tls: Tls) -> ssl.SSLContext:
    """Return the context of the listener: HTTP/1.1 only, and client certificates where asked for.

    Raises:
        TlsFileError: a file cannot be read or used; says which.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.min_version]
    context.options |= ssl.OP_NO_RENEGOTIATION  # a client could ask for one after the other
    context.set_alpn_protocols(["http/1.1"])
    load_chain(context, tls)
    if tls.client_ca:
        context.verify_mode = ssl.CERT_REQUIRED
        _load_authorities(context, "client_ca", tls.client_ca)
    return context


def client_context(tls: UpstreamTls) -> ssl.SSLContext:
    """Return the context of a backend's connections: verified unless told otherwise, HTTP/1.1 only.

    Raises:
        TlsFileError: a file cannot be read or used; says which.
    """
    if tls.ca:  # in place of the system's authorities
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _load_authorities(context, "ca", tls.ca)
    else:
        context = ssl.create_default_context()
    if tls.certificate:
        load_chain(context, tls)
    context.set_alpn_protocols(["http/1.1"])
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def load_chain(context: ssl.SSLContext, tls: Tls | UpstreamTls) -> None:
    """Load certificate, chain and key; new handshakes use them.

    Raises:
        TlsFileError: they cannot be used; the context may be left without a key.
    """
    _must_be_readable("certificate", tls.certificate)
    if tls.key:
        _must_be_readable("key", tls.key)
    try:
        context.load_cert_chain(tls.certificate, tls.key or None, password=_refuse_password)
    except ssl.SSLError as exc:
        # OpenSSL does not say which of the two it means.
        _load_authorities(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "certificate", tls.certificate)
        raise TlsFileError("key", _key_trouble(tls, exc)) from None


def file_stamps(config: Config) -> dict[str, FileStamp]:
    """Return what tells a renewed file of the backends' TLS settings, by the key that names it."""
    return {
        f"backends.{name}.tls.{key}": stamp
        for name, backend in config.backends.items()
        for key, stamp in upstream_stamps(backend).items()
    }


def upstream_stamps(backend: Backend) -> dict[str, FileStamp]:
    """Return the same of one backend, by the key in its `tls`; nothing where none is spoken."""
    if not any(endpoint.is_tls for endpoint in backend.endpoints):
        return {}
    tls = backend.tls
    files = {"ca": tls.ca, "certificate": tls.certificate, "key": tls.key}
    return {key: file_stamp(path) for key, path in files.items() if path}


def file_stamp(path: str) -> FileStamp:
    """Return what changes when a file is written or replaced, be it by a symbolic link."""
    try:
        found = os.stat(path)  # noqa: PTH116 - follows the links that Kubernetes swaps
    except OSError:
        return 0, 0, 0
    return found.st_ino, found.st_size, found.st_mtime_ns


def tls_faults(tls: Tls | UpstreamTls) -> Iterator[tuple[str, str]]:
    """Yield the key and the explanation of what is wrong with the files; at most one."""
    try:
        if isinstance(tls, Tls):
            server_context(tls)
        else:
            client_context(tls)
    except TlsFileError as exc:
        yield exc.key, str(exc)


def tls_advice(tls: Tls | None, now_s: float) -> list[str]:
    """Return a sentence if clients will refuse the certificate, now or soon.

    Args:
        tls: files that `server_context` takes; None: no TLS, no advice.
        now_s: wall clock, seconds since the epoch.
    """
    if tls is None:
        return []
    try:
        found = _as_clients_see_it(tls)
    except ssl.SSLCertVerificationError as exc:
        return [f"tls.certificate: clients will refuse it: {exc.verify_message}"]
    left_s = ssl.cert_time_to_seconds(str(found["notAfter"])) - now_s
    if left_s > SOON_S:
        return []
    return [f"tls.certificate: it ends on {found['notAfter']}, in {left_s / 86_400:.0f} days"]


def _must_be_readable(key: str, path: str) -> None:
    try:
        with Path(path).open("rb"):
            return
    except OSError as exc:
        raise TlsFileError(key, f"{path} cannot be read: {exc.strerror}") from None


def _load_authorities(context: ssl.SSLContext, key: str, path: str) -> None:
    _must_be_readable(key, path)
    try:
        context.load_verify_locations(path)
    except ssl.SSLError:
        raise TlsFileError(key, f"{path} holds no certificate in PEM form") from None


def _refuse_password() -> NoReturn:
    # Without this OpenSSL would ask on the terminal.
    raise TlsFileError(
        "key",
        "the key is protected by a passphrase, and nobody is there to type it; store it plain",
    )


def _key_trouble(tls: Tls | UpstreamTls, exc: ssl.SSLError) -> str:
    if exc.reason == "KEY_VALUES_MISMATCH":
        return (
            f"{tls.key or tls.certificate} is not the key of the certificate in {tls.certificate}"
        )
    if exc.reason and exc.reason.endswith("TOO_SMALL"):
        return f"the key of {tls.certificate} is too short to be safe ({exc.reason})"
    return f"{tls.key or tls.certificate} holds no private key in PEM form"


def _as_clients_see_it(tls: Tls) -> dict[str, Any]:
    """Return the certificate that a client which trusts it gets, by a handshake in memory.

    Raises:
        ssl.SSLCertVerificationError: not even such a client takes it (dates, purpose).
    """
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_chain(server, tls)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(tls.certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    near = client.wrap_bio(to_client, to_server)
    far = server.wrap_bio(to_server, to_client, server_side=True)
    waiting = [near, far]
    for _ in range(_MAX_TURNS):
        waiting = [side for side in (near, far) if not _has_shaken_hands(side)]
        if not waiting:
            break
    return near.getpeercert() or {}


def _has_shaken_hands(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
