"""What is told of the decisions log: the last ones, the line of the ledger, metrics and troubles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.config.resolved import Kafka
from proxy.control.ledger import ledger
from proxy.control.metrics import exposition
from proxy.control.problems import problems
from proxy.control.snapshot import Observer
from proxy.control.status import status
from proxy.state import decisions
from proxy.state.decision_files import FILE_NAME, SHIPPED_NAME
from proxy.state.decision_record import Decision
from tests.recorder.support import config_for

KAFKA = Kafka(("127.0.0.1:1",), "shadow", {})
DOWN = {"state": "broker_down", "message": "no broker", "remedy": "start it"}


@pytest.fixture
def observer(tmp_path: Path) -> Observer:
    """An instance with Kafka that has taken seven decisions."""
    for number in range(1, 8):
        decisions.append(
            tmp_path,
            Decision(number, "weight", "ann", "api", "iris/v2", 0, number, "r", evidence={"a": 1}),
        )
    return Observer(config_for(tmp_path, kafka=KAFKA))


def told(observer: Observer, **accounts: int) -> dict[str, Any]:
    """Let the recorder have shipped so many; return what status says."""
    shipped = {"seq": sum(accounts.values()), "accounts": accounts}
    (observer.state_dir / SHIPPED_NAME).write_bytes(orjson.dumps(shipped))
    found: dict[str, Any] = status(observer.snapshot())["decisions"]
    return found


def test_the_ledger_and_the_metrics_settle_every_decision(observer: Observer) -> None:
    """Acknowledged, dropped by reason, or still under way; the last ones without their evidence."""
    found = told(observer, acknowledged=4, **{"dropped.damaged": 1})
    assert (found["written"], found["acknowledged"], found["dropped"]) == (7, 4, {"damaged": 1})
    assert [each["new"] for each in found["last"]] == [7, 6, 5, 4, 3]
    assert not {"evidence", "diff"} & found["last"][0].keys()
    line = next(each for each in ledger(observer.snapshot()) if each.name == "decisions written")
    assert (line.total, line.parts, line.open) == (7, {"acknowledged": 4, "dropped damaged": 1}, 2)
    text = exposition(observer, "")[0].decode()
    for sample in (
        "understudy_decisions_written_total 7.0",
        "understudy_decisions_acknowledged_total 4.0",
        'understudy_decisions_dropped_total{reason="damaged"} 1.0',
        "understudy_decisions_in_memory 0.0",
    ):
        assert sample in text
    assert any("1 are not in their topic" in each for each in problems(observer.snapshot()))


def test_troubles_of_the_log_and_of_its_topic_are_told(observer: Observer) -> None:
    """What the shipper says, what waits in memory, and a log that cannot be read."""
    told(observer, acknowledged=7)
    assert not [each for each in problems(observer.snapshot()) if "decisions" in each]
    (observer.state_dir / "decisions.json").write_bytes(orjson.dumps(DOWN))
    words = "decisions: broker_down: no broker; to mend it, start it"
    assert words in problems(observer.snapshot())
    (observer.state_dir / FILE_NAME).unlink()
    (observer.state_dir / FILE_NAME).mkdir()
    assert decisions.append_all(
        observer.state_dir, (Decision(1, "kill", "a", "b", "*", 1, 2, "c"),)
    )
    found = problems(observer.snapshot())
    assert any("1 wait in the memory of control" in each for each in found)
    assert any("cannot read" in each for each in found)
