"""The newest pairs, and those that follow: none left out, none twice, from files and topics."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer

from proxy.analysis.export import Format, whole_file, write_pairs as export_pairs
from proxy.analysis.find import find_pairs, time_of
from proxy.analysis.kafka_source import LATE_MS, KafkaSource, Span, Topic
from proxy.analysis.pair_filter import PairFilter
from proxy.analysis.reading import LineReading
from proxy.analysis.tail import FileTail, open_tail
from tests.support.deadline import PATIENCE_S
from tests.support.kafka_topics import create_topic
from tests.support.records import START_MS, frames, pair, write_pairs

EVERYTHING = PairFilter()


def numbers(pairs: Iterable[dict[str, Any]]) -> list[int]:
    """Return the `seq` of each."""
    return [each["seq"] for each in pairs]


def pairs_of(start: int, stop: int) -> list[dict[str, Any]]:
    """Return pairs numbered from `start` to `stop` - 1; each tenth differs, each seventh failed."""
    return [pair(n, 1, 2 if n % 10 == 0 else 1, **_failure(n)) for n in range(start, stop)]


def _failure(n: int) -> dict[str, Any]:
    return {"candidate_status": "timeout"} if n % 7 == 0 else {}


def log(folder: Path, *parts: tuple[int, int]) -> Path:
    """Write files of pairs as the recorder does, last written when their last pair came."""
    for start, stop in parts:
        path = write_pairs(folder / f"{start:06d}.ndjson.zst", pairs_of(start, stop))
        written_s = (START_MS + 1000 * stop) / 1000
        os.utime(path, (written_s, written_s))
    return folder


@pytest.mark.parametrize("count", [0, 1, 30, 150, 1000])
def test_the_newest_are_found_in_however_many_files(tmp_path: Path, count: int) -> None:
    """Oldest first; a file that is older than what was found is not read."""
    log(tmp_path, (1, 101), (101, 201), (201, 301))
    tail = open_tail(str(tmp_path), EVERYTHING)
    assert numbers(tail.last(count)) == [*range(1, 301)][-count or 300 :]
    found = tail.statistics()
    assert found.done == found.total


def test_files_of_two_recorders_overlap_in_time(tmp_path: Path) -> None:
    """The newest pair need not be in the file that comes last by name."""
    log(tmp_path, (1, 51))
    write_pairs(tmp_path / "000000-other.ndjson.zst", pairs_of(51, 101))
    assert numbers(open_tail(str(tmp_path), EVERYTHING).last(60)) == [*range(41, 101)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (PairFilter(is_different=True), [270, 290, 300]),
        (PairFilter(is_failed=True), [280, 287, 294]),
        (PairFilter(route="no"), []),
        (PairFilter(candidate="v2"), [298, 299, 300]),
        (PairFilter(until_ms=START_MS + 50_000), [47, 48, 49]),
        (PairFilter(since_ms=START_MS + 299_000), [299, 300]),
        (PairFilter(since_ms=START_MS + 9_000_000), []),
    ],
)
def test_filters_choose_first_and_then_count(
    tmp_path: Path, wanted: PairFilter, expected: list[int]
) -> None:
    """The last three of those that are asked for, however far back."""
    log(tmp_path, (1, 101), (101, 201), (201, 301))
    assert numbers(open_tail(str(tmp_path), wanted).last(3)) == expected


def test_a_pair_that_was_delivered_twice_is_shown_once(tmp_path: Path) -> None:
    """Within a file and over two."""
    write_pairs(tmp_path / "1.ndjson.zst", [*pairs_of(1, 11), *pairs_of(5, 11)])
    write_pairs(tmp_path / "2.ndjson.zst", pairs_of(8, 13))
    assert numbers(open_tail(str(tmp_path), EVERYTHING).last(100)) == [*range(1, 13)]


def append(path: Path, data: bytes) -> None:
    """Write to the end of a file."""
    with path.open("ab") as file:
        file.write(data)


@pytest.mark.parametrize("kind", ["zst", "plain"])
def test_what_is_appended_and_new_files_follow(tmp_path: Path, kind: str) -> None:
    """Also a frame or line that comes in two pieces, and a file that is there but empty at first."""
    path = tmp_path / "1.ndjson"

    def packed(pairs: list[dict[str, Any]]) -> bytes:
        lines = b"".join(orjson.dumps(each) + b"\n" for each in pairs)
        return frames(pairs) if kind == "zst" else lines

    path.write_bytes(packed(pairs_of(1, 6)))
    (tmp_path / "2.ndjson").touch()
    tail = open_tail(str(tmp_path), EVERYTHING)
    assert numbers(tail.last(2)) == [4, 5]
    following = tail.following()
    pieces = packed(pairs_of(6, 11))
    append(path, pieces[:-20])
    timer = threading.Timer(0.3, append, (path, pieces[-20:]))
    timer.start()
    assert numbers(islice(following, 5)) == [6, 7, 8, 9, 10]
    timer.join()
    append(tmp_path / "2.ndjson", packed(pairs_of(11, 13)))
    assert numbers(islice(following, 2)) == [11, 12]
    (tmp_path / "3.ndjson").write_bytes(packed(pairs_of(13, 15)))
    path.unlink()  # the local log expires its oldest
    assert numbers(islice(following, 2)) == [13, 14]


def test_a_file_that_was_not_read_is_followed_from_its_end(tmp_path: Path) -> None:
    """With -n 0 nothing is read of the past, and nothing of what comes is left out."""
    log(tmp_path, (1, 101))
    tail = open_tail(str(tmp_path), EVERYTHING)
    assert tail.last(0) == []
    append(tmp_path / "000001.ndjson.zst", frames(pairs_of(101, 104)))
    assert numbers(islice(tail.following(), 3)) == [101, 102, 103]


def test_a_reading_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """At every byte: the records are those of the whole file, each once."""
    data = frames(pairs_of(1, 4), per_frame=2)
    path = tmp_path / "a"
    path.touch()
    tail = FileTail(str(path), EVERYTHING)
    reading = LineReading(path, tail._source)
    found: list[int] = []
    for offset in range(len(data)):
        append(path, data[offset : offset + 1])
        assert reading.has_more
        found += numbers(reading.records())
    assert found == [1, 2, 3]
    assert numbers(reading.finish()) == []
    assert tail.statistics().corrupt == 0


@pytest.mark.parametrize("ending", ["ndjson", "parquet"])
def test_pairs_are_found_by_either_id(tmp_path: Path, ending: str) -> None:
    """One by its own, those of all candidates by the request's, each once."""
    pairs = [pair(n, candidate=name) for n in range(1, 20) for name in ("v2", "v3")]
    with whole_file(tmp_path / f"a.{ending}", Format(ending)) as stream:
        export_pairs([*pairs, *pairs], stream, Format(ending))
    assert [*find_pairs(str(tmp_path), pairs[7]["pair_id"])] == [pairs[7]]
    assert [*find_pairs(str(tmp_path), "r-4")] == pairs[6:8]
    assert [*find_pairs(str(tmp_path), "r-400")] == []


