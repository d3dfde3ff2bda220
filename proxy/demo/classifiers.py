"""The demo's models as they are served: from rows to labels and probabilities.

Does not import scikit-learn: a model that needs it brings it along when it is loaded, and the others
start without it (0.3 instead of 1.5 s of CPU for the imports of a server).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np
import numpy.typing as npt

#: An image of 8 by 8 grey values from 0 to 16.
FEATURES: Final = 64
CLASSES: Final = 10
#: The greatest whole number that a signed byte holds.
_EIGHT_BIT_MAX: Final = 127
#: Features by their number, as a careless server knows them.
_MISORDERED: Final = [*range(24), *range(32, 40), *range(24, 32), *range(40, FEATURES)]

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


class EightBit:
    """A logistic regression as one matrix product, its weights in whole numbers of eight bits.

    Args:
        original: a trained `sklearn.linear_model.LogisticRegression`.
    """

    def __init__(self, original: Any) -> None:
        self.classes_ = original.classes_
        self._scale = float(np.abs(original.coef_).max()) / _EIGHT_BIT_MAX
        self._weights = np.round(original.coef_.T / self._scale).astype(np.int8)
        self._bias = original.intercept_

    def predict_proba(self, rows: Floats) -> Floats:
        """Return the probabilities `(n, 10)` of rows `(n, 64)`."""
        scores = rows @ self._weights * self._scale + self._bias
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True), dtype=np.float64)


def as_they_are(rows: Floats) -> Floats:
    """Return the rows."""
    return rows


def misordered(rows: Floats) -> Floats:
    """Return the rows with the fourth and the fifth line of each image in each other's place."""
    return rows[:, _MISORDERED]


class DigitModel:
    """A trained classifier behind what reads its rows."""

    def __init__(self, estimator: Any, read: Callable[[Floats], Floats] = as_they_are) -> None:
        self._estimator = estimator
        self._read = read

    def predict(self, rows: Floats) -> tuple[Integers, Floats]:
        """Return the labels `(n,)` and the probabilities `(n, 10)` of rows `(n, 64)`.

        The label is the most probable class, which is how these estimators predict; asking once
        for both halves the cost.
        """
        read = self._read(rows)
        probabilities = np.asarray(self._estimator.predict_proba(read), dtype=np.float64)
        return probabilities.argmax(axis=1), probabilities

    def save(self, path: Path) -> None:
        """Write the model; `load_model` reads it back."""
        joblib.dump((self._estimator, self._read), path)


def load_model(path: Path) -> DigitModel:
    """Return the model that `DigitModel.save` wrote. Only for files of one's own: it is a pickle."""
    return DigitModel(*joblib.load(path))
