"""Kafka client settings: from the names operators know to those of aiokafka. No I/O but key files.

`record.kafka.options` takes the names of Kafka's own documentation (`security.protocol`) and of
librdkafka where Kafka has none (`ssl.ca.location`), because that is what a platform team hands
out. What we rely on (acks, idempotence, batching) is not an option.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any

from proxy.errors import ConfigError, ConfigFault

#: Option name -> aiokafka's argument and how the text becomes its value.
_PLAIN: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "client.id": ("client_id", str),
    "compression.type": ("compression_type", lambda text: None if text == "none" else text),
    "connections.max.idle.ms": ("connections_max_idle_ms", int),
    "metadata.max.age.ms": ("metadata_max_age_ms", int),
    "request.timeout.ms": ("request_timeout_ms", int),
    "retry.backoff.ms": ("retry_backoff_ms", int),
    "security.protocol": ("security_protocol", str.upper),
    "sasl.mechanism": ("sasl_mechanism", str.upper),
    "sasl.username": ("sasl_plain_username", str),
    "sasl.password": ("sasl_plain_password", str),
}

_TLS = (
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "ssl.key.password",
    "ssl.endpoint.identification.algorithm",
)

#: Every option there is.
NAMES = (*_PLAIN, *_TLS)

_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_CODECS = (None, "gzip", "snappy", "lz4", "zstd")


def client_settings(options: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments of aiokafka's client that `options` ask for.

    Raises:
        ConfigError: an option is unknown, or its value makes no sense; names every one.
    """
    faults = [_fault(name, _unknown(name)) for name in options if name not in NAMES]
    settings: dict[str, Any] = {}
    for name, text in options.items():
        if name in _PLAIN:
            argument, convert = _PLAIN[name]
            try:
                settings[argument] = convert(text)
            except ValueError:
                faults.append(_fault(name, f"{text!r} is not a whole number"))
    faults += _choices(settings)
    if faults:
        raise ConfigError(faults)
    if settings.get("security_protocol", "").endswith("SSL"):
        settings["ssl_context"] = _tls_context(options)
    return settings


def _choices(settings: Mapping[str, Any]) -> list[ConfigFault]:
    return [
        _fault(name, f"{settings[argument]!r} is not one of {', '.join(map(str, allowed))}")
        for name, argument, allowed in (
            ("security.protocol", "security_protocol", _PROTOCOLS),
            ("sasl.mechanism", "sasl_mechanism", _MECHANISMS),
            ("compression.type", "compression_type", _CODECS),
        )
        if argument in settings and settings[argument] not in allowed
    ]


def _tls_context(options: Mapping[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.get("ssl.ca.location"))
        if "ssl.certificate.location" in options:
            context.load_cert_chain(
                options["ssl.certificate.location"],
                options.get("ssl.key.location"),
                options.get("ssl.key.password"),
            )
    except OSError as exc:
        raise ConfigError([_fault("ssl", f"cannot load the certificates: {exc}")]) from exc
    # Kafka's own way to say it: an empty algorithm (or librdkafka's `none`) checks no host name.
    if options.get("ssl.endpoint.identification.algorithm") in ("", "none"):
        context.check_hostname = False
    return context


def _unknown(name: str) -> str:
    return f"unknown option {name!r}; there are: {', '.join(NAMES)}"


def _fault(name: str, message: str) -> ConfigFault:
    return ConfigFault("", 0, f"record.kafka.options.{name}", message)
