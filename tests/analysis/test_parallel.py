"""Parts of a source, however it is cut, read and stored, add up to what one reading counts."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import zstandard

from proxy.analysis import parallel, parts
from proxy.analysis.aggregate import Reading
from proxy.analysis.parquet import ParquetWriter, arrow_schema
from proxy.analysis.parts import parts_of
from proxy.analysis.sources import FileSource
from proxy.analysis.summarise import summarise, summary_of
from proxy.analysis.summary import Selection, Summary, as_dict
from proxy.pairs.record import FIELDS
from tests.support.records import NUMERIC, frames, pair, write_pairs

FAILED: dict[str, Any] = {
    "candidate_status": "timeout",
    "candidate_http_status": None,
    "candidate_body": None,
    "candidate_body_state": "omitted",
}


def mixed(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Return pairs of two candidates and two instances, some of which fail or differ."""
    rng = random.Random(seed)
    records = []
    for n in range(1, count + 1):
        is_numeric = rng.random() < 0.4
        truth: Any = rng.gauss(5, 1) if is_numeric else rng.randrange(4)
        other = truth + rng.choice([0, 0, 0.1]) if is_numeric else rng.choice([truth, truth, 9])
        record = pair(
            n,
            truth,
            other,
            replicate=truth if rng.random() < 0.2 else None,
            candidate="v3" if is_numeric else "v2",
            instance=rng.choice(["a-w0-1", "b-w1-2"]),
            primary_latency_us=rng.randrange(1_000, 90_000),
            **({"compare": NUMERIC} if is_numeric else {}),
            **(FAILED if rng.random() < 0.05 else {}),
        )
        record["segments"] = {"tier": rng.choice("abc")} if rng.random() < 0.5 else {}
        record["primary_model_version"] = "1"
        record["candidate_model_version"] = None if record["equal"] is None else "2"
        records.append(record)
    return records


def counted(summary: Summary) -> dict[str, Any]:
    """Return a summary without where it came from, sums rounded: their last digit is of the order."""
    value = as_dict(summary)
    del value["source"]
    found = _rounded(value)
    assert isinstance(found, dict)
    return found


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.9g}")
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else value


def write_parquet(path: Path, records: Iterable[dict[str, Any]], rows: int = 200) -> Path:
    """Write `records` as `understudy pairs export` does, in row groups of `rows`."""
    with path.open("wb") as stream:
        writer = ParquetWriter(stream, FIELDS)
        writer.write([*records])
        writer.close()
    table = pq.read_table(path, schema=arrow_schema())
    pq.write_table(table, path, row_group_size=rows)
    return path


def test_two_processes_count_what_one_counts(tmp_path: Path) -> None:
    """Also pairs that were delivered again in another file, of which the first counts."""
    records = mixed(1_500)
    write_pairs(tmp_path / "1.ndjson.zst", records[:600])
    write_pairs(tmp_path / "2.ndjson.zst", records[500:1_000])
    write_pairs(tmp_path / "3.ndjson.zst", records[1_000:])
    paths = sorted(tmp_path.iterdir())
    source = FileSource("here", paths)
    ends: list[int] = []
    aggregate = parallel.aggregate_files(
        source, Reading(), lambda: ends.append(source.statistics().done), processes=2
    )
    both = counted(summary_of(aggregate, Reading()))
    once = counted(summarise(records))
    assert both["health"].pop("duplicates") == 100
    assert once["health"].pop("duplicates") == 0
    assert both["health"].pop("records") == 1_600
    assert once["health"].pop("records") == 1_500
    assert both == once
    assert ends[-1] == source.statistics().total
    assert source.statistics().offsets == {path.name: path.stat().st_size for path in paths}


def test_parquet_columns_say_what_records_say(tmp_path: Path) -> None:
    """Row groups, counted without a record being made, against NDJSON of the same pairs."""
    records = mixed(1_000)
    path = write_parquet(tmp_path / "a.parquet", [*records, *records[:50]])
    assert len([*parts_of([path])]) == 1
    found = counted(summarise(FileSource("here", [path])))
    expected = counted(summarise([*records, *records[:50]]))
    assert found == expected
    selection = Selection(candidate="v3", since_ms=records[200]["ts_ms"], worst=3)
    found = counted(summarise(FileSource("here", [path]), selection))
    assert found == counted(summarise([*records, *records[:50]], selection))


def test_parquet_with_what_is_no_pair_goes_the_way_of_records(tmp_path: Path) -> None:
    """A column of another type, or a null where none may be, costs those rows alone."""
    records = mixed(40)
    records[7]["schema_version"] = "2"
    path = write_parquet(tmp_path / "a.parquet", records)
    health = summarise(FileSource("here", [path])).health
    assert (health.selected, health.bad_records) == (39, 1)
    assert health.bad_example == "its schema_version is '2'"
    table = pq.read_table(path)
    narrow = table.drop_columns(["primary_ttft_ms", "segments", "request_id", "loss_diff"])
    pq.write_table(narrow, path)
    assert summarise(FileSource("here", [path])).health.selected == 39
    pq.write_table(table.drop_columns(["primary_status"]), path)
    health = summarise(FileSource("here", [path])).health
    assert (health.selected, health.bad_example) == (0, "it has no primary_status")


def test_a_large_file_is_cut_where_a_frame_ends_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The parts hold all lines; frames that cut a line in two stay together."""
    monkeypatch.setattr(parts, "PART_BYTES", 1_000)
    records = mixed(300)
    path = write_pairs(tmp_path / "a.ndjson.zst", records)
    cut = [*parts_of([path])]
    assert len(cut) > 3
    assert [part.start for part in cut[1:]] == [part.stop for part in cut[:-1]]
    assert counted(summarise(FileSource("here", [path]))) == counted(summarise(records))
    whole = (
        zstandard.ZstdDecompressor().stream_reader(frames(records), read_across_frames=True).read()
    )
    compressor = zstandard.ZstdCompressor(write_checksum=True)
    pieces = [whole[start : start + 7_001] for start in range(0, len(whole), 7_001)]
    path.write_bytes(b"".join(map(compressor.compress, pieces)))
    assert counted(summarise(FileSource("here", [path]))) == counted(summarise(records))


def test_damage_in_a_part_is_skipped_and_counted(tmp_path: Path) -> None:
    """What lies behind it is read, a torn end is told, and a bad line has its place."""
    records = mixed(200)
    good = frames(records[:100])
    data = good + b"\x00damage\x00" + frames(records[100:])
    path = tmp_path / "a.ndjson.zst"
    path.write_bytes(data + frames(records)[:50])
    source = FileSource("here", [path])
    assert summarise(source).health.selected == 200
    assert (source.statistics().corrupt, source.statistics().torn) == (1, 1)
    bad = zstd_line(b"[1]\n{nonsense\n")
    path.write_bytes(good + bad)
    source = FileSource("here", [path])
    assert summarise(source).health.selected == 100
    assert source.statistics().bad_lines == 2
    assert "a.ndjson.zst: line 1 of the frame at" in source.statistics().examples[0]


def zstd_line(content: bytes) -> bytes:
    """Return a frame of `content`."""
    return zstandard.ZstdCompressor(write_checksum=True).compress(content)