def test_an_id_tells_its_time() -> None:
    """A pair's own; what is no UUIDv7 tells none."""
    assert time_of(pair(5)["pair_id"]) == START_MS + 5_000
    assert time_of("r-5") is None
    assert time_of(str(uuid.UUID(int=5, version=4))) is None


def produce(bootstrap: str, topic: str, pairs: Iterable[dict[str, Any]]) -> None:
    """Send `pairs` as the recorder does, stamped with their own time."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5})
    for each in pairs:
        producer.produce(
            topic, key=each["request_id"], value=orjson.dumps(each), timestamp=each["ts_ms"]
        )
    assert producer.flush(PATIENCE_S) == 0


@pytest.fixture
def topic(kafka_bootstrap: str) -> str:
    """Return the source name of a topic of four partitions with 3,000 pairs."""
    name = f"tail-{uuid.uuid4().hex[:8]}.pairs.v1"
    create_topic(kafka_bootstrap, name)
    produce(kafka_bootstrap, name, pairs_of(1, 3001))
    return f"kafka://{kafka_bootstrap}/{name}"


@pytest.mark.kafka
def test_a_topics_newest_are_found_without_reading_all_of_it(topic: str) -> None:
    """Over all partitions; a filter that takes few looks further back."""
    tail = open_tail(topic, EVERYTHING)
    assert numbers(tail.last(5)) == [*range(2996, 3001)]
    assert tail.statistics().total == 400
    wanted = PairFilter(is_different=True, until_ms=START_MS + 100_000)
    assert numbers(open_tail(topic, wanted).last(3)) == [60, 80, 90]
    assert numbers(open_tail(topic, PairFilter(route="no")).last(3)) == []


@pytest.mark.kafka
def test_a_topic_is_followed_from_where_the_newest_ended(kafka_bootstrap: str, topic: str) -> None:
    """None is left out in between, none comes twice, and it waits for the next."""
    tail = open_tail(topic, EVERYTHING)
    assert numbers(tail.last(0)) == []
    name = topic.rpartition("/")[2]
    produce(kafka_bootstrap, name, [*pairs_of(2990, 3001), *pairs_of(3001, 3011)])
    following = tail.following()
    assert sorted(numbers(islice(following, 21))) == [*range(2990, 3011)]
    timer = threading.Timer(0.5, produce, (kafka_bootstrap, name, pairs_of(3011, 3012)))
    timer.start()
    assert numbers(islice(following, 1)) == [3011]
    timer.join()
    _close(following)


@pytest.mark.kafka
def test_a_window_ends_a_day_after_its_end(kafka_bootstrap: str, topic: str) -> None:
    """A pair is stamped when its request came, and may have waited for Kafka as long."""
    name = topic.rpartition("/")[2]
    day = LATE_MS // 1000
    produce(kafka_bootstrap, name, [*pairs_of(day + 500, day + 1500), *pairs_of(1000, 1010)])
    source = KafkaSource(Topic((kafka_bootstrap,), name), Span(until_ms=START_MS + 1_000_000))
    found = numbers(source)
    assert set(range(1, 1001)) <= set(found)
    # Each partition ends at its first pair that is a day late.
    assert max(found) < day + 1000
    assert source.statistics().is_window


@pytest.mark.kafka
def test_a_pair_is_found_in_a_topic_by_its_time(kafka_bootstrap: str, topic: str) -> None:
    """And by the request's id anywhere, though that may look like a time of another clock."""
    wanted = pair(2500)
    search = find_pairs(topic, wanted["pair_id"])
    assert [each["pair_id"] for each in search] == [wanted["pair_id"]]
    assert search.statistics().total < 600
    assert numbers(find_pairs(topic, "r-77")) == [77]
    foreign = "018bd10c-0000-7000-8000-000000000000"  # hours after the last of them
    name = topic.rpartition("/")[2]
    produce(kafka_bootstrap, name, [pair(4000, request_id=foreign)])
    assert numbers(find_pairs(topic, foreign)) == [4000]


def _close(following: Iterator[dict[str, Any]]) -> None:
    following.close()  # type: ignore[attr-defined]  # it is a generator
