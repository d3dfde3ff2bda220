"""`understudy serve` with TLS: users, operators and programs find it under https."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.authority import Authority
from tests.support.counting_backend import CountingBackend
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.instance import running, understudy

#: Whole process trees on a busy machine take their time to start.
pytestmark = pytest.mark.slow


def test_an_instance_serves_https(
    config: dict[str, Any], candidate: CountingBackend, tmp_path: Path
) -> None:
    """Mirrors included; client certificates are required; its addresses say https."""
    authority = Authority(tmp_path)
    paths = {"certificate": authority.tls.certificate, "key": authority.tls.key}
    config["tls"] = {**paths, "client_ca": str(authority.ca_file)}
    config["routes"][0]["candidates"][0]["weight"] = "0%"
    with running(config, tmp_path) as instance:
        assert instance.base_url.startswith("https://127.0.0.1:")
        trusted = authority.client(has_certificate=True)
        with httpx.Client(verify=trusted, trust_env=False, timeout=PATIENCE_S) as client:
            for _ in range(10):
                answer = client.post(f"{instance.base_url}/x", json={"x": 1})
                assert answer.json() == {"from": "primary"}
        wait_for(lambda: candidate.mirrors == 10, "the mirrors")
        with (
            httpx.Client(verify=authority.client(), trust_env=False, timeout=PATIENCE_S) as client,
            pytest.raises(httpx.TransportError),
        ):
            client.post(f"{instance.base_url}/x", json={"x": 1})
        with pytest.raises(httpx.ConnectError):
            httpx.post(f"{instance.base_url}/x", json={}, trust_env=False, timeout=PATIENCE_S)
        with pytest.raises(httpx.TransportError):
            httpx.post(
                instance.base_url.replace("https", "http"),
                json={},
                trust_env=False,
                timeout=PATIENCE_S,
            )
        host, port = instance.runtime["listen"].split(":")
        trusted.set_alpn_protocols(["h2", "http/1.1"])
        with (
            socket.create_connection((host, int(port)), PATIENCE_S) as plain,
            trusted.wrap_socket(plain, server_hostname=host) as wrapped,
        ):
            assert wrapped.selected_alpn_protocol() == "http/1.1"
        shown = instance.cli("status", env={"COLUMNS": "200"})
        assert f"{instance.base_url} " in shown.stdout
        assert instance.status()["scheme"] == "https"
        assert instance.log("listening")[0]["scheme"] == "https"
        assert "Traceback" not in instance.stderr
        assert "Error" not in instance.stderr
    (resolved,) = (tmp_path / "state" / "config").glob("*.json")
    assert "PRIVATE KEY" not in resolved.read_text()


def test_check_and_serve_look_at_the_files(config: dict[str, Any], tmp_path: Path) -> None:
    """A fault by line and key, a certificate that ends as a warning, and what it does in words."""
    authority = Authority(tmp_path)
    config["tls"] = {"certificate": "tls.crt", "key": "tls.key", "min_version": 1.3}
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps({**config, "listen": "127.0.0.1:8443"}, indent=1))
    authority.issue(days=5.5)
    done = understudy("check", "c.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "listens   https://127.0.0.1:8443" in done.stdout
    assert "TLS 1.3 or newer" in done.stdout
    assert "warning: tls.certificate: it ends on" in done.stderr
    summary = json.loads(understudy("check", "--json", "c.yaml", cwd=tmp_path).stdout)
    assert summary["tls"]["min_version"] == "1.3"
    Path(authority.tls.key).unlink()
    for command in ("check", "serve"):
        done = understudy(command, "c.yaml", cwd=tmp_path)
        assert done.returncode == 1
        assert "tls.key: " in done.stderr
        assert "cannot be read" in done.stderr
    assert not (tmp_path / "state").exists()
    assert understudy("explain", "c.yaml", "--path", "/x", cwd=tmp_path).returncode == 0
