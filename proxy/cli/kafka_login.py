"""How commands that read a topic show Kafka who they are: by a config's `record.kafka`, and by `-X`.

Decides whose settings count. A config that is named is the operator's word; the one in this folder
counts only for its own brokers, because nobody else's may be told its password.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from proxy.analysis.sources import KAFKA_SCHEME
from proxy.analysis.topic import Topic, parse_topic
from proxy.cli.instance import CONFIG_NAMES
from proxy.config.load import load_config
from proxy.config.resolved import Kafka
from proxy.errors import ConfigError, SourceError

KafkaOptions = Annotated[
    list[str] | None,
    typer.Option(
        "--kafka-option",
        "-X",
        help="A setting of the Kafka client, over those of the config's record.kafka.options, such "
        "as security.protocol=SASL_SSL; may be given several times.",
        metavar="NAME=VALUE",
    ),
]
LoginConfig = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="Its record.kafka.options are the Kafka client's; by default those of the config in "
        "this folder, if the topic is on its brokers.",
        metavar="CONFIG",
    ),
]


class Login(NamedTuple):
    """What the operator says of it: the config of `--config`, and the settings of `-X`."""

    config: Path | None = None
    given: Sequence[str] | None = None

    def options_for(self, source: str) -> dict[str, str]:
        """Return the Kafka client's settings for what is read; none for what is no topic.

        Raises:
            ConfigError: the config given is broken.
            SourceError: a setting is not NAME=VALUE, or the topic makes no sense.
        """
        if not source.startswith(KAFKA_SCHEME):
            return {}
        if self.config is not None:
            kafka = load_config(self.config).record.kafka
        else:
            kafka = _of_this_folder(parse_topic(source))
        chosen = dict(map(_option, self.given or ()))
        return ({} if kafka is None else dict(kafka.options)) | chosen


def _of_this_folder(topic: Topic) -> Kafka | None:
    """Return what the config in this folder says of the brokers that have a topic."""
    for path in map(Path, CONFIG_NAMES):
        try:
            kafka = load_config(path).record.kafka if path.is_file() else None
        except ConfigError:
            continue  # edited just now; without its login the answer says what is missing
        if kafka is not None and {*kafka.bootstrap_servers} & {*topic.bootstrap_servers}:
            return kafka
    return None


def _option(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        # Not repeated: it may be a password.
        raise SourceError("-X: write NAME=VALUE, such as security.protocol=SASL_SSL")
    return name.strip(), value
