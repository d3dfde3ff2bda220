"""Pairs are written to one whole file, in each format, with the types of the record."""

from __future__ import annotations

import csv
import gzip
import io
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from proxy.analysis.export import Format, columns_named, whole_file, write_pairs
from proxy.analysis.parquet import GROUP_BYTES, ParquetWriter, arrow_schema
from proxy.analysis.sources import open_source
from proxy.errors import ExportError, SourceError
from proxy.pairs.record import FIELDS, Kind
from tests.support.deadline import START_PATIENCE_S
from tests.support.records import NUMERIC, pair

#: Written by hand, so that a wrong entry in the product's table is seen.
ARROW_TYPES = {
    Kind.STRING: "string",
    Kind.INTEGER: "int64",
    Kind.NUMBER: "double",
    Kind.BOOLEAN: "bool",
    Kind.MAP: "map<string, string>",
    Kind.ANY: "string",
}


def some_pairs() -> list[dict[str, Any]]:
    """Return pairs whose predictions are of every kind, with failures, segments and umlauts."""
    predictions: list[Any] = [1, 2.5, 'Grüße\n,"', [1, 2], {"a": [None]}, None, True, []]
    return [
        pair(
            n, value, value if n % 2 else 7, compare=NUMERIC,
            segments={"tier": "gold", "q": '"'} if n % 3 else {},
            **({"candidate_status": "timeout"} if n == 4 else {}),
        )
        for n, value in enumerate(predictions, 1)
    ]  # fmt: skip


def exported(path: Path, pairs: list[dict[str, Any]], to: Format) -> Path:
    """Write `pairs` to `path`."""
    with whole_file(path, to) as stream:
        assert write_pairs(pairs, stream, to).pairs == len(pairs)
    return path


@pytest.mark.parametrize("name", ["a.parquet", "a.ndjson", "a.ndjson.zst", "a.ndjson.gz"])
def test_what_is_exported_is_read_back_the_same(tmp_path: Path, name: str) -> None:
    """Byte for byte as JSON, predictions of every kind and labels included."""
    pairs = some_pairs()
    exported(tmp_path / name, pairs, Format(name.split(".")[1]))
    source = open_source(str(tmp_path))
    assert [orjson.dumps(record) for record in source] == [orjson.dumps(each) for each in pairs]
    assert source.statistics().done == source.statistics().total


def test_every_column_has_its_fields_type_whatever_its_values() -> None:
    """Not one of them is null-typed, though most of these columns hold nothing."""
    schema = arrow_schema()
    assert [(field.name, str(field.type), field.nullable) for field in schema] == [
        (field.name, ARROW_TYPES[field.kind], not field.is_required) for field in FIELDS
    ]
    assert schema.field("primary_latency_ms").metadata[b"unit"] == b"ms"


def test_a_parquet_file_is_zstd_with_the_schema_and_json_as_text(tmp_path: Path) -> None:
    """As another reader sees it."""
    path = exported(tmp_path / "a.parquet", some_pairs(), Format.PARQUET)
    file = pq.ParquetFile(path)
    assert file.schema_arrow.equals(arrow_schema())
    assert file.metadata.row_group(0).column(1).compression == "ZSTD"
    table = file.read()
    assert table["replicate_latency_ms"].null_count == len(table)
    assert table["primary_prediction"].to_pylist()[:5] == [
        "1", "2.5", '"Grüße\\n,\\""', "[1,2]", '{"a":[null]}',
    ]  # fmt: skip
    assert dict(table["segments"].to_pylist()[0]) == {"tier": "gold", "q": '"'}
    assert path.stat().st_mode & 0o777 == 0o600


def test_csv_is_a_table_that_a_csv_reader_takes_apart(tmp_path: Path) -> None:
    """Null is empty; truth, lists, objects and labels are JSON."""
    pairs = some_pairs()
    text = exported(tmp_path / "a.csv", pairs, Format.CSV).read_bytes().decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert list(rows[0]) == [field.name for field in FIELDS]
    for row, each in zip(rows, pairs, strict=True):
        for name, cell in row.items():
            value = each[name]
            if value is None:
                assert cell == ""
            elif isinstance(value, bool | list | dict):
                assert orjson.loads(cell) == value
            else:
                assert cell == str(value)


