"""Which Kafka a command means: that of the config it is given, or of the one in this folder."""

from __future__ import annotations

from pathlib import Path

from proxy.config.load import load_config
from proxy.config.resolved import Kafka
from proxy.errors import UnderstudyError
from proxy.state.instance_config import CONFIG_NAMES


def config_path(given: Path | None) -> Path:
    """Return the config file to read.

    Raises:
        UnderstudyError: none was given, and none is in the current folder.
    """
    if given is not None:
        return given
    for name in CONFIG_NAMES:
        if Path(name).is_file():
            return Path(name)
    raise UnderstudyError(f"no config in this folder ({', '.join(CONFIG_NAMES)}); name one")


def kafka_of(given: Path | None) -> Kafka:
    """Return the Kafka that pairs are shipped to.

    Raises:
        ConfigError: the config is broken.
        UnderstudyError: there is no config, or it ships nothing to Kafka.
    """
    path = config_path(given)
    kafka = load_config(path).record.kafka
    if kafka is None:
        raise UnderstudyError(
            f"{path} has no record.kafka: pairs stay in the local log, and no topic is needed"
        )
    return kafka
