"""A certificate authority for tests, and the files that `tls` names."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from proxy.config.resolved import Tls


class Authority:
    """An authority that issues for 127.0.0.1, into `folder`.

    Attributes:
        tls: the files of a listener, as the last `issue` has written them.
        ca_file: what a client trusts, and what `client_ca` may name.
    """

    def __init__(self, folder: Path) -> None:
        self._ca = trustme.CA()
        self.folder = folder
        self.ca_file = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.ca_file))
        self.tls = Tls(str(folder / "tls.crt"), str(folder / "tls.key"), "", "1.2")
        self.issue()

    def issue(self, *, days: float = 90.0) -> None:
        """Write a fresh certificate and its key, replacing what was there; `days` may be past."""
        now = datetime.now(UTC)  # noqa: TID251 - a certificate is about the real one
        ends = now + timedelta(days=days)
        begins = min(now, ends) - timedelta(days=30)
        leaf = self._ca.issue_cert("127.0.0.1", not_before=begins, not_after=ends)
        leaf.private_key_pem.write_to_path(self.tls.key)
        Path(self.tls.certificate).write_bytes(b"".join(b.bytes() for b in leaf.cert_chain_pems))

    def half_issue(self) -> str:
        """Write a fresh certificate and leave the old key, as in mid-renewal; return a line of it."""
        key = Path(self.tls.key)
        old = key.read_text()
        self.issue()
        key.write_text(old)
        return old.splitlines()[2]

    def client(self, *, has_certificate: bool = False) -> ssl.SSLContext:
        """Return the context of a client that trusts this authority, and may have its certificate."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if has_certificate:
            self._ca.issue_cert("client@example.org").configure_cert(context)
        return context

    def server(self, *names: str, wants_client: bool = False) -> ssl.SSLContext:
        """Return the context of a server with these names, which may ask for a client's certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*names).configure_cert(context)
        context.set_alpn_protocols(["http/1.1"])
        if wants_client:
            self._ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client_file(self) -> str:
        """Write a client's certificate and key into one file; return its path."""
        path = str(self.folder / "client.pem")
        leaf = self._ca.issue_cert("understudy@example.org")
        leaf.private_key_and_cert_chain_pem.write_to_path(path)
        return path
