"""How a plan is said: a table and a few sentences for people, JSON for programs.

Pairs are rounded to two significant digits where people read them: the simulation knows no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson
from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from proxy.analysis.planning import Question, Recorded
from proxy.comparison.plan import Duration, Forecast

#: A verdict that fewer experiments come to is not to be waited for.
_LIKELY: Final = 0.5
_UNITS: Final = ((86_400.0, "day"), (3_600.0, "hour"), (60.0, "minute"), (1.0, "second"))


def expected(found: Forecast) -> tuple[str, Duration] | None:
    """Return what at least half of the experiments say, and when; None: no verdict is likely."""
    likelier = max(
        (("promote", found.promote), ("halt", found.halt)), key=lambda each: each[1].share
    )
    return likelier if likelier[1].share >= _LIKELY else None


def blocks(
    question: Question, recorded: Recorded | None, forecasts: tuple[Forecast, ...]
) -> Iterator[RenderableType]:
    """Yield the parts of the plan for a terminal."""
    yield Text(_assumed(question, recorded))
    yield _table(question, forecasts)
    for found in forecasts:
        yield Text(_sentence(question, found))
    if recorded is not None and not recorded.has_noise_floor and recorded.disagreement:
        yield Text(
            "No pair has a replicate: each disagreement counts against the candidate, also where the "
            "primary would disagree with itself. `replicate: 2%` on the route measures that."
        )


def document(
    question: Question, recorded: Recorded | None, forecasts: tuple[Forecast, ...]
) -> dict[str, Any]:
    """Return the plan as a value for JSON; times are in seconds, null where no rate is known."""
    return {
        "margin": question.margin,
        "disagreement": question.disagreement,
        "pairs_per_s": question.pairs_per_s or None,
        "max_pairs": question.max_pairs,
        "recorded": None if recorded is None else orjson.loads(orjson.dumps(recorded)),
        "forecasts": [
            {
                "true_difference": found.trial.difference,
                "disagreement": found.trial.disagreement,
                "likely": said[0] if (said := expected(found)) else None,
                "undecided": found.undecided,
                "promote": _as_json(question, found.promote),
                "halt": _as_json(question, found.halt),
            }
            for found in forecasts
        ],
    }


def about(duration_s: float) -> str:
    """Return a duration in words, with two significant digits at most: `about 1 minute`."""
    if duration_s < 1:
        return "under a second"
    for unit_s, name in _UNITS:
        count = float(f"{duration_s / unit_s:.2g}")
        if count >= 1:
            return f"about {count:,g} {name}{'' if count == 1 else 's'}"
    return "about 1 second"


def _short(duration_s: float) -> str:
    """Return `about` in a table's cell: `57 s`, `2.3 min`, `1.5 h`."""
    text = about(duration_s).removeprefix("about ")
    for word, unit in (("second", "s"), ("minute", "min"), ("hour", "h")):
        text = text.replace(f"{word}s", unit).replace(word, unit)
    return text.replace("under a s", "< 1 s")


def rounded(pairs: int) -> str:
    """Return a number of pairs with two significant digits."""
    return f"{int(float(f'{pairs:.2g}')):,}"


def _assumed(question: Question, recorded: Recorded | None) -> str:
    words = f"Margin {question.margin:g}; {question.disagreement:.2%} of the pairs differ"
    if question.pairs_per_s:
        words += f"; {question.pairs_per_s:,.3g} pairs/s"
    if recorded is not None:
        words += (
            f"; recorded: {recorded.pairs:,} comparable pairs, "
            f"mean difference {recorded.difference:+.4f}"
        )
    return f"{words}."


def _table(question: Question, forecasts: tuple[Forecast, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("difference", justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for name in ("half: pairs", "9 of 10: pairs"):
        table.add_column(name, justify="right", no_wrap=True)
        if question.pairs_per_s:
            table.add_column("time", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    for found in forecasts:
        table.add_row(*_row(question, found))
    return table


def _row(question: Question, found: Forecast) -> list[str]:
    said = expected(found)
    verdict, duration = ("none likely", None) if said is None else said
    cells = [f"{found.trial.difference:+g}" if found.trial.difference else "0", verdict]
    for pairs in (None, None) if duration is None else (duration.median, duration.most):
        cells.append("-" if pairs is None else rounded(pairs))
        if question.pairs_per_s:
            cells.append("-" if pairs is None else _short(pairs / question.pairs_per_s))
    return [*cells, f"{found.undecided if duration is None else duration.share:.1%}"]


def _sentence(question: Question, found: Forecast) -> str:
    said = expected(found)
    trial = found.trial
    case = f"If the candidate is {_candidate(trial.difference)}"
    if said is None:
        why = ", for that is the margin itself" if trial.difference == trial.margin else ""
        return f"{case}, no verdict within {trial.max_pairs:,} pairs is likely{why}."
    verdict, duration = said
    assert duration.median is not None
    words = f"{case}, expect `{verdict}` after {rounded(duration.median)} pairs"
    if question.pairs_per_s:
        words += f": at {question.pairs_per_s:,.3g} pairs/s {about(duration.median / question.pairs_per_s)}"
    if duration.most is None:
        return f"{words}; one time in ten or more not within {trial.max_pairs:,}."
    return f"{words}; nine times of ten within {rounded(duration.most)}."


def _candidate(difference: float) -> str:
    if not difference:
        return "as good as the primary"
    return f"{abs(difference):g} {'worse' if difference > 0 else 'better'} than the primary"


def _as_json(question: Question, duration: Duration) -> dict[str, Any]:
    def seconds(pairs: int | None) -> float | None:
        return None if pairs is None or not question.pairs_per_s else pairs / question.pairs_per_s

    return {
        "share": duration.share,
        "median_pairs": duration.median,
        "p90_pairs": duration.most,
        "median_s": seconds(duration.median),
        "p90_s": seconds(duration.most),
    }
