"""A notebook gets pairs as Arrow, Polars and NumPy: the same from every source, in bounded memory."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from proxy import analysis
from proxy.analysis.export import Format, whole_file, write_pairs as export
from proxy.errors import ExportError, SourceError
from tests.support.deadline import START_PATIENCE_S
from tests.support.kafka_topics import create_topic
from tests.support.records import NUMERIC, START_MS, pair, write_pairs

COUNT = 40


def records(count: int = COUNT) -> list[dict[str, Any]]:
    """Return pairs of two candidates, one of which failed, with a label on every second."""
    return [
        pair(
            n, n, n + 0.5 if n % 4 == 0 else n, compare=NUMERIC,
            candidate="v2" if n % 2 else "v3",
            segments={"tier": "gold"} if n % 2 else {},
            **({"candidate_status": "timeout", "candidate_body": None} if n == 3 else {}),
        )
        for n in range(1, count + 1)
    ]  # fmt: skip


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Write them to a local log, some of them twice, and a line that is none; return its folder."""
    rows = records()
    write_pairs(tmp_path / "state" / "pairs" / "1.ndjson.zst", [*rows, *rows[:5], {"no": "pair"}])
    return tmp_path / "state"


def test_every_pair_is_there_once_whatever_it_is_asked_as(state: Path) -> None:
    """With the columns of an export to Parquet, and a count of what was left out."""
    pairs = analysis.pairs(state)
    assert pairs.statistics() is None
    table = pairs.arrow()
    with whole_file(state / "a.parquet", Format.PARQUET) as stream:
        export(records(), stream, Format.PARQUET)
    assert table.equals(pq.read_table(state / "a.parquet"))
    found = pairs.statistics()
    assert found is not None
    assert (found.pairs, found.duplicates, found.bad, found.is_exact) == (COUNT, 5, 1, True)
    assert found.source.done == found.source.total
    assert pairs.polars().equals(pl.DataFrame(pl.from_arrow(table)))
    assert [*pairs.numpy()["seq"]] == [*range(1, COUNT + 1)]
    assert analysis.pairs(state / "a.parquet").arrow().equals(table)


def test_the_filters_are_those_of_the_commands(state: Path) -> None:
    """By candidate, route and time; a time as text or as a datetime; nothing may be left."""

    def seqs(**chosen: Any) -> list[int]:
        return list(analysis.pairs(str(state), **chosen).numpy()["seq"])

    assert seqs(candidate="v3") == list(range(2, COUNT + 1, 2))
    assert seqs(route="other") == []
    instant = datetime.fromtimestamp(START_MS / 1000 + 30, UTC)
    assert seqs(since=instant) == seqs(since=instant.isoformat()) == list(range(30, COUNT + 1))
    assert seqs(since=instant.replace(tzinfo=None), until=instant) == []
    assert seqs(since="1m") == []
    with pytest.raises(SourceError, match="is no time"):
        analysis.pairs(state, since="yesterday")


def test_numbers_are_arrays_whose_types_follow_from_the_record(state: Path) -> None:
    """Null is NaN; predictions are numbers where all are, or vectors, else what they are."""
    names = ("ts_ms", "rescued", "equal", "candidate_latency_ms", "candidate_http_status",
             "primary_prediction", "candidate_prediction", "segments", "segments.tier")  # fmt: skip
    found = analysis.pairs(state, columns=names).numpy()
    assert tuple(found) == names
    kinds = {name: array.dtype.kind for name, array in found.items()}
    assert kinds == dict(zip(names, "ibffffffOO", strict=False)) | {
        "segments": "O",
        "segments.tier": "O",
    }
    assert np.flatnonzero(np.isnan(found["equal"])).tolist() == [2]
    assert np.isnan(found["candidate_prediction"][2])
    difference = found["candidate_prediction"] - found["primary_prediction"]
    assert np.nansum(difference) == 0.5 * COUNT / 4
    assert found["segments"][0] == {"tier": "gold"}
    assert found["segments.tier"][:2].tolist() == ["gold", None]
    empty = analysis.pairs(state, route="other", columns=names).numpy()
    assert {name: array.shape for name, array in empty.items()} == dict.fromkeys(names, (0,))
    fixed = {name: kinds[name] for name in names if "prediction" not in name}
    assert {name: empty[name].dtype.kind for name in fixed} == fixed


