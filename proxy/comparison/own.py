"""Comparators of the operator's own: `module:function`, called for every pair.

The function takes the primary's prediction and the other's. It returns True when they agree, or a
loss in [0, 1], where 0 is agreement. Whatever else it does costs it the pair, and nothing more: an
exception, or another value, makes the pair not comparable, with the reason. So does a function that
cannot be loaded, for every pair: the recorder goes on shipping them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final

from proxy.comparison.result import Comparison, agrees, differs, not_comparable

#: The function raised; it returned no bool and no number in [0, 1]; it could not be loaded.
RAISED: Final = "comparator_raised"
BAD_RESULT: Final = "comparator_bad_result"
NOT_LOADED: Final = "comparator_not_loaded"

Own = Callable[[Any, Any], Any]


def load(name: str) -> Own:
    """Return the function called `module:function`.

    Raises:
        ValueError: it is not there, is no function, or its module raises; says what.
    """
    module_name, _, function_name = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as exc:
        raise ValueError(f"{name}: cannot import {module_name}: {_words(exc)}") from exc
    function = getattr(module, function_name, None)
    if not callable(function):
        # The value in the config is wrong, not a type.
        raise ValueError(f"{name}: {module_name} has no function {function_name}")  # noqa: TRY004
    found: Own = function
    return found


class OwnComparator:
    """Calls a function of the operator's."""

    def __init__(self, function: Own) -> None:
        self._function = function

    def __call__(self, primary: Any, candidate: Any, root: str) -> Comparison:
        """Return what the function says."""
        try:
            found = self._function(primary, candidate)
        except Exception:  # noqa: BLE001 - whatever theirs does, the pair is shipped
            return not_comparable(RAISED)
        loss = _loss(found)
        if loss is None:
            return not_comparable(BAD_RESULT)
        return differs(root)._replace(loss_diff=loss) if loss else agrees()


def not_loaded(_primary: Any, _candidate: Any, _root: str) -> Comparison:
    """Return that there is no comparator: what a route has whose function cannot be loaded."""
    return not_comparable(NOT_LOADED)


def _loss(found: Any) -> float | None:
    if found is True or found is False:
        return 0.0 if found else 1.0
    if not isinstance(found, int | float):
        return None
    return float(found) if 0.0 <= found <= 1.0 else None


def _words(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
