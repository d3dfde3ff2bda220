"""The three models of the demo, trained on the digits data that comes with scikit-learn.

Decides the split, the models and how a batch becomes labels and probabilities. How they are
served is `proxy.demo.server`'s business.

The held-out rows never meet a training: they are the traffic of the demo, and the accuracies that
it shows are measured on them. Everything is seeded, so every run trains the same models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from proxy.telemetry import monotonic_s

#: An image of 8 by 8 grey values from 0 to 16.
FEATURES: Final = 64
CLASSES: Final = 10
HELD_OUT: Final = 600
_SEED: Final = 0

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Spec:
    """A model before it is trained.

    Attributes:
        name: what people call it; `version` is what its answers say.
        role: its part in the demo.
        summary: what it is, in a few words.
        training_rows: how many rows it sees; 0 means all.
    """

    name: str
    version: str
    role: str
    summary: str
    training_rows: int
    build: Callable[[], Any]


def _linear() -> Any:
    return LogisticRegression(C=0.01, max_iter=2_000)


def _network() -> Any:
    return MLPClassifier(
        (128,), alpha=3.0, learning_rate_init=3e-3, tol=1e-3, max_iter=300, random_state=_SEED
    )


#: The primary, the better candidate and the bad one.
SPECS: Final = (
    Spec("digits-v1", "1", "primary", "logistic regression, 300 rows", 300, _linear),
    Spec("digits-v2", "2", "better candidate", "neural network, all rows", 0, _network),
    Spec("digits-v3", "3", "bad candidate", "logistic regression, 60 rows", 60, _linear),
)


@dataclass(frozen=True, slots=True)
class Digits:
    """The data, split: rows are `(n, 64)` floats, labels `(n,)` integers from 0 to 9."""

    training_rows: Floats
    training_labels: Integers
    held_out_rows: Floats
    held_out_labels: Integers


def load_data() -> Digits:
    """Return the digits, split the same way every time, with every class in its proportion."""
    rows, labels = load_digits(return_X_y=True)
    split = train_test_split(rows, labels, test_size=HELD_OUT, random_state=_SEED, stratify=labels)
    training, held_out, training_labels, held_out_labels = split
    return Digits(
        np.asarray(training, dtype=np.float64),
        np.asarray(training_labels, dtype=np.int64),
        np.asarray(held_out, dtype=np.float64),
        np.asarray(held_out_labels, dtype=np.int64),
    )


class DigitModel:
    """A trained classifier."""

    def __init__(self, estimator: Any) -> None:
        self._estimator = estimator

    def predict(self, rows: Floats) -> tuple[Integers, Floats]:
        """Return the labels `(n,)` and the probabilities `(n, 10)` of rows `(n, 64)`.

        The label is the most probable class, which is how these estimators predict; asking once
        for both halves the cost.
        """
        probabilities = np.asarray(self._estimator.predict_proba(rows), dtype=np.float64)
        classes = np.asarray(self._estimator.classes_, dtype=np.int64)
        if probabilities.shape[1] != CLASSES:  # a class that the training rows did not show
            seen, probabilities = probabilities, np.zeros((len(rows), CLASSES))
            probabilities[:, classes] = seen
        return probabilities.argmax(axis=1), probabilities

    def save(self, path: Path) -> None:
        """Write the model; `load_model` reads it back."""
        joblib.dump(self._estimator, path)


def load_model(path: Path) -> DigitModel:
    """Return the model that `DigitModel.save` wrote. Only for files of one's own: it is a pickle."""
    return DigitModel(joblib.load(path))


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model, its accuracy on the held-out rows and what the training took."""

    spec: Spec
    model: DigitModel
    accuracy: float
    training_rows: int
    seconds: float


def train(spec: Spec, digits: Digits) -> Trained:
    """Train one model and measure it on the held-out rows."""
    started_s = monotonic_s()
    count = spec.training_rows or len(digits.training_rows)
    estimator = spec.build()
    with threadpool_limits(1):  # so little data is slower with more
        estimator.fit(digits.training_rows[:count], digits.training_labels[:count])
        seconds = monotonic_s() - started_s
        model = DigitModel(estimator)
        labels, _ = model.predict(digits.held_out_rows)
    accuracy = float((labels == digits.held_out_labels).mean())
    return Trained(spec, model, accuracy, count, seconds)
