"""The files of `tls`: what is wrong with them is said before a socket opens, by line and key."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from proxy.config.load import load_config
from proxy.config.tls_files import tls_advice
from proxy.errors import ConfigError
from tests.support.authority import Authority

CONFIG = """\
listen: 127.0.0.1:8443
tls:
  certificate: {certificate}
  key: {key}
  client_ca: {client_ca}
  min_version: 1.3
backends:
  v1: {{endpoints: [http://127.0.0.1:9001]}}
routes:
  - {{name: all, primary: v1}}
"""


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    """An authority in the current folder."""
    monkeypatch.chdir(tmp_path)
    return Authority(tmp_path)


def _write(certificate: str = "tls.crt", key: str = "tls.key", client_ca: str = "") -> str:
    text = CONFIG.format(certificate=certificate, key=key, client_ca=client_ca)
    Path("c.yaml").write_text(text)
    return "c.yaml"


def _fault(path: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, {}, looks_at_files=True)
    (fault,) = caught.value.faults
    return str(fault)


def test_good_files_are_taken_from_the_current_folder(authority: Authority) -> None:
    """Like `state_dir`; and the version of the config does not depend on where they lie."""
    config = load_config(_write(client_ca="ca.pem"), {}, looks_at_files=True)
    expected = replace(authority.tls, client_ca=str(authority.ca_file), min_version="1.3")
    assert config.tls == expected
    assert config.scheme == "https"
    Path("sub").mkdir()
    Path("tls.key").rename("sub/tls.key")
    moved = load_config(_write(key="sub/tls.key"), {}, looks_at_files=True)
    assert moved.version == config.version


@pytest.mark.usefixtures("authority")
def test_without_being_asked_nobody_looks_at_the_files() -> None:
    """`status` must find its instance where the key cannot be read."""
    assert load_config(_write("gone.crt", "gone.key"), {}).tls is not None


@pytest.mark.usefixtures("authority")
@pytest.mark.parametrize(
    ("files", "where", "telling"),
    [
        ({"certificate": "gone.crt"}, "c.yaml:3: tls.certificate: ", "No such file"),
        ({"key": "gone.key"}, "c.yaml:4: tls.key: ", "gone.key cannot be read: No such file"),
        ({"client_ca": "gone.crt"}, "c.yaml:5: tls.client_ca: ", "No such file"),
        ({"certificate": "tls.key"}, "c.yaml:3: tls.certificate: ", "holds no certificate in PEM"),
        ({"key": "ca.pem"}, "c.yaml:4: tls.key: ", "holds no private key in PEM"),
        ({"client_ca": "tls.key"}, "c.yaml:5: tls.client_ca: ", "holds no certificate in PEM"),
        ({"certificate": "."}, "c.yaml:3: tls.certificate: ", "Is a directory"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(
    files: dict[str, str], where: str, telling: str
) -> None:
    """With file, line and key of the config."""
    found = _fault(_write(**files))
    assert found.startswith(where)
    assert telling in found


def test_a_key_of_another_certificate_is_named(authority: Authority, tmp_path: Path) -> None:
    """Both files are good, only not for each other."""
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other")
    found = _fault(_write(key=other.tls.key))
    assert found.startswith("c.yaml:4: tls.key: ")
    assert f"is not the key of the certificate in {authority.tls.certificate}" in found


def test_a_key_with_a_passphrase_asks_nobody(authority: Authority) -> None:
    """OpenSSL would wait at the terminal."""
    key = serialization.load_pem_private_key(Path(authority.tls.key).read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"geheim")
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    Path("tls.key").write_bytes(key.private_bytes(pem, pkcs8, secret))
    assert "c.yaml:4: tls.key: the key is protected by a passphrase" in _fault(_write())


def test_a_certificate_that_ends_is_no_fault_but_a_warning(authority: Authority) -> None:
    """Soon, or already: whoever starts it is told, and users are served all the same."""
    now_s = time.time_ns() / 1e9
    assert tls_advice(None, now_s) == []
    assert tls_advice(authority.tls, now_s) == []
    authority.issue(days=3.5)
    assert "in 3 days" in tls_advice(authority.tls, now_s)[0]
    authority.issue(days=-1)
    expected = "tls.certificate: clients will refuse it: certificate has expired"
    assert tls_advice(authority.tls, now_s) == [expected]
    assert load_config(_write(), {}, looks_at_files=True).tls is not None


@pytest.mark.parametrize(
    ("settings", "key", "telling"),
    [
        ("{ca: none.pem}", "ca", "cannot be read: No such file"),
        ("{ca: tls.key}", "ca", "holds no certificate in PEM form"),
        ("{certificate: ca.pem}", "certificate", ""),
        ("{certificate: tls.crt, key: ca.pem}", "key", "holds no private key in PEM form"),
    ],
)
def test_files_of_a_backend_are_looked_at_too(
    authority: Authority, settings: str, key: str, telling: str
) -> None:
    """By line and key; a certificate alone must hold its key."""
    del authority
    Path("c.yaml").write_text(
        f"backends:\n  v1:\n    endpoints: [https://127.0.0.1:9001]\n    tls: {settings}\n"
        "routes:\n  - {name: all, primary: v1}\n"
    )
    fault = _fault("c.yaml")
    assert fault.startswith(f"c.yaml:4: backends.v1.tls.{'key' if not telling else key}: ")
    assert telling in fault
    assert load_config("c.yaml", {}).backends["v1"].tls is not None
