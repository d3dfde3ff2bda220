"""config/alerts.yaml: it is a rule file, and speaks of metrics that there are."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from proxy.control.metrics import exposition
from tests.support.admin import Instance

ALERTS = Path(__file__).parents[2] / "config" / "alerts.yaml"
_SELECTOR = re.compile(r"(understudy_[a-z0-9_]+)(?:\{([^}]*)\})?")
_LABEL = re.compile(r'([a-z_]+)(?:=~|!=|=|!~)"([^"]*)"')


def rules() -> list[dict[str, Any]]:
    """Return every rule."""
    return [
        rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]
    ]


@pytest.fixture
def samples(instance: Instance) -> dict[str, list[dict[str, str]]]:
    """Every sample that an instance tells before its first request: labels by name."""
    text, _ = exposition(instance.observer, "text/plain")
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample.labels)
    return found


def test_every_rule_says_what_is_wrong_and_what_to_do() -> None:
    """A name of its own, a severity, a summary with the instance, a description."""
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names) > 10
    for rule in rules():
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["alert"].startswith("Understudy")
        assert rule["labels"]["severity"] in ("page", "ticket", "info")
        assert set(rule["annotations"]) == {"summary", "description"}
        if not rule["expr"].startswith("absent"):
            assert "$labels.instance" in rule["annotations"]["summary"]


def test_every_metric_and_label_value_in_a_rule_exists(
    samples: dict[str, list[dict[str, str]]],
) -> None:
    """An alert on a metric that was renamed never fires, and nobody notices."""
    for rule in rules():
        selectors = _SELECTOR.findall(rule["expr"])
        assert selectors, rule["alert"]
        for name, labels in selectors:
            assert name in samples, f"{rule['alert']}: {name}"
            for label, values in _LABEL.findall(labels):
                known = {each.get(label) for each in samples[name]}
                assert set(values.split("|")) <= known, f"{rule['alert']}: {label}"


def test_every_label_that_a_rule_names_is_there(
    samples: dict[str, list[dict[str, str]]],
) -> None:
    """An empty name in a page at night helps nobody."""
    for rule in rules():
        names = [name for name, _ in _SELECTOR.findall(rule["expr"])]
        known = {"instance"} | {label for name in names for each in samples[name] for label in each}
        used = set(re.findall(r"\$labels\.([a-z_]+)", str(rule["annotations"])))
        grouped = {word.strip() for by in re.findall(r"by \(([^)]*)\)", rule["expr"]) for word in by.split(",")}  # fmt: skip
        assert used | grouped <= known, rule["alert"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_rules() -> None:
    """Their expressions, too."""
    command = ["promtool", "check", "rules", str(ALERTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
