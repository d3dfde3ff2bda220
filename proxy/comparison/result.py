"""What a comparison says, and how it names the place of a difference.

The values that comparators return and the paths in them; how to compare is in `comparators`.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")

#: The place of a difference between two whole documents.
ROOT: Final = "$"


class Comparison(NamedTuple):
    """How an answer differs from the primary's. A tuple, because one is made for every pair.

    Attributes:
        comparable: both answers hold something that this comparator can judge.
        reason: why not, in snake_case; None when comparable.
        equal: they agree; None when not comparable.
        loss_diff: in [-1, 1], positive = candidate worse. From a comparator it is the loss against
            the primary, 0 or 1 (of an operator's own function anything in [0, 1]); `against_noise` takes the replicate's away.
        abs_diff: greatest |a - b| over the numbers; None without numbers or when shapes differ.
            Of rankings, vectors and texts 1 - similarity.
        rel_diff: greatest |a - b| / max(|a|, |b|), in [0, 2]; None like `abs_diff`.
        first_diff_path: where they first differ, such as `outputs[0].data[3]`; None when equal.
    """

    comparable: bool
    reason: str | None
    equal: bool | None
    loss_diff: float | None
    abs_diff: float | None = None
    rel_diff: float | None = None
    first_diff_path: str | None = None


def agrees(abs_diff: float | None = None, rel_diff: float | None = None) -> Comparison:
    """Return an agreement, with the differences that were tolerated."""
    return Comparison(
        comparable=True,
        reason=None,
        equal=True,
        loss_diff=0.0,
        abs_diff=abs_diff,
        rel_diff=rel_diff,
    )


def differs(path: str, abs_diff: float | None = None, rel_diff: float | None = None) -> Comparison:
    """Return a disagreement that starts at `path` (empty means the whole)."""
    return Comparison(
        comparable=True,
        reason=None,
        equal=False,
        loss_diff=1.0,
        abs_diff=abs_diff,
        rel_diff=rel_diff,
        first_diff_path=path or ROOT,
    )


def not_comparable(reason: str) -> Comparison:
    """Return that nothing can be said, and why."""
    return Comparison(comparable=False, reason=reason, equal=None, loss_diff=None)


#: Agreement without numbers.
EQUAL: Final = agrees()


def against_noise(comparison: Comparison, replicate: Comparison) -> Comparison:
    """Return `comparison` with the replicate's loss taken from it (DESIGN section 6).

    The replicate's loss is how much the primary disagrees with itself. A replicate that is not
    comparable takes nothing away; the record's `replicate_equal` is null then, so that evidence
    which needs the noise floor can leave the pair out.
    """
    if comparison.loss_diff is None or replicate.loss_diff is None:
        return comparison
    return comparison._replace(loss_diff=comparison.loss_diff - replicate.loss_diff)


def key_path(path: str, key: str) -> str:
    """Return the path of member `key` of the object at `path`, as JMESPath writes it."""
    name = key if _IDENTIFIER.fullmatch(key) else '"' + key.replace('"', '\\"') + '"'
    return f"{path}.{name}" if path else name
