"""What the pairs of a batch say of the split: only a canary's are asked, by the key's hash.

What a pair says is `proxy.comparison.split_keys`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from proxy.analysis.coded import Coded
from proxy.analysis.rows import COUNTED_FIELDS
from proxy.comparison.split_keys import Toss, toss_of

#: By experiment and config, what pairs say, each with the hash of its split key.
Tosses = dict[tuple[str, str], list[tuple[Any, Toss]]]

_WEIGHT: Final = COUNTED_FIELDS.index("ramp_weight_bp")
_KEY: Final = tuple(COUNTED_FIELDS.index(name) for name in ("experiment_id", "config_version"))


def has_canary(counted: Coded) -> bool:
    """Return whether any of these pairs was made while the candidate had a weight."""
    return any(each[_WEIGHT] for each in counted.values)


def tosses_of(units: Sequence[Any] | None, counted: Coded) -> Tosses:
    """Return what pairs say of the split; nothing where there is no canary.

    Args:
        units: hashes of the split keys; None where no pair has a canary.
        counted: the values of `rows.COUNTED_FIELDS` of the same pairs.
    """
    found: Tosses = {}
    if units is None or not has_canary(counted):
        return found
    said = [toss_of(dict(zip(COUNTED_FIELDS, each, strict=True))) for each in counted.values]
    keys = [(each[_KEY[0]], each[_KEY[1]]) for each in counted.values]
    for unit, code in zip(units, counted.codes.tolist(), strict=True):
        toss = said[code]
        if toss is not None:
            found.setdefault(keys[code], []).append((unit, toss))
    return found
