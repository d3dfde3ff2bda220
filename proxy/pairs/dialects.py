"""The pair record as other programs declare it: ClickHouse, Flink, Spark and DuckDB. Pure.

Written from the one table in `proxy.pairs.record`, so that a column list cannot go stale. `ts` is
text as in the record; times to compute with come from `ts_ms`, which needs no parsing anywhere.
What may be any JSON (`*_prediction`) is its text, but in DuckDB, which has a type for it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from proxy.pairs.record import FIELDS, Field, Kind


class Dialect(StrEnum):
    """Who reads the columns."""

    CLICKHOUSE = "clickhouse"
    DUCKDB = "duckdb"
    FLINK = "flink"
    SPARK = "spark"


_TYPES: Final[dict[Dialect, dict[Kind, str]]] = {
    Dialect.CLICKHOUSE: {
        Kind.STRING: "String",
        Kind.INTEGER: "Int64",
        Kind.NUMBER: "Float64",
        Kind.BOOLEAN: "Bool",
        Kind.MAP: "Map(String, String)",
        Kind.ANY: "String",
    },
    Dialect.DUCKDB: {
        Kind.STRING: "VARCHAR",
        Kind.INTEGER: "BIGINT",
        Kind.NUMBER: "DOUBLE",
        Kind.BOOLEAN: "BOOLEAN",
        Kind.MAP: "MAP(VARCHAR, VARCHAR)",
        Kind.ANY: "JSON",
    },
    Dialect.FLINK: {
        Kind.STRING: "STRING",
        Kind.INTEGER: "BIGINT",
        Kind.NUMBER: "DOUBLE",
        Kind.BOOLEAN: "BOOLEAN",
        Kind.MAP: "MAP<STRING, STRING>",
        Kind.ANY: "STRING",
    },
    Dialect.SPARK: {
        Kind.STRING: "STRING",
        Kind.INTEGER: "BIGINT",
        Kind.NUMBER: "DOUBLE",
        Kind.BOOLEAN: "BOOLEAN",
        Kind.MAP: "MAP<STRING, STRING>",
        Kind.ANY: "STRING",
    },
}

# ReplacingMergeTree keeps one row of those with equal keys, so pairs that were delivered twice
# fall together; FINAL makes a query see it at once.
_CLICKHOUSE: Final = """\
CREATE TABLE pairs (
{columns},
    time DateTime64(3, 'UTC') MATERIALIZED fromUnixTimestamp64Milli(ts_ms, 'UTC')
) ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(time)
ORDER BY (route, candidate, ts_ms, pair_id);
"""

_DUCKDB: Final = """\
CREATE OR REPLACE MACRO read_pairs(files) AS TABLE
SELECT * FROM read_json(files, format = 'newline_delimited', columns = {{
{columns}
}});
"""

_FLINK: Final = """\
CREATE TABLE pairs (
{columns},
    event_time AS TO_TIMESTAMP_LTZ(ts_ms, 3),
    WATERMARK FOR event_time AS event_time - INTERVAL '1' MINUTE
) WITH (
    'connector' = 'kafka',
    'topic' = 'shadow.pairs.v1',
    'properties.bootstrap.servers' = '127.0.0.1:9092',
    'scan.startup.mode' = 'earliest-offset',
    'format' = 'json',
    'json.ignore-parse-errors' = 'true'
);
"""

#: What `StructType.fromDDL` and `from_json` take.
_SPARK: Final = "{columns}\n"

_STATEMENTS: Final = {
    Dialect.CLICKHOUSE: _CLICKHOUSE,
    Dialect.DUCKDB: _DUCKDB,
    Dialect.FLINK: _FLINK,
    Dialect.SPARK: _SPARK,
}


def column_type(field: Field, dialect: Dialect) -> str:
    """Return the type of a field's column."""
    kind = _TYPES[dialect][field.kind]
    if dialect is Dialect.CLICKHOUSE and not field.is_required:
        return f"Nullable({kind})"
    return kind


def statement(dialect: Dialect) -> str:
    """Return the statement that declares pairs: one column a line, a newline at its end.

    ClickHouse: a table. DuckDB: a macro `read_pairs(files)` for files of NDJSON. Flink: a table
    over the topic. Spark: a list of columns, for `from_json`.
    """
    return _STATEMENTS[dialect].format(
        columns=",\n".join(_column(field, dialect) for field in FIELDS)
    )


def _column(field: Field, dialect: Dialect) -> str:
    kind = column_type(field, dialect)
    if dialect is Dialect.DUCKDB:
        return f"    {field.name}: '{kind}'"
    if dialect is Dialect.SPARK:
        return f"{field.name} {kind}"
    quote = "`" if dialect is Dialect.FLINK else ""
    return f"    {quote}{field.name}{quote} {kind}"
