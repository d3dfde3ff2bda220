"""Lines of JSON counted by columns: no pair becomes a Python object but those that are shown.

Where the fields of a block of lines lie is found at once (`proxy.analysis.layout`). Fields of few values
that stand together are one piece of bytes: each distinct combination of such pieces is parsed once,
the rest column by column. A block with a line of another shape, or with a value that is not of its type,
goes the way of records, which is slower and tells what is wrong. What is not counted (bodies, hashes,
headers) is not looked at, so damage there is not noticed; in the local log each frame has a checksum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from proxy.analysis.aggregate import MAX_ALIKE, Aggregate, Group
from proxy.analysis.batch import Columns
from proxy.analysis.coded import Coded, Codes, coded, uncoded
from proxy.analysis.layout import Fields, Layout
from proxy.analysis.rows import (
    COUNTED_FIELDS,
    NUMBER_FIELDS,
    PLACE_FIELDS,
    PREDICTION_FIELDS,
    REQUIRED_FIELDS,
    STREAM_FIELDS,
    Counted,
    Place,
    counted_fault,
)
from proxy.analysis.source import Block, Record
from proxy.analysis.taking import taken, worst_rows
from proxy.analysis.tosses import has_canary
from proxy.comparison.sketch import Floats

#: Fewer lines are sooner parsed one by one.
MIN_LINES: Final = 32
#: Blocks that are not looked at after those in a row that had another shape.
_MAX_SKIPPED: Final = 63
_FEW_VALUES: Final = frozenset((*PLACE_FIELDS, *COUNTED_FIELDS))
#: Fields that are not counted, and have few values as well: they do not part what stands together.
_BETWEEN: Final = frozenset(("proxy_version", "ramp_step"))
_NUMBER_TYPES: Final = frozenset((int, float, type(None)))


def count_blocks(
    aggregate: Aggregate, blocks: Iterable[Block], on_block: Callable[[], object] | None = None
) -> None:
    """Count all pairs of some blocks of lines; `on_block` is called after each."""
    counter = LineCounter(aggregate)
    for block in blocks:
        if not counter.count(block.content):
            for record in block.records:
                aggregate.add(record)
        if on_block is not None:
            on_block()
    aggregate.flush()


class LineCounter:
    """Counts blocks of lines into an aggregate."""

    def __init__(self, aggregate: Aggregate) -> None:
        self._aggregate = aggregate
        self._shape: _Shape | None = None
        self._failures = 0
        self._skipped = 0

    def count(self, content: bytes) -> bool:
        """Count whole lines; return False, with none counted, where a line is not as usual."""
        if self._skipped < min(self._failures, _MAX_SKIPPED):
            self._skipped += 1
            return False
        self._skipped = 0
        columns = self._columns(content)
        self._failures = 0 if columns is not None else self._failures + 1
        if columns is None:
            return False
        aggregate = self._aggregate
        aggregate.flush()
        aggregate.records += columns.size
        for route, candidate, rows in columns.taken(aggregate):
            group = aggregate.group(route, candidate, rows.size)
            if group is not None:
                aggregate.count(group, columns.of(rows, group))
        return True

    def _columns(self, content: bytes) -> _LineColumns | None:
        """Return the columns of lines; the first one's shape is learnt if it is not that of before."""
        known = self._shape
        found = None if known is None else self._read(known, content)
        if found is None:
            shape = _shape_of(content[: content.find(b"\n")])
            if shape is not None and (known is None or shape.layout.names != known.layout.names):
                self._shape = shape
                found = self._read(shape, content)
        return found

    def _read(self, shape: _Shape, content: bytes) -> _LineColumns | None:
        fields = shape.layout.fields(content)
        if fields is None or fields.count < MIN_LINES:
            return None
        try:
            return _LineColumns(shape, fields, has_labels=self._aggregate.has_labels)
        except _UnusualError:
            return None


class _UnusualError(ValueError):
    """A line is not what a recorder writes."""


