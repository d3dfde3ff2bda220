"""The record's columns in other programs' words: every field, in order, with the right type."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import duckdb
import orjson
import pytest

from proxy.pairs.dialects import Dialect, statement
from proxy.pairs.record import FIELDS, Kind
from tests.support.deadline import START_PATIENCE_S
from tests.support.records import pair, write_pairs

#: Written by hand, so that a wrong entry in the product's table is seen.
TYPES = {
    Dialect.CLICKHOUSE: "String Int64 Float64 Bool Map(String,String) String",
    Dialect.DUCKDB: "VARCHAR BIGINT DOUBLE BOOLEAN MAP(VARCHAR,VARCHAR) JSON",
    Dialect.FLINK: "STRING BIGINT DOUBLE BOOLEAN MAP<STRING,STRING> STRING",
    Dialect.SPARK: "STRING BIGINT DOUBLE BOOLEAN MAP<STRING,STRING> STRING",
}
KINDS = (Kind.STRING, Kind.INTEGER, Kind.NUMBER, Kind.BOOLEAN, Kind.MAP, Kind.ANY)


@pytest.mark.parametrize("dialect", Dialect)
def test_every_field_is_a_column_of_its_type(dialect: Dialect) -> None:
    """In the order of the record, and no other but those made of them."""
    types = dict(zip(KINDS, TYPES[dialect].split(), strict=True))
    expected = []
    for field in FIELDS:
        kind = types[field.kind]
        is_nullable = dialect is Dialect.CLICKHOUSE and not field.is_required
        expected.append((field.name, f"Nullable({kind})" if is_nullable else kind))
    columns = re.findall(r"^ *`?(\w+)`?:? '?([A-Z].*?)'?,?$", statement(dialect), re.MULTILINE)
    found = [(name, kind.replace(", ", ",")) for name, kind in columns if name[0].islower()]
    made = {"event_time", "time"}
    assert [column for column in found if column[0] not in made] == expected


def test_duckdb_reads_the_local_log_with_these_types(tmp_path: Path) -> None:
    """Each column of every kind of prediction, also where all its values are null."""
    pairs = [pair(n, value) for n, value in enumerate((1, "a", [1, 2], {"a": 1}, None), 1)]
    write_pairs(tmp_path / "a.ndjson.zst", pairs)
    db = duckdb.connect()
    db.execute(statement(Dialect.DUCKDB))
    rows = db.execute(f"FROM read_pairs('{tmp_path}/*.zst')")
    types = dict(zip(KINDS, TYPES[Dialect.DUCKDB].split(), strict=True))
    assert [(name, str(kind).replace(", ", ",")) for name, kind, *_ in rows.description or ()] == [
        (field.name, types[field.kind]) for field in FIELDS
    ]
    place = [field.name for field in FIELDS].index("primary_prediction")
    found = [row[place] for row in rows.fetchall()]
    assert [None if text is None else orjson.loads(text) for text in found] == [
        1, "a", [1, 2], {"a": 1}, None,
    ]  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="chdb-core-lite is for Linux")
def test_clickhouse_takes_the_table_and_the_records(tmp_path: Path) -> None:
    """In a process of its own, because ClickHouse lives in one for good."""
    pairs = [pair(n, value) for n, value in enumerate((1, "a", [1, 2], {"a": 1}, None), 1)]
    path = tmp_path / "pairs.ndjson"
    path.write_bytes(b"".join(orjson.dumps(each) + b"\n" for each in [*pairs, *pairs]))
    script = (
        "import sys\nfrom chdb.session import Session\n"
        "from proxy.pairs.dialects import Dialect, statement\n"
        "db = Session()\ndb.query(statement(Dialect.CLICKHOUSE))\n"
        "db.query(f\"INSERT INTO pairs FROM INFILE '{sys.argv[1]}' FORMAT JSONEachRow\")\n"
        "print(db.query('SELECT name, type FROM system.columns WHERE table = \\'pairs\\'', 'JSON'))\n"
        "print(db.query('SELECT *, time FROM pairs FINAL ORDER BY seq', 'JSONEachRow'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True, text=True, check=True, timeout=START_PATIENCE_S,
    )  # fmt: skip
    head, _, rows = done.stdout.partition("\n}\n")
    columns = {column["name"]: column["type"] for column in orjson.loads(head + "}")["data"]}
    types = dict(zip(KINDS, TYPES[Dialect.CLICKHOUSE].split(), strict=True))
    assert {name: kind.replace(", ", ",") for name, kind in columns.items()} == {
        "time": "DateTime64(3,'UTC')",
        **{
            field.name: types[field.kind] if field.is_required else f"Nullable({types[field.kind]})"
            for field in FIELDS
        },
    }
    found = [orjson.loads(line) for line in rows.strip().splitlines()]
    assert [each["pair_id"] for each in found] == [each["pair_id"] for each in pairs]
    assert found[0]["time"] == "2023-11-14 22:13:21.000"
    assert [each["primary_prediction"] for each in found] == ["1", "a", "[1,2]", '{"a":1}', None]
    same = {name for name, value in pairs[0].items() if found[0][name] in (value, str(value))}
    assert {field.name for field in FIELDS} - same == set()
