"""What of a Kafka topic is read: its name, the span of it, and the parts that processes read apart.

Pure; the reading itself is `proxy.analysis.kafka_source`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from proxy.errors import SourceError

DEFAULT_PORT: Final = 9092
#: Records of a part: some seconds of work. Each part costs a connection, and what a broker has sent
#: beyond its end.
PART_RECORDS: Final = 200_000

#: Where a partition's reading starts and ends, by the partition's number.
Ranges = Mapping[int, tuple[int, int]]
#: Client settings as Kafka's documentation names them, such as `security.protocol`.
ClientOptions = Mapping[str, str]
NO_OPTIONS: Final[ClientOptions] = {}


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic, the brokers to ask for it as `HOST:PORT`, and how to show them who one is."""

    bootstrap_servers: tuple[str, ...]
    name: str
    options: ClientOptions = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return f"kafka://{','.join(self.bootstrap_servers)}/{self.name}"


def parse_topic(name: str, options: ClientOptions = NO_OPTIONS) -> Topic:
    """Return the topic that `kafka://HOST[:PORT][,HOST[:PORT]...]/TOPIC` means.

    Raises:
        SourceError: a part is missing or is no port.
    """
    servers, _, topic = name.removeprefix("kafka://").partition("/")
    if not topic or "/" in topic or not all(servers.split(",")):
        raise SourceError(f"{name}: write kafka://HOST:PORT/TOPIC")
    brokers = tuple(_with_port(server, name) for server in servers.split(","))
    return Topic(brokers, topic, options)


def _with_port(server: str, name: str) -> str:
    host, colon, port = server.rpartition(":")
    if not colon or server.endswith("]"):
        return f"{server}:{DEFAULT_PORT}"
    if not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise SourceError(f"{name}: {server!r} is not HOST:PORT")
    return server


@dataclass(frozen=True, slots=True)
class Span:
    """Which part of a topic is read; all that is there by default.

    Attributes:
        since_ms: start each partition at the first record that was stamped at or after it.
        until_ms: end each partition at the first record stamped a day or more after it (see
            `kafka_source.LATE_MS`).
        last: start each partition so many records before its end.
        after: start partitions, by number, at these offsets.
        is_endless: go on with what comes, until the reader stops.
        ranges: read these partitions alone, from one offset up to another; the rest says nothing.
    """

    since_ms: int | None = None
    until_ms: int | None = None
    last: int | None = None
    after: Mapping[int, int] | None = None
    is_endless: bool = False
    ranges: Ranges | None = None

    @property
    def is_whole(self) -> bool:
        """Whether nothing that the topic holds is left out."""
        bounds = self.since_ms, self.until_ms, self.last, self.after, self.ranges
        return all(bound is None for bound in bounds)


#: All that a topic holds.
WHOLE: Final = Span()


@dataclass(frozen=True, slots=True)
class TopicPart:
    """Something of a topic to read on its own."""

    topic: Topic
    ranges: Ranges


def topic_parts(topic: Topic, ranges: Ranges, groups: int) -> Iterator[TopicPart]:
    """Yield parts that hold together what `ranges` do, about in the order of time.

    Partitions go to `groups`, so that each has about as many records as another; all of a group is
    cut into as many slices as keep a part small, and the first slices of all groups come first.
    """
    grouped = _grouped(ranges, groups)
    most = max((_records(group) for group in grouped), default=0)
    slices = max(1, -(-most // PART_RECORDS))
    for number in range(slices):
        for group in grouped:
            part = {
                partition: _slice(start, stop, number, slices)
                for partition, (start, stop) in group.items()
            }
            if _records(part):
                yield TopicPart(topic, part)


def _grouped(ranges: Ranges, groups: int) -> list[dict[int, tuple[int, int]]]:
    """Return the partitions in groups, the longest first to the group that is the shortest."""
    found: list[dict[int, tuple[int, int]]] = [{} for _ in range(groups)]
    longest = sorted(ranges.items(), key=lambda item: (item[1][0] - item[1][1], item[0]))
    for partition, bounds in longest:
        min(found, key=_records)[partition] = bounds
    return [group for group in found if group]


def _records(ranges: Ranges) -> int:
    return sum(stop - start for start, stop in ranges.values())


def _slice(start: int, stop: int, number: int, slices: int) -> tuple[int, int]:
    size = stop - start
    return start + size * number // slices, start + size * (number + 1) // slices
