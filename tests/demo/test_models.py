"""The demo's models are as good and as bad as its story needs, and survive being saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from proxy.demo.models import CLASSES, FEATURES, HELD_OUT, load_model
from tests.support.models import digits, trained


def test_the_held_out_rows_are_in_no_training() -> None:
    """No traffic row is among those that a model learns from (but for true duplicates)."""
    data = digits()
    seen = {row.tobytes() for row in data.training_rows}
    assert data.held_out_rows.shape == (HELD_OUT, FEATURES)
    assert sum(row.tobytes() in seen for row in data.held_out_rows) == 0
    assert set(data.held_out_labels.tolist()) == set(range(CLASSES))


@pytest.mark.parametrize(
    ("name", "low", "high"),
    [("digits-v1", 0.90, 0.955), ("digits-v2", 0.97, 1.0), ("digits-v3", 0.70, 0.86)],
)
def test_each_model_has_its_place(name: str, low: float, high: float) -> None:
    """The primary is decent, the better candidate clearly better, the bad one clearly worse."""
    assert low <= trained(name).accuracy <= high


def test_a_saved_model_predicts_the_same(tmp_path: Path) -> None:
    """Labels and probabilities come back bit for bit, and the label is the most probable class."""
    model = trained("digits-v2").model
    model.save(tmp_path / "model")
    rows = digits().held_out_rows[:16]
    labels, probabilities = model.predict(rows)
    again_labels, again = load_model(tmp_path / "model").predict(rows)
    assert np.array_equal(labels, again_labels)
    assert np.array_equal(probabilities, again)
    assert np.allclose(probabilities.sum(axis=1), 1.0)
    assert np.array_equal(labels, probabilities.argmax(axis=1))
