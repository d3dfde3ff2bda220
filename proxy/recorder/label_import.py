"""Labels straight to a Kafka topic, for a command that ends: acknowledged, or given up in time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from proxy.config.resolved import Kafka
from proxy.errors import AdminError
from proxy.pairs.label import Label
from proxy.recorder.kafka import KafkaSink, Stream
from proxy.recorder.kafka_messages import label_headers

#: How long one batch may take, a client that must be built anew included.
PATIENCE_S = 30.0


class LabelTopic:
    """A topic that labels are written to, as a recorder writes them.

    Args:
        kafka: brokers and options; the prefix is not used.
        topic: its whole name.

    Raises:
        ConfigError: an option makes no sense.
    """

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self._sink = KafkaSink(kafka, stream=Stream("", label_headers, topic))

    async def write(self, labels: Sequence[Label], patience_s: float = PATIENCE_S) -> None:
        """Return when all are acknowledged.

        Raises:
            AdminError: they are not, for a reason that lasts.
        """
        try:
            async with asyncio.timeout(patience_s):
                delivery = await self._sink.write(labels)
        except TimeoutError as exc:
            status = self._sink.status
            raise AdminError(
                f"{self._sink.name} does not take the labels: {status.state}: {status.message}"
            ) from exc
        if delivery.dropped:
            raise AdminError(f"{self._sink.name} refused labels: {dict(delivery.dropped)}")

    async def close(self) -> None:
        """Let the client go."""
        await self._sink.close()
