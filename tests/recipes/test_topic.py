"""Spark, kcat and our own commands read what the proxy really shipped to Kafka."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import orjson
import pytest

from tests.recipes.kernel import run, shown
from tests.recipes.recorded import Recorded, Topic
from tests.recipes.texts import RECIPES, readme_block
from tests.support.deadline import START_PATIENCE_S
from tests.support.instance import understudy
from tests.support.spark import run_spark

BOOTSTRAP, NAME = "127.0.0.1:9092", "shadow.pairs.v1"


def _source(topic: Topic) -> str:
    return f"kafka://{topic.bootstrap}/{topic.name}"


@pytest.mark.kafka
def test_a_topic_is_exported_whole(topic: Topic, tmp_path: Path) -> None:
    """Each pair once, as it was shipped."""
    out = tmp_path / "pairs.ndjson"
    done = understudy(
        "pairs", "export", "--from", _source(topic), "--to", "ndjson", "--out", str(out)
    )
    assert done.returncode == 0, done.stderr
    found = [orjson.loads(line) for line in out.read_bytes().splitlines()]
    assert sorted(found, key=str) == sorted(topic.records, key=str)


@pytest.mark.kafka
def test_a_pair_of_a_topic_is_shown_by_either_id(topic: Topic) -> None:
    """Found by its time, or anywhere."""
    wanted = topic.records[-1]
    for identity in (wanted["pair_id"], wanted["request_id"]):
        done = understudy("pairs", "show", identity, "--from", _source(topic), "--json")
        assert orjson.loads(done.stdout) == wanted


@pytest.mark.kafka
@pytest.mark.slow
def test_a_notebook_reads_the_topic_beside_its_kernels_own_event_loop(
    topic: Topic, tmp_path: Path
) -> None:
    """That loop runs already, which asyncio does not let another one do."""
    count = sum(record["route"] == "score" for record in topic.records)
    cells = run(tmp_path, _source(topic), last="few.statistics()")
    assert f"pairs={count}," in shown(cells, "few.statistics()")["text/plain"]


@pytest.mark.real_kafka
@pytest.mark.slow
def test_spark_streams_the_topic_and_counts(
    topic: Topic, kafka_cache: Path, tmp_path: Path
) -> None:
    """By what the recipe's head says, word for word but for the address."""
    ddl = tmp_path / "pair.ddl"
    ddl.write_text(understudy("schema", "pair", "--dialect", "spark").stdout)
    script = RECIPES / "agreement.spark.py"
    shown = run_spark(script, topic.bootstrap, topic.name, str(ddl), "out", cwd=tmp_path)
    assert "candidate_p99_ms" in shown
    lines = b"".join(path.read_bytes() for path in (tmp_path / "out/agreement").glob("*.json"))
    rows = [orjson.loads(line) for line in lines.splitlines()]
    for route in ("score", "rank"):
        records = [record for record in topic.records if record["route"] == route]
        mine = [row for row in rows if row["route"] == route]
        for name, wanted in (
            ("pairs", len(records)),
            ("compared", sum(record["comparable"] for record in records)),
            ("equal", sum(record["equal"] is True for record in records)),
            ("stands_for", sum(r["sample_weight"] for r in records if r["comparable"])),
        ):
            assert sum(row[name] for row in mine) == wanted, (route, name)


def _pipeline(program: str) -> str:
    """Return one of the pipelines in the README; skip where a program of it is missing.

    CI must have them: `.ci/run` installs them.
    """
    missing = [name for name in (program, "jq") if shutil.which(name) is None]
    if missing:
        message = f"no {' and '.join(missing)} here; on Debian: apt-get install kcat jq zstd"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    block = readme_block("sh", f"{program} ")
    start = block.index(f"{program} ")
    end = block.find("\n", block.index("jq ", start))
    return block[start:end]


@pytest.mark.kafka
def test_kcat_reads_the_topic(topic: Topic) -> None:
    """The README's pipeline, word for word but for the address and the topic's name."""
    text = _pipeline("kcat").replace(BOOTSTRAP, topic.bootstrap).replace(NAME, topic.name)
    done = subprocess.run(
        ["bash", "-c", text], capture_output=True, text=True, check=True, timeout=START_PATIENCE_S
    )
    # jq writes 2.0 as 2, so the rows are compared as values and not as text.
    found = Counter(tuple(orjson.loads(line)) for line in done.stdout.splitlines())
    names = ("route", "candidate", "equal", "candidate_latency_ms")
    assert found == Counter(tuple(record[name] for name in names) for record in topic.records)


def test_zstdcat_reads_the_log(recorded: Recorded) -> None:
    """The README's pipeline, word for word."""
    done = subprocess.run(
        ["bash", "-c", _pipeline("zstdcat")], cwd=recorded.folder,
        capture_output=True, text=True, check=True, timeout=START_PATIENCE_S,
    )  # fmt: skip
    found = [orjson.loads(line)["request_id"] for line in done.stdout.splitlines()]
    wanted = [each["request_id"] for each in recorded.records if each["equal"] is False]
    assert sorted(found) == sorted(wanted)
