"""The three models of the demo: a regression on the digits that come with scikit-learn, and two rewrites.

Decides the split and the training. What the models do once they are trained is
`proxy.demo.classifiers`' business, how they are served `proxy.demo.server`'s.

The held-out rows never meet a training: they are the traffic of the demo, and the accuracies that
it shows are measured on them. Everything is seeded, so every run trains the same models.

The candidates hold the primary's own weights in whole numbers, as one would to serve a model with
less memory and without its library. Both pass the test that a team would run before a release. One
of them is served behind code that the test does not go through, and there is the mistake: it hands
sixteen of the features to the model in the wrong order. Most answers are right all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from threadpoolctl import threadpool_limits

from proxy.demo.classifiers import (
    DigitModel,
    EightBit,
    Floats,
    Integers,
    as_they_are,
    misordered,
)
from proxy.telemetry import monotonic_s

HELD_OUT: Final = 600
_SEED: Final = 0
#: Of the regression: the smaller, the smoother.
_INVERSE_PENALTY: Final = 0.01


@dataclass(frozen=True, slots=True)
class Spec:
    """A model before it is trained.

    Attributes:
        name: what people call it; `version` is what its answers say.
        role: its part in the demo.
        summary: what it is, in a few words.
        build: returns it, trained on `(n, 64)` rows and `(n,)` labels.
        read: what its server makes of the rows before the model sees them.
    """

    name: str
    version: str
    role: str
    summary: str
    build: Callable[[Floats, Integers], Any]
    read: Callable[[Floats], Floats]


def regression(rows: Floats, labels: Integers) -> Any:
    """Return a logistic regression as scikit-learn makes it."""
    return LogisticRegression(C=_INVERSE_PENALTY, max_iter=2_000).fit(rows, labels)


def eight_bit(rows: Floats, labels: Integers) -> Any:
    """Return the same regression, rewritten."""
    return EightBit(regression(rows, labels))


#: The primary, the candidate that is as good, and the one that is served with a mistake.
SPECS: Final = (
    Spec("digits-v1", "1", "primary", "logistic regression of scikit-learn", regression, as_they_are),
    Spec("digits-v2", "2", "candidate", "its weights in 8 bits, no scikit-learn", eight_bit,
         as_they_are),
    Spec("digits-v3", "3", "candidate", "v2, but its server mixes up 16 features", eight_bit,
         misordered),
)  # fmt: skip


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


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model.

    Attributes:
        model: as it is served.
        accuracy: on the held-out rows, in the team's own test: the model alone, without its server.
        seconds: that the training took.
    """

    spec: Spec
    model: DigitModel
    accuracy: float
    seconds: float


def train(spec: Spec, digits: Digits) -> Trained:
    """Train one model and measure it on the held-out rows."""
    started_s = monotonic_s()
    with threadpool_limits(1):  # so little data is slower with more
        estimator = spec.build(digits.training_rows, digits.training_labels)
        seconds = monotonic_s() - started_s
        labels, _ = DigitModel(estimator).predict(digits.held_out_rows)
    accuracy = float((labels == digits.held_out_labels).mean())
    return Trained(spec, DigitModel(estimator, spec.read), accuracy, seconds)
