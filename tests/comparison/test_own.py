"""Comparators of the operator's own: what they may say, and that nothing they do is fatal."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from proxy.comparison import comparators, own
from proxy.config.resolved import Compare


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module of the operator's, installed beside the product."""
    module = ModuleType("theirs")
    monkeypatch.setitem(sys.modules, "theirs", module)
    return module


@pytest.mark.parametrize(
    ("answer", "equal", "loss"),
    [(True, True, 0.0), (False, False, 1.0), (0.25, False, 0.25), (0, True, 0.0), (1, False, 1.0)],
)
def test_a_function_of_the_operators_says_whether_answers_agree(
    theirs: ModuleType, answer: object, equal: bool, loss: float
) -> None:
    """By a bool, or by a loss in [0, 1], which is a difference unless it is 0."""
    theirs.same = lambda primary, candidate: (primary, candidate) == (1, 2) and answer  # type: ignore[attr-defined]
    found = comparators.build(Compare("", "theirs:same", 0.0, 0.0))(1, 2, "y")
    assert (found.comparable, found.equal, found.loss_diff) == (True, equal, loss)
    assert found.first_diff_path == (None if equal else "y")


@pytest.mark.parametrize("answer", [None, "0.5", 1.5, -0.1, float("nan"), [1]])
def test_a_function_that_says_nonsense_costs_its_pair(theirs: ModuleType, answer: object) -> None:
    """The pair is not comparable, with the reason."""
    theirs.same = lambda _primary, _candidate: answer  # type: ignore[attr-defined]
    found = comparators.build(Compare("", "theirs:same", 0.0, 0.0))(1, 2, "y")
    assert (found.comparable, found.reason) == (False, own.BAD_RESULT)


def test_a_function_that_raises_costs_its_pair(theirs: ModuleType) -> None:
    """Whatever it raises, and it is asked again for the next pair."""
    theirs.same = lambda primary, _candidate: 1 / primary > 0  # type: ignore[attr-defined]
    judge = comparators.build(Compare("", "theirs:same", 0.0, 0.0))
    assert judge(0, 1, "y").reason == own.RAISED
    assert judge(1, 1, "y").equal


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize(
    ("name", "telling"),
    [
        ("nowhere.at_all:same", "cannot import nowhere.at_all: ModuleNotFoundError"),
        ("theirs:same", "theirs has no function same"),
        ("json:__name__", "json has no function __name__"),
    ],
)
def test_a_function_that_cannot_be_loaded_is_told_and_not_fatal(name: str, telling: str) -> None:
    """Every pair of the route is not comparable, and is shipped all the same."""
    spec = Compare("", name, 0.0, 0.0)
    assert telling in (comparators.own_problem(spec) or "")
    assert comparators.build(spec)(1, 1, "y").reason == own.NOT_LOADED
    assert comparators.own_problem(Compare("", "exact", 0.0, 0.0)) is None


def test_a_module_that_ends_the_process_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would take the recorder with it."""
    (tmp_path / "ending_module.py").write_text("import sys\nsys.exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    problem = comparators.own_problem(Compare("", "ending_module:same", 0.0, 0.0))
    assert problem == "ending_module:same: cannot import ending_module: SystemExit: 3"
