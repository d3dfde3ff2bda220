"""The comparators by name, and how one is built from a route's `compare` settings.

Decides how two predictions differ, never whether a leg may be compared at all: a failed leg or
an answer without a prediction is `proxy.pairs.expand`'s to judge. A new comparator is a function
of `Compare` that returns a `Comparator`, registered under its name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from proxy.comparison.exact import compare_exact
from proxy.comparison.label import compare_label
from proxy.comparison.numeric import NumericComparator
from proxy.comparison.result import Comparison
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

    Raises:
        ValueError: there is none of that name; says which there are.
    """
    factory = _FACTORIES.get(spec.comparator)
    if factory is None:
        raise ValueError(f"no comparator {spec.comparator!r}; there are: {', '.join(names())}")
    return factory(spec)


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


_cached = lru_cache(maxsize=256)(build)


register("exact", lambda _: compare_exact)
register("label", lambda _: compare_label)
register("numeric", lambda spec: NumericComparator(rel_tol=spec.rel_tol, abs_tol=spec.abs_tol))
