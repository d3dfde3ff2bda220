"""Kafka settings are taken by the names that operators know, and refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.errors import ConfigError
from proxy.kafka.options import client_settings


def test_names_of_kafka_become_the_clients() -> None:
    """Text becomes the type the client wants."""
    options = {
        "security.protocol": "sasl_plaintext",
        "sasl.mechanism": "scram-sha-512",
        "sasl.username": "alice",
        "sasl.password": "secret",
        "request.timeout.ms": "5000",
        "compression.type": "none",
    }
    assert client_settings(options) == {
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "alice",
        "sasl_plain_password": "secret",
        "request_timeout_ms": 5000,
        "compression_type": None,
    }


def test_tls_makes_a_context_that_checks_the_host() -> None:
    """Unless the operator says otherwise in Kafka's own words."""
    checked = client_settings({"security.protocol": "SSL"})["ssl_context"]
    assert checked.check_hostname
    lax = client_settings(
        {"security.protocol": "SSL", "ssl.endpoint.identification.algorithm": "none"}
    )["ssl_context"]
    assert not lax.check_hostname


def test_all_faults_are_told_at_once() -> None:
    """Each with its key; a password is never repeated."""
    with pytest.raises(ConfigError) as caught:
        client_settings(
            {
                "acks": "0",
                "request.timeout.ms": "soon",
                "security.protocol": "TLS",
                "sasl.password": "secret",
            }
        )
    keys = [fault.key.removeprefix("record.kafka.options.") for fault in caught.value.faults]
    assert keys == ["acks", "request.timeout.ms", "security.protocol"]
    assert "secret" not in str(caught.value)


def test_a_missing_certificate_is_the_operators_error(tmp_path: Path) -> None:
    """It is found before anything connects."""
    with pytest.raises(ConfigError, match="cannot load the certificates"):
        client_settings(
            {"security.protocol": "SSL", "ssl.ca.location": str(tmp_path / "missing.pem")}
        )
