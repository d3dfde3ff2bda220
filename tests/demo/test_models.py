"""The demo's models are as good and as bad as its story needs, and survive being saved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from proxy.demo.classifiers import CLASSES, FEATURES, load_model, misordered
from proxy.demo.models import HELD_OUT
from tests.support.models import digits, trained


def test_the_held_out_rows_are_in_no_training() -> None:
    """No traffic row is among those that a model learns from (but for true duplicates)."""
    data = digits()
    seen = {row.tobytes() for row in data.training_rows}
    assert data.held_out_rows.shape == (HELD_OUT, FEATURES)
    assert sum(row.tobytes() in seen for row in data.held_out_rows) == 0
    assert set(data.held_out_labels.tolist()) == set(range(CLASSES))


@pytest.mark.parametrize("name", ["digits-v1", "digits-v2", "digits-v3"])
def test_each_model_passes_the_test_before_its_release(name: str) -> None:
    """None of them can be told from the others by it."""
    assert abs(trained(name).accuracy - trained("digits-v1").accuracy) <= 0.005
    assert trained(name).accuracy >= 0.94


def test_the_good_candidate_is_as_good_and_the_other_one_is_not() -> None:
    """As served: eight bits change next to nothing, features in the wrong order some answers."""
    rows = digits().held_out_rows
    first, second, third = (
        trained(name).model.predict(rows)[0] for name in ("digits-v1", "digits-v2", "digits-v3")
    )
    assert (first != second).mean() <= 0.005
    assert 0.04 <= (first != third).mean() <= 0.08
    assert np.array_equal(misordered(misordered(rows)), rows)
    assert (misordered(rows) != rows).any(axis=0).sum() == 16


@pytest.mark.parametrize("name", ["digits-v1", "digits-v2", "digits-v3"])
def test_a_saved_model_predicts_the_same(tmp_path: Path, name: str) -> None:
    """Labels and probabilities come back bit for bit, and the label is the most probable class."""
    model = trained(name).model
    model.save(tmp_path / "model")
    rows = digits().held_out_rows[:16]
    labels, probabilities = model.predict(rows)
    again_labels, again = load_model(tmp_path / "model").predict(rows)
    assert np.array_equal(labels, again_labels)
    assert np.array_equal(probabilities, again)
    assert np.allclose(probabilities.sum(axis=1), 1.0)
    assert np.array_equal(labels, probabilities.argmax(axis=1))
