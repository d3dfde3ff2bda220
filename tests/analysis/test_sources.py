"""Pairs are read from every kind of file, also from torn, damaged and growing ones."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard

from proxy.analysis.sources import READ_BYTES, Source, open_source
from proxy.errors import SourceError
from tests.support.records import frames


def lines(count: int, start: int = 0) -> list[dict[str, Any]]:
    """Return `count` records numbered from `start`."""
    return [{"n": n, "text": "x" * (n % 50)} for n in range(start, start + count)]


def ndjson(records: list[dict[str, Any]]) -> bytes:
    """Return `records` as lines."""
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


def numbers(source: Source) -> list[int]:
    """Return the numbers of the records that `source` gives."""
    return [record["n"] for record in source]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.ndjson", ndjson(lines(500))),
        ("a.jsonl", ndjson(lines(500)).rstrip(b"\n")),
        ("a.ndjson.gz", gzip.compress(ndjson(lines(200))) + gzip.compress(ndjson(lines(300, 200)))),
        ("a.ndjson.zst", frames(lines(500), per_frame=7)),
        ("a.ndjson.zst", zstandard.compress(ndjson(lines(500)))),
        ("oddly.named", frames(lines(500))),
    ],
)
def test_each_format_gives_all_records_in_order(tmp_path: Path, name: str, content: bytes) -> None:
    """Plain, gzip of two members, zstd of many frames or one, whatever the name says."""
    (tmp_path / name).write_bytes(content)
    source = open_source(str(tmp_path / name))
    assert numbers(source) == list(range(500))
    found = source.statistics()
    assert (found.bad_lines, found.torn, found.corrupt) == (0, 0, 0)
    assert found.done == found.total == len(content)


def test_lines_may_lie_across_frames_and_reads(tmp_path: Path) -> None:
    """Frames of a foreign writer need not end with a line."""
    data = ndjson(lines(5_000))
    pieces = [data[i : i + 997] for i in range(0, len(data), 997)]
    (tmp_path / "a.zst").write_bytes(b"".join(map(zstandard.compress, pieces)))
    assert numbers(open_source(str(tmp_path / "a.zst"))) == list(range(5_000))
    assert len(data) > 2 * READ_BYTES


def test_a_state_directory_gives_its_pairs_and_a_folder_its_files_by_name(tmp_path: Path) -> None:
    """Other files in a folder are passed over."""
    pairs = tmp_path / "pairs"
    pairs.mkdir()
    (pairs / "2.ndjson.zst").write_bytes(frames(lines(10, 10)))
    (pairs / "1.ndjson.zst").write_bytes(frames(lines(10)))
    (pairs / "index.json").write_bytes(b"{}")
    (tmp_path / "decisions.ndjson").write_bytes(b'{"n": -1}\n')
    assert numbers(open_source(str(tmp_path))) == list(range(20))
    assert numbers(open_source(str(pairs))) == list(range(20))


@pytest.mark.parametrize("cut", [1, 40, 300])
@pytest.mark.parametrize("kind", ["zst", "gz", "plain"])
def test_a_torn_end_is_told_and_costs_only_itself(tmp_path: Path, kind: str, cut: int) -> None:
    """As after a crash, or while the recorder still writes."""
    first, last = lines(100), lines(100, 100)
    whole, torn = {
        "zst": (frames(first), frames(last, per_frame=100)),
        "gz": (gzip.compress(ndjson(first)), gzip.compress(ndjson(last))),
        "plain": (ndjson(first), orjson.dumps({"n": 1, "text": "x" * 1000})),
    }[kind]
    path = tmp_path / "a.ndjson"
    path.write_bytes(whole + torn[:-cut])
    source = open_source(str(path))
    assert numbers(source)[:100] == list(range(100))
    found = source.statistics()
    assert (found.torn, found.bad_lines, found.corrupt) == (1, 0, 0)
    assert "ends in the middle" in found.examples[0]


def test_a_damaged_frame_is_skipped_and_counted(tmp_path: Path) -> None:
    """Everything before and behind it is read."""
    parts = [frames(lines(50, start), per_frame=50) for start in (0, 50, 100)]
    parts[1] = parts[1][:20] + b"\xff" * 20 + parts[1][40:]
    (tmp_path / "a.ndjson.zst").write_bytes(b"".join(parts))
    source = open_source(str(tmp_path))
    found = numbers(source)
    assert [*range(50), *range(100, 150)] == [n for n in found if not 50 <= n < 100]
    assert source.statistics().corrupt >= 1
    assert "damaged" in source.statistics().examples[0]


def test_halves_of_lines_on_both_sides_of_damage_make_no_line(tmp_path: Path) -> None:
    """Else a record would be read that nobody wrote."""
    damaged = bytearray(zstandard.compress(b"2}\n" * 20))
    damaged[6:12] = b"\xff" * 6
    parts = zstandard.compress(b'{"n": 1}\n{"n": 2'), damaged, zstandard.compress(b'2}\n{"n": 3}\n')
    (tmp_path / "a.zst").write_bytes(b"".join(parts))
    source = open_source(str(tmp_path / "a.zst"))
    assert numbers(source) == [1, 3]
    assert source.statistics().bad_lines == 2


def test_bad_lines_are_counted_with_their_place_and_blank_ones_are_not(tmp_path: Path) -> None:
    """Never fatal."""
    path = tmp_path / "a.ndjson"
    path.write_bytes(b'{"n": 1}\n\nnot json\n[1]\n7\n{"n": 2}\n\xff\xfe\n')
    source = open_source(str(path))
    assert numbers(source) == [1, 2]
    found = source.statistics()
    assert found.bad_lines == 4
    assert found.examples[0].startswith("a.ndjson:3: ")
    assert len(found.examples) == 3


def test_a_file_that_goes_while_it_is_read_is_passed_over(tmp_path: Path) -> None:
    """The local log rotates."""
    for name in ("1.ndjson", "2.ndjson"):
        (tmp_path / name).write_bytes(ndjson(lines(3)))
    source = open_source(str(tmp_path))
    (tmp_path / "1.ndjson").unlink()
    assert numbers(source) == [0, 1, 2]
    assert "removed" in source.statistics().examples[0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nowhere", "there is nothing at"),
        ("http://127.0.0.1/x", "a source is a path or kafka://"),
        ("kafka://127.0.0.1:9092", "write kafka://HOST:PORT/TOPIC"),
        ("kafka:///topic", "write kafka://HOST:PORT/TOPIC"),
        ("kafka://127.0.0.1:x/topic", "is not HOST:PORT"),
        ("kafka://127.0.0.1:99999/topic", "is not HOST:PORT"),
    ],
)
def test_a_name_that_means_nothing_is_an_error_that_says_so(name: str, reason: str) -> None:
    """Before anything is read."""
    with pytest.raises(SourceError, match=reason):
        open_source(name)


def test_a_damaged_parquet_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    """Instead of a thousand bad lines; a Parquet file is whole or it is nothing."""
    (tmp_path / "a.parquet").write_bytes(b"PAR1....")
    with pytest.raises(SourceError, match=r"cannot read the Parquet file .*a\.parquet"):
        numbers(open_source(str(tmp_path / "a.parquet")))


def test_memory_stays_flat_over_a_long_file(tmp_path: Path) -> None:
    """100 MB of lines in one frame that packs 500:1 are never in memory together."""
    path = tmp_path / "long.zst"
    with zstandard.open(path, "wb") as out:
        for start in range(1_000):
            out.write(ndjson([{"n": start, "text": "y" * 9_980} for _ in range(10)]))
    tracemalloc.start()
    try:
        assert sum(1 for _ in open_source(str(path))) == 10_000
        assert tracemalloc.get_traced_memory()[1] < 30_000_000
    finally:
        tracemalloc.stop()
