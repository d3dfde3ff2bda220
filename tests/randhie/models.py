"""Models of real people: visits to a doctor in the RAND health insurance experiment, 20,190 rows.

Two questions are asked about each person and year, from the plan of insurance and the state of health:
how many visits (`visits`, a number) and whether there are two or more (`frequent`, a label). Each has

- a primary, by statsmodels (Poisson regression by IRLS; logistic regression by Newton's method),
- `refit`, the same regression on the same rows by scikit-learn, with another solver: as good,
- `thin`, the same regression without what is known of health, as after a broken join: worse, and
- `skewed`, `refit` served without the scaling that it was trained with: much worse.

A model goes to its server as coefficients, as it would in PMML or ONNX. It is trained on every second
row and asked about all. (Data: Newhouse and others 1993; Deb and Trivedi 2002, in statsmodels.)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

Floats = NDArray[np.float64]

QUESTIONS: Final = ("visits", "frequent")
PRIMARY: Final = "primary"
CANDIDATES: Final = ("refit", "thin", "skewed")
#: What is known of a person: of the insurance, and of health.
PLAN: Final = ("lncoins", "idp", "lpi", "fmde")
HEALTH: Final = ("physlm", "disea", "hlthg", "hlthf", "hlthp")
COLUMNS: Final = PLAN + HEALTH
#: From so many visits on a person is a frequent visitor.
FREQUENT: Final = 2
ROWS: Final = 20_190


@dataclass(frozen=True, slots=True)
class People:
    """The data, row by row.

    Attributes:
        features: of `COLUMNS`, shape (n, 9).
        visits: the truth, shape (n,).
    """

    features: Floats
    visits: Floats

    def label(self, row: int) -> int:
        """Return the right answer to `frequent`."""
        return int(self.visits[row] >= FREQUENT)

    def health(self, row: int) -> str:
        """Return how a person judges their own health: the segment."""
        judged = dict(zip(COLUMNS, self.features[row], strict=True))
        names = {"hlthp": "poor", "hlthf": "fair", "hlthg": "good"}
        return next((word for name, word in names.items() if judged[name]), "excellent")


@dataclass(frozen=True, slots=True)
class Model:
    """A generalised linear model as its server gets it.

    Attributes:
        question: `visits` (log link) or `frequent` (logit link).
        columns: that it looks at, in the order of `coefficients`.
    """

    question: str
    columns: tuple[str, ...]
    intercept: float
    coefficients: tuple[float, ...]

    def predict(self, features: Floats) -> Floats:
        """Return for rows of `columns`, shape (n, k), visits (n,) or probabilities (n, 2)."""
        score = features @ np.array(self.coefficients) + self.intercept
        if self.question == "visits":
            return np.asarray(np.exp(score), dtype=np.float64)
        often = 1.0 / (1.0 + np.exp(-score))
        return np.column_stack([1.0 - often, often])

    def save(self, path: Path) -> None:
        """Write it to a file."""
        path.write_bytes(orjson.dumps(self))


def load_model(path: Path) -> Model:
    """Return the model in a file."""
    found = orjson.loads(path.read_bytes())
    columns, coefficients = tuple(found["columns"]), tuple(found["coefficients"])
    return Model(found["question"], columns, found["intercept"], coefficients)


@cache
def people() -> People:
    """Return the data; loaded once."""
    table = import_module("statsmodels.datasets").randhie.load_pandas().data
    features = table[list(COLUMNS)].to_numpy(np.float64)
    return People(features, table["mdvis"].to_numpy(np.float64))


@cache
def train(question: str, name: str) -> Model:
    """Return a trained model; trained once."""
    known = people()
    columns = PLAN if name == "thin" else COLUMNS
    rows = slice(None, None, 2)
    features = known.features[rows, [COLUMNS.index(column) for column in columns]]
    visits = known.visits[rows]
    target = visits if question == "visits" else (visits >= FREQUENT).astype(np.float64)
    if name in ("refit", "skewed"):
        is_scaled_back = name == "refit"
        intercept, coefficients = _by_scikit_learn(
            question, features, target, is_scaled_back=is_scaled_back
        )
    else:
        intercept, coefficients = _by_statsmodels(question, features, target)
    return Model(question, columns, intercept, tuple(coefficients))


def _by_statsmodels(question: str, features: Floats, target: Floats) -> tuple[float, list[float]]:
    api: Any = import_module("statsmodels.api")
    design = api.add_constant(features)
    if question == "visits":
        found = api.GLM(target, design, family=api.families.Poisson()).fit()
    else:
        found = api.Logit(target, design).fit(disp=False)
    intercept, *coefficients = (float(value) for value in found.params)
    return intercept, coefficients


def _by_scikit_learn(
    question: str, features: Floats, target: Floats, *, is_scaled_back: bool
) -> tuple[float, list[float]]:
    """Fit on scaled features, which its solver needs; the coefficients are to be scaled back."""
    linear: Any = import_module("sklearn.linear_model")
    if question == "visits":
        model = linear.PoissonRegressor(alpha=0.0, tol=1e-8, max_iter=1_000)
    else:
        model = linear.LogisticRegression(C=np.inf, tol=1e-8, max_iter=1_000)
    mean, scale = features.mean(axis=0), features.std(axis=0)
    model.fit((features - mean) / scale, target)
    coefficients = np.ravel(model.coef_)
    intercept = float(np.ravel(model.intercept_)[0])
    if is_scaled_back:
        coefficients = coefficients / scale
        intercept -= float(coefficients @ mean)
    return intercept, [float(value) for value in coefficients]
