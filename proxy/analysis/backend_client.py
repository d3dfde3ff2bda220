"""An HTTP client that reaches one endpoint of a backend as the data plane does."""

from __future__ import annotations

import ssl

import httpx

from proxy.config.resolved import Backend, Endpoint
from proxy.config.tls_files import client_context


def client(backend: Backend, endpoint: Endpoint, *, connections: int = 100) -> httpx.AsyncClient:
    """Return a client for one endpoint, with the deadlines of its backend.

    Raises:
        TlsFileError: the files of its TLS settings cannot be used.
    """
    verify: ssl.SSLContext | bool = client_context(backend.tls) if endpoint.is_tls else False
    limits = httpx.Limits(
        max_connections=connections,
        max_keepalive_connections=connections,
        keepalive_expiry=backend.keepalive_s,
    )
    return httpx.AsyncClient(
        base_url="http://localhost" if endpoint.socket_path else str(endpoint),
        transport=httpx.AsyncHTTPTransport(
            verify=verify, uds=endpoint.socket_path or None, limits=limits
        ),
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(backend.timeout_s, connect=backend.connect_timeout_s),
    )


def extensions(backend: Backend) -> dict[str, str]:
    """Return what a request must say so that TLS asks for the configured name."""
    return {"sni_hostname": backend.tls.server_name} if backend.tls.server_name else {}