def _shape_of(line: bytes) -> _Shape | None:
    """Return the shape of a record; None where it is no pair's."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if type(record) is not dict or not record.keys() >= {*REQUIRED_FIELDS}:
        return None
    return _Shape(Layout([*record]))


class _Shape:
    """A layout, the runs of fields of few values in it, and what their bytes mean."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.runs = _runs_of(layout.names)
        self._absent = {name: None for name in COUNTED_FIELDS if name not in layout.places}
        self._known: dict[tuple[bytes, ...], int] = {}
        self._places: list[Place] = []
        self._counted: list[Counted] = []

    def forget(self) -> None:
        """Forget what bytes mean, if that has become much; codes of before mean nothing then."""
        if len(self._known) > MAX_ALIKE:
            self._known, self._places, self._counted = {}, [], []

    def codes(self, pieces: Iterable[tuple[bytes, ...]]) -> list[int]:
        """Return what lines have in `runs`, of which these are the bytes, as codes.

        Raises:
            _UnusualError: something is not of its type.
        """
        known = self._known
        codes = []
        code = -1
        before: tuple[bytes, ...] = ()
        for key in pieces:
            if key != before:  # far sooner known than the hash of its bytes
                before = key
                found = known.get(key)
                code = self._learn(key) if found is None else found
            codes.append(code)
        return codes

    def combinations(self, codes: list[int]) -> tuple[Coded, Coded]:
        """Return the values of `rows.PLACE_FIELDS` and of `rows.COUNTED_FIELDS`."""
        found = Coded(np.array(codes, dtype=np.int64), range(len(self._places))).in_use()
        places = coded([self._places[code] for code in found.values])
        counted = [self._counted[code] for code in found.values]
        return Coded(places.codes[found.codes], places.values), Coded(found.codes, counted)

    def _learn(self, key: tuple[bytes, ...]) -> int:
        values = _loads(b"{%b}" % b",".join(key))
        try:
            values |= self._absent
            place = tuple(values[name] for name in PLACE_FIELDS)
            counted = tuple(values[name] for name in COUNTED_FIELDS)
        except (KeyError, TypeError) as exc:
            raise _UnusualError from exc
        if {*map(type, place)} != {str} or counted_fault(counted) is not None:
            raise _UnusualError
        code = self._known[key] = len(self._places)
        self._places.append(place)
        self._counted.append(counted)
        return code


def _runs_of(names: Sequence[str]) -> list[tuple[int, int]]:
    """Return the first and last places of fields that have few values and stand together."""
    runs: list[tuple[int, int]] = []
    for place, name in enumerate(names):
        if name not in _FEW_VALUES:
            continue
        if runs and {*names[runs[-1][1] + 1 : place]} <= _BETWEEN:
            runs[-1] = runs[-1][0], place
        else:
            runs.append((place, place))
    return runs


class _Indexed(NamedTuple):
    """Bytes and their codes, and the code of each row."""

    places: dict[bytes, int]
    codes: list[int]


