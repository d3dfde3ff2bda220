"""`understudy labels import`, to a real instance and to a real broker, and what `compare` makes of it."""

from __future__ import annotations

import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.support.deadline import PATIENCE_S, START_PATIENCE_S, wait_for
from tests.support.instance import running, understudy
from tests.support.kafka_topics import consume, create_topic


def labels(path: Path, numbers: range, *more: str) -> Path:
    """Write a label per number, and `more` lines."""
    lines = [orjson.dumps({"request_id": f"r-{n}", "label": n}).decode() for n in numbers]
    path.write_text("\n".join([*lines, *more]))
    return path


def test_a_file_reaches_the_instance_and_bad_lines_are_named(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    """In several requests; exit code 1 says that something was left out."""
    path = labels(tmp_path / "labels.ndjson", range(12_000), "{", '{"request_id": "x"}')
    with running(config, tmp_path) as instance:
        done = instance.cli("labels", "import", str(path))
        assert done.returncode == 1
        assert done.stdout == "12,000 labels taken, 2 lines left out\n"
        assert "line 12001 is not JSON" in done.stderr
        assert "line 12002 label: is missing" in done.stderr
        again = instance.cli("labels", "import", str(labels(path, range(5))), "--json")
        assert again.returncode == 0
        assert orjson.loads(again.stdout) == {"accepted": 5, "refused": 0, "errors": []}
        status = wait_for(
            lambda: (s := instance.status())["labels"].get("acknowledged", 0) == 12_005 and s,
            "labels in their files",
        )
        assert status["labels"]["accepted"] == 12_005
        wait_for(instance.is_healthy, "health")
        assert "labels sink" in instance.cli("status").stdout
    assert list((tmp_path / "state" / "labels").glob("labels-*.ndjson.zst"))


def test_labels_join_the_pairs_that_the_proxy_recorded(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    """Sent before and after their requests; a later one replaces an earlier one."""
    with running(config, tmp_path) as instance:
        right = {"from": "primary"}
        early = orjson.dumps({"request_id": "r-0", "label": right})
        kind = {"content-type": "application/x-ndjson"}
        url = f"{instance.admin_url}/api/v1/labels"
        assert httpx.post(url, content=early, headers=kind, timeout=PATIENCE_S).status_code == 200
        with httpx.Client(base_url=instance.base_url, timeout=PATIENCE_S) as user:
            for number in range(4):
                answer = user.post("/", json={}, headers={"x-request-id": f"r-{number}"})
                assert answer.status_code == 200
        lines = [
            {"request_id": "r-1", "label": right},
            {"request_id": "r-2", "label": right, "ts_ms": 1},
            {"request_id": "r-2", "label": {"from": "candidate"}, "ts_ms": 2},
        ]
        path = tmp_path / "late.ndjson"
        path.write_bytes(b"\n".join(map(orjson.dumps, lines)))
        assert instance.cli("labels", "import", str(path)).returncode == 0
        wait_for(
            lambda: (
                instance.status()["labels"].get("acknowledged", 0) == 4
                and sum(r["acknowledged"] for r in instance.status()["recorders"]) == 4
            ),
            "pairs and labels",
        )
        state = str(tmp_path / "state")
        done = understudy("compare", "--from", state, "--json")
        (comparison,) = orjson.loads(done.stdout)["comparisons"]
        correctness = comparison["correctness"]
        assert correctness["labelled"] == 3
        assert (correctness["only_primary"], correctness["only_candidate"]) == (2, 1)
        table = understudy("compare", "--from", state)
        assert "right 66.7% 33.3%" in " ".join(table.stdout.split())


@pytest.mark.kafka
def test_a_file_goes_straight_to_a_topic(kafka_bootstrap: str, tmp_path: Path) -> None:
    """Acknowledged before the command ends, from standard input as well."""
    topic = f"direct-{uuid.uuid4().hex[:8]}.labels.v1"
    create_topic(kafka_bootstrap, topic)
    to = f"kafka://{kafka_bootstrap}/{topic}"
    path = labels(tmp_path / "labels.ndjson", range(1_000))
    command = [sys.executable, "-m", "proxy", "labels", "import", "-", "--to", to]
    done = subprocess.run(
        command, input=path.read_bytes(), capture_output=True, timeout=START_PATIENCE_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"1,000 labels taken, 0 lines left out\n"
    messages = consume(kafka_bootstrap, topic, 1_000)
    assert {m.key() for m in messages} == {f"r-{n}".encode() for n in range(1_000)}


def test_what_cannot_be_reached_is_one_line_and_exit_1(tmp_path: Path) -> None:
    """Never a traceback."""
    path = str(labels(tmp_path / "labels.ndjson", range(3)))
    for words, told in (
        ((path, "--admin", "http://127.0.0.1:1"), "cannot reach http://127.0.0.1:1"),
        ((path, "--to", "http://x/y"), "write kafka://HOST:PORT/TOPIC"),
        ((str(tmp_path / "none"), "--admin", "http://127.0.0.1:1"), "none: No such file"),
    ):
        done = understudy("labels", "import", *words)
        assert (done.returncode, done.stdout) == (1, "")
        assert told in done.stderr
        assert done.stderr.count("\n") == 1
