"""How an instance stands among its replicas is told to people, probes and programs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest

from proxy.cli.status_tables import print_status
from proxy.config.resolved import ReplicaGroup
from proxy.control.metrics import exposition
from proxy.control.status import status
from proxy.telemetry import wall_ns
from tests.support.admin import Instance

OTHER = {"instance": "b", "lives": True, "heard_s": 0.1, "config_version": "other"}


def seen(instance: Instance, **more: Any) -> dict[str, Any]:
    """Let control write down how it stands; return the status document."""
    instance.observer.config = replace(instance.config, replicas=ReplicaGroup("shop", 6.0))
    content = {
        "updated_ms": wall_ns() // 1_000_000, "state": "connected", "group": "shop", "leader": "b",
        "leads": False, "term": 1, "trouble": "", "replicas": [], **more,
    }  # fmt: skip
    (instance.state_dir / "replicas-seen.json").write_bytes(orjson.dumps(content))
    return status(instance.observer.snapshot())


def test_an_instance_without_replicas_says_that_it_is_on_its_own(
    instance: Instance, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the document, on the terminal and in the metrics; it is no problem."""
    found = status(instance.observer.snapshot())
    assert found["replicas"]["state"] == "alone"
    assert found["problems"] == []
    print_status(found)
    assert "replicas: on its own (no `replicas:` in the config)" in capsys.readouterr().out
    assert (
        'understudy_replica_state{state="alone"} 1.0'
        in exposition(instance.observer, "")[0].decode()
    )


def test_a_replica_says_who_leads(instance: Instance, capsys: pytest.CaptureFixture[str]) -> None:
    """And whom it hears."""
    found = seen(instance, replicas=[{**OTHER, "config_version": instance.config.version}])
    assert found["problems"] == []
    print_status(found)
    assert "replicas: connected; group shop: b; b leads" in capsys.readouterr().out
    text = exposition(instance.observer, "")[0].decode()
    assert "understudy_replicas_living 1.0" in text
    assert "understudy_replica_leads 0.0" in text


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (
            {"state": "cut_off", "trouble": "no broker"},
            "cut off from the others: no broker; weights stay",
        ),
        ({"state": "joining", "trouble": "no topic"}, "not joined yet: no topic"),
        ({"updated_ms": 1}, "cut off from the others: control is down"),
        ({"has_twin": True}, "another one calls itself test, too"),
        ({"lead_trouble": "no right"}, "this one cannot lead: no right"),
        ({"page_trouble": "corrupt"}, "what is agreed on is not in effect: corrupt"),
        ({"unread": 2}, "2 messages could not be read"),
        ({"replicas": [OTHER]}, "b runs config other"),
    ],
)
def test_what_is_wrong_is_a_problem(instance: Instance, more: dict[str, Any], words: str) -> None:
    """One sentence each."""
    (problem,) = seen(instance, **more)["problems"]
    assert words in problem
