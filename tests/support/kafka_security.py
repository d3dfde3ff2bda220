"""A broker that asks who one is: SASL, TLS and access control beside its open listener.

The open listener is the administrator's (everybody on it is a super user); alice may do what she
has been allowed, which is nothing at first.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from confluent_kafka import admin
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from tests.support.authority import Authority
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.kafka import Broker

USER, PASSWORD = "alice", "alice-secret"
#: Names of listeners, and what is spoken there.
LISTENERS = {"SASL": "SASL_PLAINTEXT", "TLS": "SSL", "SASLTLS": "SASL_SSL"}
#: What formats the storage with a user of SCRAM in it.
FORMAT_OPTIONS = tuple(
    f"--add-scram={mechanism}=[name={USER},password={PASSWORD}]"
    for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
)

_PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule"
_SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule"


def security_settings(authority: Authority) -> dict[str, str]:
    """Return the properties of a broker with these listeners and a certificate of `authority`."""
    settings = {
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        # Whoever comes to the open listener; over TLS one is known by the certificate's name.
        "super.users": "User:ANONYMOUS",
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
    }
    for listener in ("sasl", "sasltls"):
        name = f"listener.name.{listener}"
        settings[f"{name}.plain.sasl.jaas.config"] = (
            f'{_PLAIN} required username="{USER}" password="{PASSWORD}" user_{USER}="{PASSWORD}";'
        )
        for number in (256, 512):
            settings[f"{name}.scram-sha-{number}.sasl.jaas.config"] = f"{_SCRAM} required;"
    for listener in ("tls", "sasltls"):
        name = f"listener.name.{listener}"
        settings[f"{name}.ssl.keystore.type"] = "PEM"
        settings[f"{name}.ssl.keystore.location"] = str(_key_store(authority))
    return settings


def sasl(mechanism: str, password: str = PASSWORD) -> dict[str, str]:
    """Return the options of a client that says it is alice, without TLS."""
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": mechanism,
        "sasl.username": USER,
        "sasl.password": password,
    }


def allow(broker: Broker, topic: str, *operations: str) -> None:
    """Let alice do something with a topic, such as READ; return when the broker knows it.

    A controller answers before the broker has heard of the rule (KIP-500).
    """
    kinds: Any = admin  # its stubs do not export all that it has
    rules = [
        kinds.AclBinding(
            kinds.ResourceType.TOPIC, topic, kinds.ResourcePatternType.LITERAL, f"User:{USER}", "*",
            kinds.AclOperation[operation], kinds.AclPermissionType.ALLOW,
        )
        for operation in operations
    ]  # fmt: skip
    client = admin.AdminClient({"bootstrap.servers": broker.bootstrap})
    for future in client.create_acls(rules).values():
        future.result(timeout=PATIENCE_S)
    alice = admin.AdminClient({"bootstrap.servers": broker.addresses["SASL"], **sasl("PLAIN")})
    wait_for(
        lambda: alice.list_topics(topic, timeout=PATIENCE_S).topics[topic].error is None,
        f"the topic {topic} to be seen",
    )


def _key_store(authority: Authority) -> Path:
    """Write key and chain into one file, the key as PKCS 8: Java reads no other."""
    key = load_pem_private_key(Path(authority.tls.key).read_bytes(), password=None)
    path = authority.folder / "broker.pem"
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + Path(authority.tls.certificate).read_bytes()
    )
    return path