@pytest.mark.parametrize(
    ("predictions", "kind", "shape"),
    [
        ([1, 2.5], "f", (2,)),
        ([[1], [2]], "f", (2,)),
        ([[0.25, 0.75], [1.0, 0.0]], "f", (2, 2)),
        ([[0.25, 0.75], [1.0]], "O", (2,)),
        ([["a", 1], ["b", 2]], "O", (2,)),
        (["spam", "ham"], "O", (2,)),
        ([True, False], "O", (2,)),
        ([{"a": 1}, 3], "O", (2,)),
    ],
)
def test_predictions_have_the_shape_of_what_the_model_says(
    tmp_path: Path, predictions: list[Any], kind: str, shape: tuple[int, ...]
) -> None:
    """A number, a vector of one length, or a Python value."""
    rows = [pair(n, value, value) for n, value in enumerate(predictions, 1)]
    found = analysis.pairs(write_pairs(tmp_path / "a.zst", rows)).numpy()["primary_prediction"]
    assert (found.dtype.kind, found.shape) == (kind, shape)
    assert found.reshape(len(rows), -1)[0].tolist()[0] in (predictions[0], 1, 0.25, ["a", 1])


def test_batches_are_bounded_in_rows_and_add_up(state: Path) -> None:
    """The last one is what is left."""
    pairs = analysis.pairs(state, columns=["seq"])
    sizes = [batch.num_rows for batch in pairs.batches(rows=15)]
    assert sizes == [15, 15, 10]
    assert pa.Table.from_batches(pairs.batches(rows=7)).equals(pairs.arrow().combine_chunks())
    with pytest.raises(ValueError, match="positive"):
        next(pairs.batches(rows=0))


def test_memory_does_not_grow_with_what_is_read(tmp_path: Path) -> None:
    """Of Python and of Arrow; the whole is refused when it is more than was allowed."""
    body = "x" * 20_000
    template = pair(1, 1, 1, primary_body=orjson.dumps({"y": 1, "text": body}).decode())
    write_pairs(
        tmp_path / "a.zst", ({**template, "seq": n, "request_id": f"r-{n}"} for n in range(2_500))
    )
    pairs = analysis.pairs(tmp_path / "a.zst")
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    most = rows = 0
    for batch in pairs.batches(rows=250):
        rows += batch.num_rows
        most = max(most, pa.total_allocated_bytes() - before)
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == 2_500  # 50 MB of bodies
    assert most < 20_000_000
    assert python < 25_000_000
    with pytest.raises(SourceError, match=r"more than max_bytes \(5 MiB\).*columns="):
        pairs.arrow(max_bytes=5 * 2**20)


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"candidate": "v3", "since": datetime.fromtimestamp(START_MS / 1000 + 7, UTC)},
        {"route": "iris", "until": datetime.fromtimestamp(START_MS / 1000 + 9, UTC)},
        {"route": "other"},
    ],
)
@pytest.mark.parametrize(
    "columns", [(), ("segments.tier", "equal", "primary_prediction", "method")]
)
def test_parquet_is_read_by_columns_to_the_same_result(
    tmp_path: Path, chosen: dict[str, Any], columns: tuple[str, ...]
) -> None:
    """As records are: duplicates, pairs of another version and of another instance included."""
    rows = records()
    rows += [*rows[:7], {**rows[1], "schema_version": "2"}, {**rows[2], "instance": "other"}]
    write_pairs(tmp_path / "a.zst", rows)
    with whole_file(tmp_path / "a.parquet", Format.PARQUET) as stream:
        export(rows, stream, Format.PARQUET)
    by_columns, by_records = (
        analysis.pairs(tmp_path / name, columns=columns, **chosen)
        for name in ("a.parquet", "a.zst")
    )
    assert by_columns.arrow().equals(by_records.arrow())
    one, other = by_columns.statistics(), by_records.statistics()
    assert one is not None
    assert other is not None
    assert (one.pairs, one.duplicates, one.bad) == (other.pairs, other.duplicates, other.bad)
    assert one.source.done == one.source.total


