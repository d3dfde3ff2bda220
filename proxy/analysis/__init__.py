"""What analysts run: sources of pairs, comparison reports, exports.

For notebooks and scripts, this package has the names of `__all__`; everything else in it is the
product's own and may change:

    from proxy import analysis

    pairs = analysis.pairs("./state", since="2h", columns=["request_id", "equal", "segments.tier"])
    pairs.polars()                          # also .arrow(), .numpy(), .batches()
    analysis.verdict("./state")             # shows itself: promote, halt or continue, and why
    analysis.compare(pairs)["v2"].save("report.html")

Importing it takes no time: a name is loaded when it is first used. Every error of these is a
`proxy.errors.UnderstudyError`, whose text says what to do.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from proxy.analysis.frames import Pairs, pairs
    from proxy.analysis.notebook import Findings, VerdictFindings, compare, verdict
    from proxy.analysis.opening import Truth

__all__ = ["Findings", "Pairs", "Truth", "VerdictFindings", "compare", "pairs", "verdict"]

#: The module that each public name is in.
_HOMES: Final = {
    "Findings": "notebook",
    "Pairs": "frames",
    "Truth": "opening",
    "VerdictFindings": "notebook",
    "compare": "notebook",
    "pairs": "frames",
    "verdict": "notebook",
}


def __getattr__(name: str) -> Any:
    """Load a public name on its first use (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), name)
    return value


def __dir__() -> list[str]:
    """Return the public names, which completion in a notebook shows."""
    return sorted({*globals(), *__all__})
