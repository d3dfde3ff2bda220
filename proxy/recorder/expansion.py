"""From journal lines to pairs ready to ship, each by the config revision it was made under.

It decides which revision and route a line belongs to, and that a line which cannot be expanded is
counted and never fatal: one bad record must not hold up the evidence behind it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from proxy import __version__
from proxy.config.resolved import Config, loads
from proxy.pairs.expand import Expander
from proxy.recorder.priority import step_aside
from proxy.recorder.sink import Pair
from proxy.recorder.spans import SpanSink

if TYPE_CHECKING:  # needs numpy, which only a recorder of ramps should carry
    from proxy.recorder.evidence import BatchEvidence, Gates

#: Revisions kept in memory; an operator who reloads more often than this re-reads a small file.
_MAX_REVISIONS = 16

_VERSION = re.compile(r"[0-9A-Za-z_-]{1,64}")

#: What sinks need beside the record.
_NAMES = itemgetter("pair_id", "request_id", "trace_id", "instance", "ts", "ts_ms")
_TRACE = itemgetter("span_id", "trace_sampled")
#: Makes a pair without the call in between, which costs 0.3 us.
_new: Callable[[type[Pair], tuple[Any, ...]], Pair] = tuple.__new__


@dataclass(slots=True)
class Expansion:
    """What became of some lines.

    Attributes:
        pairs: those that could be expanded.
        rejected: how many could not, by reason: `not_json`, `unknown_route`, `not_expandable`.
        unknown_config: expanded by the current revision, because their own is not known.
        error: what was wrong with the last rejected one.
        evidence: what the pairs count for ramps; None where there is no ramp.
        reached_ms: all that was written to the journal before this is in these lines, or in earlier
            ones; wall clock, 0: not known.
    """

    pairs: list[Pair] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    unknown_config: int = 0
    error: str = ""
    evidence: BatchEvidence | None = None
    reached_ms: int = 0

    @property
    def newest_ms(self) -> int:
        """When the newest of its pairs began, wall clock; 0 without pairs."""
        return max((pair.ts_ms for pair in self.pairs), default=0)


#: Lines expanded before the processor is offered to others, about 0.1 ms; one of so many bytes takes as long.
_LINES_PER_TURN: Final = 4
_LONG_LINE_BYTES: Final = 16 * 1024


class PairMaker:
    """Expands journal lines, with one prepared `Expander` per revision and route.

    Args:
        config: the current revision.
        spans: gets each record for its spans; None where none are exported.
        gates: say what counts for ramps; None where there is no ramp.
    """

    def __init__(
        self, config: Config, spans: SpanSink | None = None, gates: Gates | None = None
    ) -> None:
        self._spans = spans
        self._gates = gates
        self._current = _expanders(config)
        self._directory = Path(config.state_dir) / "config"
        self._revisions: dict[str, dict[str, Expander] | None] = {config.version: self._current}

    def begin(self) -> Expansion:
        """Return what the lines of one window are to be added to."""
        return Expansion(evidence=None if self._gates is None else self._gates.batch())

    def expand(self, lines: list[bytes], into: Expansion) -> None:
        """Add what becomes of `lines` to `into`."""
        for number, line in enumerate(lines):
            if not number % _LINES_PER_TURN or len(line) > _LONG_LINE_BYTES:
                step_aside()
            try:
                into.pairs.append(self._pair(orjson.loads(line), into))
            except orjson.JSONDecodeError as exc:
                into.rejected["not_json"] += 1
                into.error = f"a line is not JSON: {exc}"
            except _UnknownRouteError as exc:
                into.rejected["unknown_route"] += 1
                into.error = f"no route {exc} in the line's config"
            except Exception as exc:  # noqa: BLE001 - whatever one line does, the next one counts
                into.rejected["not_expandable"] += 1
                into.error = f"a line cannot be expanded: {type(exc).__name__}: {exc}"

    def _pair(self, fields: dict[str, Any], into: Expansion) -> Pair:
        expanders = self._revision(fields["config_version"])
        if expanders is None:
            into.unknown_config += 1
            expanders = self._current
        expander = expanders.get(fields["route"])
        if expander is None:
            raise _UnknownRouteError(repr(fields["route"]))
        value, record = expander.expand_json(fields)
        if into.evidence is not None:
            into.evidence.note(record)
        if self._spans is not None:
            number = expander.numbers.get(record["candidate"], 0)
            self._spans.offer(record, fields["ts_us"], number)
        return _new(Pair, (*_NAMES(record), value, *_TRACE(record)))

    def _revision(self, version: str) -> dict[str, Expander] | None:
        """Return the expanders of a revision by route; None when it is not known."""
        if version not in self._revisions:
            while len(self._revisions) >= _MAX_REVISIONS:
                self._revisions.pop(next(iter(self._revisions)))
            self._revisions[version] = self._load(version)
        return self._revisions[version]

    def _load(self, version: str) -> dict[str, Expander] | None:
        if not _VERSION.fullmatch(version):
            return None  # it becomes part of a path
        try:
            return _expanders(loads((self._directory / f"{version}.json").read_bytes()))
        except (OSError, ValueError, KeyError, TypeError):
            return None


class _UnknownRouteError(LookupError):
    """A line names a route that its config does not have."""


def _expanders(config: Config) -> dict[str, Expander]:
    return {
        route.name: Expander(route, config.record, __version__, step_aside)
        for route in config.routes
    }