def test_parquet_of_other_hands_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    """A column that was left out is null; other types go the way of records; damage is told."""
    table = analysis.pairs(write_pairs(tmp_path / "a.zst", records())).arrow()
    narrow = tmp_path / "narrow.parquet"
    pq.write_table(table.drop_columns(["candidate_error", "segments"]), narrow)
    found = analysis.pairs(narrow, columns=["candidate_error", "segments.tier", "seq"]).arrow()
    assert [found.column(name).null_count for name in found.column_names] == [COUNT, COUNT, 0]
    place = table.schema.get_field_index("seq")
    small = table.set_column(place, "seq", table.column("seq").cast(pa.int32()))
    pq.write_table(small, tmp_path / "small.parquet")
    assert analysis.pairs(tmp_path / "small.parquet").arrow().equals(table)
    narrow.write_bytes(narrow.read_bytes()[:-40])
    with pytest.raises(SourceError, match="cannot read the Parquet file"):
        analysis.pairs(narrow).arrow()


def test_a_column_that_is_none_is_told_with_the_nearest(state: Path) -> None:
    """Before anything is read; one name alone need not be a list."""
    with pytest.raises(ExportError, match="did you mean 'primary_latency_ms'"):
        analysis.pairs(state, columns=["primary_latency"])
    with pytest.raises(ExportError, match="named twice"):
        analysis.pairs(state, columns=["segments.tier", "segments.tier"])
    assert analysis.pairs(state, columns="seq").arrow().column_names == ["seq"]


def test_a_choice_says_what_it_is(state: Path) -> None:
    """In a notebook, by itself."""
    pairs = analysis.pairs("./state", candidate="v2", since="2026-03-01", columns=["seq"])
    said = "pairs('./state', candidate='v2', since='2026-03-01T00:00:00.000Z', columns=('seq',))"
    assert repr(pairs) == said


def test_nothing_at_a_path_is_an_error_that_says_so(tmp_path: Path) -> None:
    """When it is read, since only then it is looked at."""
    with pytest.raises(SourceError, match="there is nothing at"):
        analysis.pairs(tmp_path / "gone").arrow()


@pytest.mark.kafka
def test_a_topic_is_read_inside_a_running_event_loop(kafka_bootstrap: str) -> None:
    """As in a notebook's kernel, where a loop runs already; also when the reading is given up."""
    from tests.analysis.test_kafka_source import produce  # noqa: PLC0415

    name = "frames-in-a-loop.pairs.v1"
    create_topic(kafka_bootstrap, name)
    produce(kafka_bootstrap, name, records())
    pairs = analysis.pairs(f"kafka://{kafka_bootstrap}/{name}", columns=["seq"])

    async def cell() -> list[int]:
        assert next(pairs.batches(rows=3)).num_rows == 3
        return sorted(pairs.numpy()["seq"].tolist())

    assert asyncio.run(cell()) == sorted(pairs.numpy()["seq"].tolist()) == [*range(1, COUNT + 1)]


def test_the_package_is_cheap_to_import_and_says_what_is_missing(state: Path) -> None:
    """Neither numpy nor pyarrow nor pydantic before a name is used; without them an error with a cure."""
    script = (
        "import sys\nfrom proxy import analysis\n"
        "heavy = {'numpy', 'pyarrow', 'polars', 'pydantic', 'jinja2', 'aiokafka'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "assert {*analysis.__all__} <= {*dir(analysis)}\n"
        "sys.modules['pyarrow'] = sys.modules['polars'] = None\n"
        f"pairs = analysis.pairs({str(state)!r})\n"
        "for read in (pairs.arrow, pairs.polars, pairs.numpy, lambda: next(pairs.batches())):\n"
        "    try:\n        read()\n"
        "    except analysis.frames.SourceError as exc:\n"
        "        assert \"pip install 'understudy[analysis]'\" in str(exc)\n"
        "    else:\n        raise AssertionError(read)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=START_PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = analysis.nothing
