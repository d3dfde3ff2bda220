"""The comparators by name, and how one is built from a route's `compare` settings.

Decides how two predictions differ, never whether a leg may be compared at all: a failed leg or
an answer without a prediction is `proxy.pairs.expand`'s to judge. A new comparator is a function
of `Compare` that returns a `Comparator`, registered under its name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from proxy.comparison import own
from proxy.comparison.exact import compare_exact
from proxy.comparison.label import compare_label
from proxy.comparison.numeric import NumericComparator
from proxy.comparison.ranking import RankingComparator, TopKComparator
from proxy.comparison.result import Comparison
from proxy.comparison.structure import JsonComparator
from proxy.comparison.text import TextComparator
from proxy.comparison.vector import VectorComparator
from proxy.config.resolved import Compare

#: Takes the primary's prediction, the other leg's, and the path where they were found.
Comparator = Callable[[Any, Any, str], Comparison]
Factory = Callable[[Compare], Comparator]

_FACTORIES: dict[str, Factory] = {}


def register(name: str, factory: Factory) -> None:
    """Make `factory` the comparator called `name` in configs.

    Raises:
        ValueError: the name is taken; replacing one would change what old records mean.
    """
    if name in _FACTORIES:
        raise ValueError(f"there is already a comparator {name!r}")
    _FACTORIES[name] = factory


def names() -> tuple[str, ...]:
    """Return the names that a config may use, sorted."""
    return tuple(sorted(_FACTORIES))


def build(spec: Compare) -> Comparator:
    """Return the comparator that `spec` asks for, ready to be called for every pair.

    One of the operator's own that cannot be loaded makes no pair comparable; `own_problem` says why.

    Raises:
        ValueError: there is none of that name; says which there are.
    """
    if _is_own(spec):
        try:
            return own.OwnComparator(own.load(spec.comparator))
        except ValueError:
            return own.not_loaded
    factory = _FACTORIES.get(spec.comparator)
    if factory is None:
        raise ValueError(f"no comparator {spec.comparator!r}; there are: {', '.join(names())}")
    return factory(spec)


def own_problem(spec: Compare) -> str | None:
    """Return why a comparator of the operator's own cannot be loaded; None when all is well."""
    if _is_own(spec):
        try:
            own.load(spec.comparator)
        except ValueError as exc:
            return str(exc)
    return None


def compare(spec: Compare, primary: Any, candidate: Any, root: str = "") -> Comparison:
    """Return how the candidate's prediction differs from the primary's.

    Args:
        spec: the comparator's name and tolerances.
        primary: the primary's prediction, a JSON value of at most 250 levels without NaN.
        candidate: the other leg's, likewise.
        root: path of the predictions, the start of `first_diff_path`.

    Raises:
        ValueError: no such comparator.
    """
    return _cached(spec)(primary, candidate, root)


def _is_own(spec: Compare) -> bool:
    return ":" in spec.comparator


_cached = lru_cache(maxsize=256)(build)


register("exact", lambda _: compare_exact)
register("label", lambda _: compare_label)
register(
    "numeric",
    lambda spec: NumericComparator(rel_tol=spec.rel_tol, abs_tol=spec.abs_tol, ulp=spec.ulp),
)
register(
    "json",
    lambda spec: JsonComparator(
        ignore=spec.ignore, unordered=spec.unordered, inside_text=spec.inside_text
    ),
)
register("top_k", lambda spec: TopKComparator(k=spec.k))
register(
    "ranking",
    lambda spec: RankingComparator(
        measure=spec.measure, k=spec.k, min_similarity=spec.min_similarity
    ),
)
register("vector", lambda spec: VectorComparator(min_similarity=spec.min_similarity))
register(
    "text",
    lambda spec: TextComparator(min_similarity=spec.min_similarity, ignore_case=spec.ignore_case),
)