@pytest.mark.parametrize(
    ("name", "unpack"), [("a.csv.gz", gzip.decompress), ("a.csv.zst", zstandard.decompress)]
)
def test_csv_is_packed_as_its_name_says(tmp_path: Path, name: str, unpack: Any) -> None:
    """The content is that of the plain file."""
    plain = exported(tmp_path / "a.csv", some_pairs(), Format.CSV).read_bytes()
    packed = exported(tmp_path / name, some_pairs(), Format.CSV).read_bytes()
    if name.endswith(".zst"):
        assert zstandard.ZstdDecompressor().decompressobj().decompress(packed) == plain
    else:
        assert unpack(packed) == plain


@pytest.mark.parametrize("to", Format)
def test_columns_are_those_named_in_their_order(to: Format) -> None:
    """Types stay."""
    stream = io.BytesIO()
    names = ["candidate_prediction", "equal", "seq"]
    write_pairs(some_pairs()[:1], stream, to, columns=columns_named(names))
    data = stream.getvalue()
    if to is Format.PARQUET:
        table = pq.read_table(io.BytesIO(data))
        assert table.column_names == names
        assert table.to_pylist() == [{"candidate_prediction": "1", "equal": True, "seq": 1}]
    elif to is Format.CSV:
        assert data == b"candidate_prediction,equal,seq\r\n1,true,1\r\n"
    else:
        assert data == b'{"candidate_prediction":1,"equal":true,"seq":1}\n'


@pytest.mark.parametrize(
    ("names", "reason"),
    [(["equl"], "did you mean 'equal'"), (["zzz"], "see `understudy schema pair`"),
     (["seq", "seq"], "named twice")],
)  # fmt: skip
def test_a_column_that_is_none_is_an_error_with_the_nearest(names: list[str], reason: str) -> None:
    """Before anything is read."""
    with pytest.raises(ExportError, match=reason):
        columns_named(names)


@pytest.mark.parametrize(
    "change",
    [
        {"seq": "1"}, {"http": 1, "primary_http_status": "200"}, {"equal": "yes"},
        {"primary_latency_ms": [1]}, {"segments": {"a": 1}}, {"segments": "x"},
        {"request_bytes": 2**63}, {"method": None}, {"route": 7}, {"comparable": 1},
    ],
)  # fmt: skip
def test_a_pair_with_a_wrong_type_costs_only_itself(change: dict[str, Any]) -> None:
    """Foreign or damaged records are left out of a Parquet file and counted."""
    pairs = [pair(n) for n in range(1, 6)]
    pairs[2].update(change)
    stream = io.BytesIO()
    done = write_pairs(pairs, stream, Format.PARQUET)
    assert (done.pairs, done.bad) == (4, 1)
    assert pq.read_table(stream)["seq"].to_pylist() == [1, 2, 4, 5]


@pytest.mark.parametrize(("absent", "good"), [("trace_sampled", 3), ("assign_prob", 2)])
def test_a_field_that_an_older_release_did_not_write_is_null(absent: str, good: int) -> None:
    """Where the record may have none; else the pair is left out as no pair."""
    pairs = [pair(n) for n in range(1, 4)]
    del pairs[1][absent]
    stream = io.BytesIO()
    done = write_pairs(pairs, stream, Format.PARQUET)
    assert (done.pairs, done.bad) == (good, 3 - good)
    assert pq.read_table(stream)[absent].null_count == good - 2


