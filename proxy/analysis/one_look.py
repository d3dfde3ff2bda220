"""Classical tests of the gates' counts, each right for one look only (`compare --one-look`).

Three questions to the same differences D in {-1, 0, 1}: McNemar's exact test (is E[D] = 0?; Q.
McNemar, 1947), the paired bootstrap (an interval of E[D]; B. Efron, 1979) and two one-sided t-tests
(is |E[D]| below the margin?; D. J. Schuirmann, 1987). All three assume a number of pairs that was
fixed beforehand, and pairs that were recorded with one probability. The verdict never uses them.

statsmodels does the arithmetic and comes with the extra `stats`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import numpy as np

from proxy.errors import ReportError

#: Of each tail of the intervals, and the level of each test.
ALPHA: Final = 0.05
RESAMPLES: Final = 9_999
_MISSING: Final = (
    "One-look tests need statsmodels, which is not installed; run: pip install 'understudy[stats]'"
)
_ROUNDING: Final = 1e-6
#: The same answer for the same counts, whoever asks.
_SEED: Final = 1979


@dataclass(frozen=True, slots=True)
class OneLook:
    """What one test says of one gate.

    Attributes:
        metric, test: the gate's, and the test's name.
        says: its finding in words.
        mean: of the differences.
        low, high: interval of the mean; None where the test gives none. At 95%, but at 90% for the
            equivalence test, whose two sides take 5% each.
        p_value: None for an interval without a test.
        n: pairs.
    """

    metric: str
    test: str
    says: str
    mean: float
    low: float | None
    high: float | None
    p_value: float | None
    n: int


def one_look_tests(gate: Mapping[str, Any]) -> tuple[OneLook, ...]:
    """Return the tests of a gate, as the document of findings has it; none without pairs.

    Raises:
        ReportError: statsmodels is not installed.
    """
    counts = gate["counts"]
    better, same, worse = (int(counts[key]) for key in ("better", "same", "worse"))
    total = better + same + worse
    if total < 2:
        return ()
    metric, mean = str(gate["metric"]), (worse - better) / total
    sides = better, same, worse
    if gate["mean"] is None or abs(mean - gate["mean"]) > _ROUNDING:
        # Counts by sign are then not all there is to know.
        says = "not computed: pairs weigh differently, or differences are not just -1, 0 and 1"
        return (OneLook(metric, "all", says, mean, None, None, None, total),)
    return (
        _mcnemar(metric, mean, sides),
        _bootstrap(metric, mean, sides),
        _equivalence(metric, mean, sides, float(gate["margin"])),
    )


def add_one_look(document: Mapping[str, Any]) -> None:
    """Add the tests of every gate to the candidates of a document of findings, as `one_look`.

    Raises:
        ReportError: statsmodels is not installed.
    """
    for candidate in document["candidates"]:
        gates = candidate["verdict"]["gates"]
        candidate["one_look"] = [asdict(test) for gate in gates for test in one_look_tests(gate)]


def require_statsmodels() -> None:
    """Say in time that statsmodels is missing.

    Raises:
        ReportError: it is not installed.
    """
    if find_spec("statsmodels") is None:
        raise ReportError(_MISSING)


def _mcnemar(metric: str, mean: float, sides: tuple[int, int, int]) -> OneLook:
    contingency = _statsmodels("statsmodels.stats.contingency_tables")
    better, same, worse = sides
    found = contingency.mcnemar([[same, worse], [better, 0]], exact=True)
    p = float(found.pvalue)
    says = "a difference" if p < ALPHA else "none found"
    return OneLook(metric, "McNemar", says, mean, None, None, p, sum(sides))


def _bootstrap(metric: str, mean: float, sides: tuple[int, int, int]) -> OneLook:
    """Resample pairs: of three values, that is a multinomial draw of their counts."""
    total = sum(sides)
    shares = np.array(sides) / total
    drawn = np.random.default_rng(_SEED).multinomial(total, shares, size=RESAMPLES)
    means = (drawn[:, 2] - drawn[:, 0]) / total
    low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2])
    says = "a difference" if low > 0 or high < 0 else "none found"
    return OneLook(metric, "bootstrap, 95%", says, mean, float(low), float(high), None, total)


def _equivalence(metric: str, mean: float, sides: tuple[int, int, int], margin: float) -> OneLook:
    weightstats = _statsmodels("statsmodels.stats.weightstats")
    if len([count for count in sides if count]) == 1:
        says = "no spread"
        return OneLook(metric, "TOST", says, mean, None, None, None, sum(sides))
    described = weightstats.DescrStatsW(np.array([-1.0, 0.0, 1.0]), weights=np.array(sides))
    p = float(described.ttost_mean(-margin, margin)[0])
    low, high = described.tconfint_mean(alpha=2 * ALPHA)
    says = "equivalent" if p < ALPHA else "not shown equivalent"
    test = "TOST, 90%"
    return OneLook(metric, test, says, mean, float(low), float(high), p, sum(sides))


def _statsmodels(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as exc:
        raise ReportError(_MISSING) from exc
