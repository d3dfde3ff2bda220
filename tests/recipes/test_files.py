"""DuckDB, Polars and ClickHouse answer the usual questions from what the proxy really wrote."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from types import ModuleType
from typing import Any

import duckdb
import orjson
import pytest

from tests.recipes import expected
from tests.recipes.recorded import Recorded
from tests.recipes.texts import RECIPES, questions, readme_block
from tests.support.deadline import START_PATIENCE_S
from tests.support.instance import understudy

LOG, PARQUET = "state/pairs/*.ndjson.zst", "pairs.parquet"
KEYS = 2


def labels_of(recorded: Recorded) -> dict[str, Any]:
    """Return the label of each request that has one."""
    lines = (recorded.folder / "labels.ndjson").read_bytes().splitlines()
    return {label["request_id"]: label["label"] for label in map(orjson.loads, lines)}


def keyed(rows: list[dict[str, Any]], keys: int = KEYS) -> expected.Answer:
    """Return rows by the values of their first columns."""
    found = {}
    for row in rows:
        names = list(row)
        found[tuple(row[name] for name in names[:keys])] = {
            name: row[name] for name in names[keys:]
        }
    assert len(found) == len(rows)
    return found


def counted(rows: list[dict[str, Any]]) -> dict[expected.Key, int]:
    """Return how often each combination of statuses occurs."""
    return {tuple(row.values())[:-1]: row["pairs"] for row in rows}


@pytest.fixture(params=[LOG, PARQUET])
def answers(
    request: pytest.FixtureRequest, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> list[list[dict[str, Any]]]:
    """Return DuckDB's rows for each question, from the local log or from the export."""
    monkeypatch.chdir(recorded.folder)
    db = duckdb.connect()
    if request.param == LOG:
        db.execute(understudy("schema", "pair", "--dialect", "duckdb").stdout)
    view = "read_pairs(" if request.param == LOG else f"'{PARQUET}'"
    db.execute(readme_block("sql", view))
    found = []
    for text in questions("questions.duckdb.sql").values():
        rows = db.execute(text)
        names = [column[0] for column in rows.description or ()]
        found.append([dict(zip(names, row, strict=True)) for row in rows.fetchall()])
    return found


def test_the_traffic_has_something_of_everything(recorded: Recorded) -> None:
    """Else the recipes could be wrong unseen."""
    records = recorded.records
    assert {record["equal"] for record in records} == {True, False, None}
    assert {record["replicate_equal"] for record in records} == {True, False, None}
    assert {record["sample_weight"] for record in records} == {1.0, 2.0}
    assert {record["candidate_http_status"] for record in records} == {200, 500}


def test_duckdb_answers_every_question(
    answers: list[list[dict[str, Any]]], recorded: Recorded
) -> None:
    """From the log and from Parquet alike."""
    records = recorded.records
    hours, most, latency, errors, weighted, noise, right = answers
    assert keyed(hours, 3) == expected.by_hour(records)
    assert [(row["request_id"], row["abs_diff"]) for row in most] == expected.worst(records)
    for row in latency:
        row.pop("paired_ms")
    assert keyed(latency) == expected.latency(records)
    assert counted(errors) == expected.errors(records)
    assert keyed(weighted) == expected.weighted(records)
    assert keyed(noise) == expected.noise(records)
    assert keyed(right) == expected.right(records, labels_of(recorded))


@pytest.fixture
def polars_recipe() -> ModuleType:
    """Return the recipe as a module."""
    path = RECIPES / "questions.polars.py"
    spec = importlib.util.spec_from_file_location("questions_polars", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("source", [LOG, PARQUET])
def test_polars_answers_every_question(
    polars_recipe: ModuleType, recorded: Recorded, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    """From the log and from Parquet alike."""
    monkeypatch.chdir(recorded.folder)
    recipe, records = polars_recipe, recorded.records
    pairs = recipe.read(source)

    def rows(question: Callable[..., Any], *more: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = question(pairs, *more).collect().to_dicts()
        return found

    assert keyed(rows(recipe.differ_by_hour), 3) == expected.by_hour(records)
    most = [(row["request_id"], row["abs_diff"]) for row in rows(recipe.worst)]
    assert [diff for _, diff in most] == [diff for _, diff in expected.worst(records)]
    quantiles = {
        key: {
            f"{side}_ms": [row[f"{side}_p{q}_ms"] for q in (50, 95, 99)]
            for side in ("primary", "candidate")
        }
        for key, row in keyed(rows(recipe.latency)).items()
    }
    assert quantiles == expected.latency(records)
    assert counted(rows(recipe.errors)) == expected.errors(records)
    assert keyed(rows(recipe.weighted)) == expected.weighted(records)
    assert keyed(rows(recipe.noise)) == expected.noise(records)
    right = keyed(rows(recipe.right, "labels.ndjson"))
    assert right == expected.right(records, labels_of(recorded))


def test_the_polars_recipe_runs_as_its_head_says(recorded: Recorded) -> None:
    """As a command, with each question and its answer."""
    done = subprocess.run(
        [sys.executable, str(RECIPES / "questions.polars.py"), PARQUET, "labels.ndjson"],
        cwd=recorded.folder, capture_output=True, text=True, check=True, timeout=START_PATIENCE_S,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout.count("?") >= 7
    assert "candidate_right" in done.stdout


def test_the_readmes_snippet_for_polars_runs(recorded: Recorded) -> None:
    """The agreement of each candidate, straight from the log."""
    done = subprocess.run(
        [sys.executable, "-c", readme_block("python", "import polars")],
        cwd=recorded.folder, capture_output=True, text=True, check=True, timeout=START_PATIENCE_S,
    )  # fmt: skip
    assert "score" in done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="chdb-core-lite is for Linux")
def test_clickhouse_answers_its_questions(recorded: Recorded) -> None:
    """Loaded from the log as the README says, twice: what came again is counted once.

    In a process of its own, because ClickHouse lives in one for good.
    """
    table = understudy("schema", "pair", "--dialect", "clickhouse").stdout
    load = readme_block("sql", "FROM INFILE").rstrip().rstrip(";")
    statements = [table, load, load, *questions("questions.clickhouse.sql").values()]
    script = (
        "import json, sys\nfrom chdb.session import Session\ndb = Session()\n"
        "for text in json.load(sys.stdin):\n"
        "    answer = db.query(text, 'JSON').bytes() or b'{}'\n"
        "    print(json.dumps(json.loads(answer).get('data')))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=orjson.dumps(statements), cwd=recorded.folder,
        capture_output=True, check=False, timeout=START_PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    hours, latency, errors, weighted = map(orjson.loads, done.stdout.splitlines()[3:])
    for row in hours:
        row["hour_utc"] = datetime.fromisoformat(row["hour_utc"])
        row |= {name: int(row[name]) for name in ("pairs", "compared")}
    assert keyed(hours, 3) == expected.by_hour(recorded.records)
    assert keyed(latency) == expected.latency(recorded.records, method="higher")
    for row in errors:
        row["pairs"] = int(row["pairs"])
        row["candidate_http_status"] = int(row["candidate_http_status"])
    assert counted(errors) == expected.errors(recorded.records)
    assert keyed(weighted) == expected.weighted(recorded.records)