@pytest.mark.parametrize("name", ["a.parquet", "a.ndjson.zst", "a.csv.gz", "a.csv"])
@pytest.mark.parametrize("error", [SourceError("gone"), KeyboardInterrupt(), SystemExit(143)])
def test_what_fails_midway_leaves_what_was_there(
    tmp_path: Path, name: str, error: BaseException
) -> None:
    """And nothing beside it."""
    path = tmp_path / name
    path.write_bytes(b"yesterday's")
    to = Format(name.split(".")[1])

    def broken() -> Iterator[dict[str, Any]]:
        yield from (pair(n) for n in range(600))
        raise error

    with pytest.raises(type(error)), whole_file(path, to) as stream:
        write_pairs(broken(), stream, to)
    assert [each.name for each in tmp_path.iterdir()] == [name]
    assert path.read_bytes() == b"yesterday's"


def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    """A file that may not grow beyond 100 KB stands for it."""
    script = (
        "import resource, sys, signal\n"
        "from pathlib import Path\n"
        "from proxy.analysis.export import *\n"
        "from tests.support.records import pair\n"
        "pairs = [pair(n, 'x' * n) for n in range(2000)]\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "for to in Format:\n"
        "    try:\n"
        "        with whole_file(Path(sys.argv[1]), to) as stream: write_pairs(pairs, stream, to)\n"
        "    except ExportError as exc: print(exc)\n"
    )
    target = tmp_path / "a.out"
    done = subprocess.run(
        [sys.executable, "-c", script, str(target)],
        capture_output=True, text=True, check=True, timeout=START_PATIENCE_S,
    )  # fmt: skip
    assert done.stdout == f"cannot write {target}: File too large\n" * 3, done.stderr
    assert done.stderr == ""
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_an_error_that_says_so(tmp_path: Path) -> None:
    """Whose fault it is, in one line."""
    with (
        pytest.raises(ExportError, match=r"cannot write .*: No such file or directory"),
        whole_file(tmp_path / "no" / "a.csv", Format.CSV),
    ):
        pass


def test_row_groups_are_bounded_and_memory_with_them(tmp_path: Path) -> None:
    """300 MB of bodies go through in the memory of a row group or two."""
    body = {"candidate_body": "x" * 100_000}
    whole = pair(1)

    def many() -> Iterator[dict[str, Any]]:
        for n in range(3_000):
            # Not the same string twice, or one column's dictionary would hold them all.
            yield {**whole, "seq": n, **body, "primary_body": f"{n}" * 1_000}

    with whole_file(tmp_path / "a.parquet", Format.PARQUET) as stream:
        pool, python = pa.default_memory_pool(), 0
        before = pool.bytes_allocated()
        tracemalloc.start()
        try:
            write_pairs(many(), stream, Format.PARQUET)
            python = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        peak = pool.max_memory() or 0
    metadata = pq.ParquetFile(tmp_path / "a.parquet").metadata
    assert metadata.num_rows == 3_000
    assert metadata.num_row_groups >= 4
    assert peak - before < 4 * GROUP_BYTES
    assert python < 100_000_000


def test_without_pyarrow_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    """NDJSON and CSV need nothing."""
    script = (
        "import sys\nsys.modules['pyarrow'] = None\n"
        "from proxy.cli.entry import run\nsys.exit(run(sys.argv[1:]))\n"
    )
    (tmp_path / "in.ndjson").write_bytes(orjson.dumps(pair(1)) + b"\n")
    errors = {}
    for to, code in (("csv", 0), ("parquet", 1)):
        done = subprocess.run(
            [sys.executable, "-c", script, "pairs", "export", "--from", str(tmp_path / "in.ndjson"),
             "--to", to, "--out", str(tmp_path / f"out.{to}")],
            capture_output=True, text=True, check=False, timeout=START_PATIENCE_S,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        errors[to] = done.stderr
    assert "pip install 'understudy[analysis]'" in errors["parquet"]
    assert errors["parquet"].count("\n") == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["in.ndjson", "out.csv"]


def test_a_writer_that_is_given_up_says_nothing(tmp_path: Path) -> None:
    """Warnings are errors here: no unclosed file, no exception in a destructor."""
    with (tmp_path / "a").open("wb") as stream:
        ParquetWriter(stream, FIELDS).write([pair(1)])
