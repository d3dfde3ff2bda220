"""Which rows of a block of columns count, and which of them are shown.

The rules are those of `proxy.analysis.aggregate` for records: known version, each pair once, inside
the selection. Blocks come from Parquet and from lines whose fields all lie in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from proxy.analysis.aggregate import Aggregate, Group
from proxy.analysis.coded import Coded, Codes
from proxy.analysis.rows import COUNTED_FIELDS
from proxy.comparison.sketch import Floats
from proxy.pairs.record import SCHEMA_VERSION

_EQUAL = COUNTED_FIELDS.index("equal")


def taken(
    aggregate: Aggregate, places: Coded, seqs: NDArray[np.int64], times_ms: NDArray[np.int64]
) -> Iterator[tuple[str, str, Codes]]:
    """Yield route, candidate and rows of the pairs that count, and note all as seen.

    Args:
        aggregate: that has seen what came before.
        places: the values of `rows.PLACE_FIELDS`, distinct.
        seqs: of the same rows.
        times_ms: likewise.
    """
    is_sound = (seqs >= 0) & places.where(lambda place: bool(place[0] == SCHEMA_VERSION))
    for row in np.flatnonzero(~is_sound).tolist():
        version = places.values[places.codes[row]][0]
        aggregate.reject(
            f"its schema_version is {version[:20]!r}"
            if version != SCHEMA_VERSION
            else f"its seq is {seqs[row]}"
        )
    by_candidate: dict[tuple[str, str], list[Codes]] = {}
    for number, (_, instance, candidate, route) in enumerate(places.values):
        rows = np.flatnonzero((places.codes == number) & is_sound)
        if rows.size:
            rows = rows[aggregate.new_among(instance, candidate, seqs[rows])]
            by_candidate.setdefault((route, candidate), []).append(rows)
    for (route, candidate), parts in sorted(by_candidate.items()):
        rows = parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts))
        rows = rows[aggregate.are_selected(route, candidate, times_ms[rows])]
        if rows.size:
            yield route, candidate, rows


def worst_rows(group: Group, counted: Coded, abs_diff: Floats, rows: Codes) -> Codes:
    """Return those of `rows` that may be among the pairs of a group that differ most, in their order.

    Args:
        group: whose worst pairs so far are known.
        counted: the values of `rows.COUNTED_FIELDS` of all rows of the block.
        abs_diff: of all rows; NaN where null.
        rows: of the group.
    """
    worst = group.tally.worst
    differing = rows[counted.where(lambda each: each[_EQUAL] is False)[rows]]
    ranks = np.nan_to_num(abs_diff[differing], nan=-1.0)
    chosen = differing[np.sort(np.argsort(-ranks, kind="stable")[: worst.limit])]
    values = abs_diff[chosen].tolist()
    found: Codes = chosen[[worst.takes(value if value == value else None) for value in values]]
    return found
