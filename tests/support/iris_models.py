"""Two scikit-learn models of the iris data, for MLServer: run by its own interpreter.

python iris_models.py FOLDER writes `FOLDER/logistic/model.joblib` and `FOLDER/tree/model.joblib`. It
imports nothing of this repository, which MLServer's environment does not have.
"""

from __future__ import annotations

import sys
from pathlib import Path

import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier


def main() -> None:
    """Train on every other flower; a stump that can tell but two of the three kinds is the other."""
    features, kinds = load_iris(return_X_y=True)
    models = {
        "logistic": LogisticRegression(max_iter=1_000),
        "tree": DecisionTreeClassifier(max_depth=1, random_state=0),
    }
    for name, model in models.items():
        folder = Path(sys.argv[1]) / name
        folder.mkdir(parents=True, exist_ok=True)
        joblib.dump(model.fit(features[::2], kinds[::2]), folder / "model.joblib")


if __name__ == "__main__":
    main()