class _LineColumns:
    """The columns of a block of lines.

    Raises:
        _UnusualError: a value is not of its type.
    """

    def __init__(self, shape: _Shape, fields: Fields, *, has_labels: bool) -> None:
        self.size = fields.count
        self._fields = fields
        self._layout = shape.layout
        self._at = at = shape.layout.places
        numbers = [name for name in (*NUMBER_FIELDS, *STREAM_FIELDS) if self._has_any(name)]
        self._joined: dict[str, list[bytes]] = {name: [] for name in ("seq", "ts_ms", *numbers)}
        others: list[str] = [name for name in PREDICTION_FIELDS if name in at]
        others += ["segments"] * self._has_segments()
        others += ["request_id"] * (has_labels and "request_id" in at)
        self._indexed: dict[str, _Indexed] = {name: _Indexed({}, []) for name in others}
        self._places, self._counted = shape.combinations(self._cut(shape))
        self._seqs, self._times_ms = self._whole("seq"), self._whole("ts_ms")
        self._numbers = {name: self._floats(name) for name in NUMBER_FIELDS}
        self._streams = {name: self._floats(name) for name in STREAM_FIELDS if name in self._joined}
        self._predictions = [self._json(name) for name in PREDICTION_FIELDS]
        self._segments = self._labels()
        self._request_ids = self._json("request_id") if has_labels else None
        self._units = self._unit_hashes()

    def _cut(self, shape: _Shape) -> list[int]:
        """Take what is needed out of all lines; return the codes of the shape's runs."""
        shape.forget()
        at = self._at
        runs = [*shape.runs, *((at[name], at[name]) for name in (*self._joined, *self._indexed))]
        first, second = len(shape.runs), len(shape.runs) + len(self._joined)
        codes: list[int] = []
        for cut in self._fields.cut(runs):
            codes += shape.codes(zip(*cut[:first], strict=True))
            for joined, texts in zip(self._joined.values(), cut[first:second], strict=True):
                joined.append(b",".join(texts))
            for indexed, texts in zip(self._indexed.values(), cut[second:], strict=True):
                place, places = indexed.places.setdefault, indexed.places
                indexed.codes.extend([place(text, len(places)) for text in texts])
        return codes

    def taken(self, aggregate: Aggregate) -> Iterable[tuple[str, str, Codes]]:
        """Yield route, candidate and rows of the pairs that count, and note all as seen."""
        return taken(aggregate, self._places, self._seqs, self._times_ms)

    def of(self, rows: Codes, group: Group) -> Columns:
        """Return the columns of `rows`, which are of one candidate."""
        numbers = {name: column[rows] for name, column in self._numbers.items()}
        for name, column in self._streams.items():
            taken_only = column[rows]
            if not np.isnan(taken_only).all():
                numbers[name] = taken_only
        ids, segments, units = self._request_ids, self._segments, self._units
        return Columns(
            counted=self._counted.at(rows),
            seqs=self._seqs[rows],
            times_ms=self._times_ms[rows],
            numbers=numbers,
            segments=None if segments is None else segments.at(rows),
            primary=self._predictions[0].at(rows),
            candidate=self._predictions[1].at(rows),
            request_ids=() if ids is None else ids.at(rows).rows(),
            units=None if units is None else units.at(rows).rows(),
            differing=self._worst(rows, group),
        )

    def _has_any(self, name: str) -> bool:
        """Return whether a number is anywhere not null."""
        place = self._at.get(name)
        return place is not None and not self._fields.are_null(place).all()

    def _has_segments(self) -> bool:
        place = self._at.get("segments")
        return place is not None and not (self._fields.sizes(place) == len(b"{}")).all()

    def _whole(self, name: str) -> Codes:
        values = self._values(name, self._joined[name], self.size)
        if {*map(type, values)} != {int}:
            raise _UnusualError
        return self._array(values, np.int64)

    def _floats(self, name: str) -> Floats:
        if name not in self._joined:
            return np.full(self.size, np.nan)
        values = self._values(name, self._joined[name], self.size)
        if not {*map(type, values)} <= _NUMBER_TYPES:
            raise _UnusualError
        return self._array(values, np.float64)

    def _array(self, values: list[Any], kind: Any) -> NDArray[Any]:
        try:
            return np.array(values, dtype=kind)
        except OverflowError as exc:
            raise _UnusualError from exc

    def _json(self, name: str) -> Coded:
        """Return any JSON; values of the same bytes are parsed once."""
        if name not in self._indexed:
            return Coded(np.zeros(self.size, dtype=np.int64), [None])
        found = self._indexed[name]
        values = self._values(name, found.places, len(found.places))
        return Coded(np.array(found.codes, dtype=np.int64), values)

    def _values(self, name: str, texts: Iterable[bytes], count: int) -> list[Any]:
        """Return the `count` values in fields that all have this name."""
        # The name, a colon and what it says: where it is another name, the rest is no JSON.
        opening = self._layout.openings[self._at[name]]
        values: list[Any] = _loads(b"[%b]" % b",".join(texts).replace(opening, b""))
        if len(values) != count:
            raise _UnusualError
        return values

    def _unit_hashes(self) -> Coded | None:
        """Return the hashes of the split keys, which only a canary's pairs are asked for."""
        place = self._at.get("unit_hash")
        if place is None or not has_canary(self._counted):
            return None
        texts = [text for (some,) in self._fields.cut([(place, place)]) for text in some]
        return uncoded(self._values("unit_hash", texts, self.size))

    def _labels(self) -> Coded | None:
        """Return the segments of each row, sorted; None where no row has any."""
        if "segments" not in self._indexed:
            return None
        column = self._json("segments")
        found = []
        for each in column.values:
            if type(each) is not dict or not {*map(type, each.values())} <= {str}:
                raise _UnusualError
            found.append(tuple(sorted(each.items())))
        return Coded(column.codes, found)

    def _worst(self, rows: Codes, group: Group) -> list[Record]:
        """Return the records of the pairs that may be among the worst, in their order."""
        chosen = worst_rows(group, self._counted, self._numbers["abs_diff"], rows)
        found = []
        for row in chosen.tolist():
            # Damage in a body, which only a look at the whole line finds: it is counted, not shown.
            with suppress(_UnusualError):
                found.append(_loads(self._fields.line(row)))
        return found


def _loads(text: bytes) -> Any:
    """Return what JSON says.

    Raises:
        _UnusualError: it is none.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise _UnusualError from exc
