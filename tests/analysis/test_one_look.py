"""The classical tests say what scipy says, and nothing where they would be wrong."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from scipy import stats

from proxy.analysis.one_look import one_look_tests, require_statsmodels
from proxy.errors import ReportError


def gate(
    better: int, same: int, worse: int, margin: float = 0.01, **changes: Any
) -> dict[str, Any]:
    """Return a gate with these counts."""
    counts = {"better": better, "same": same, "worse": worse, "missing": 0}
    total = better + same + worse
    mean = (worse - better) / total if total else None
    return {"metric": "agreement", "margin": margin, "mean": mean, "counts": counts} | changes


def test_they_are_the_tests_that_they_are_called() -> None:
    """Against the raw pairs, by another library."""
    mcnemar, bootstrap, tost = one_look_tests(gate(61, 18_222, 117, margin=0.0042))
    pairs = np.repeat([-1.0, 0.0, 1.0], [61, 18_222, 117])
    mean, error = pairs.mean(), stats.sem(pairs)
    assert mcnemar.p_value == pytest.approx(stats.binomtest(61, 178).pvalue)
    assert (mcnemar.says, mcnemar.n) == ("a difference", 18_400)
    assert bootstrap.low == pytest.approx(mean - 1.96 * error, abs=0.0002)
    assert bootstrap.high == pytest.approx(mean + 1.96 * error, abs=0.0002)
    t = stats.t(len(pairs) - 1)
    assert tost.p_value == pytest.approx(t.sf((0.0042 - mean) / error), rel=1e-3)
    assert tost.low == pytest.approx(mean + t.ppf(0.05) * error)
    assert tost.p_value is not None
    assert tost.p_value > 0.05
    assert tost.says == "not shown equivalent"
    assert one_look_tests(gate(61, 18_222, 117))[2].says == "equivalent"


def test_the_same_counts_give_the_same_figures() -> None:
    """The bootstrap, too."""
    assert one_look_tests(gate(5, 80, 15)) == one_look_tests(gate(5, 80, 15))


def test_a_few_pairs_show_nothing() -> None:
    """Not even that there is no difference."""
    says = [test.says for test in one_look_tests(gate(1, 28, 1))]
    assert says == ["none found", "none found", "not shown equivalent"]
    assert [test.says for test in one_look_tests(gate(0, 30, 0))][2] == "no spread"


@pytest.mark.parametrize("counts", [(0, 0, 0), (0, 1, 0)])
def test_without_pairs_there_are_no_tests(counts: tuple[int, int, int]) -> None:
    """One is not enough."""
    assert one_look_tests(gate(*counts)) == ()


def test_differences_that_are_no_three_counts_are_not_tested() -> None:
    """Weighted, or between -1 and 1: the signs alone would mislead."""
    [found] = one_look_tests(gate(5, 80, 15, mean=0.031))
    assert found.says.startswith("not computed")
    assert found.p_value is None


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is read, too."""
    require_statsmodels()
    monkeypatch.setitem(sys.modules, "statsmodels", None)
    monkeypatch.setitem(sys.modules, "statsmodels.stats.contingency_tables", None)
    with pytest.raises(ReportError, match="pip install 'understudy\\[stats\\]'"):
        require_statsmodels()
    with pytest.raises(ReportError, match="pip install"):
        one_look_tests(gate(1, 28, 1))
