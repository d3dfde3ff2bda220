"""What recorded pairs say, what is simulated for them, and in which words."""

from __future__ import annotations

import pytest

from proxy.analysis.plan_text import about, document, rounded
from proxy.analysis.planning import Assumed, answer, measure, question_of
from proxy.errors import SourceError, UnderstudyError
from tests.support.records import pair


def assumed(**changes: object) -> Assumed:
    """Return 4% at 50 requests/s and a margin of 0.01."""
    given = {
        "margin": 0.01, "disagreement": 0.04, "rate": 50.0, "mirror": 1.0, "replicate": 1.0,
        "difference": None, "harms": (), "max_pairs": 1_000_000,
    }  # fmt: skip
    return Assumed(**(given | changes))  # type: ignore[arg-type]


def test_disagreement_and_rate_are_taken_from_pairs() -> None:
    """A pair each second, every fourth of which differs; one that is not comparable counts not."""
    records = [pair(seq, 1, 2 if seq % 4 == 0 else 1) for seq in range(41)]
    records.append(pair(20, 1, 1, candidate_status="timeout", candidate_body=None))
    found = measure(records)
    assert found.pairs == 41
    assert found.disagreement == pytest.approx(11 / 41)
    assert found.difference == pytest.approx(11 / 41)
    assert found.pairs_per_s == pytest.approx(41 / 40)
    assert not found.has_noise_floor


def test_where_some_pairs_have_a_replicate_only_they_count() -> None:
    """As in the gate: here the primary disagrees with itself just as often."""
    records = [pair(seq, 1, 2) for seq in range(10)]
    records += [pair(10 + seq, 1, 2, replicate=2) for seq in range(5)]
    records += [pair(20 + seq, 1, 1, replicate=2) for seq in range(5)]
    found = measure(records)
    assert (found.pairs, found.disagreement, found.difference) == (10, 0.5, -0.5)
    assert found.has_noise_floor


def test_pairs_of_two_candidates_are_no_plan() -> None:
    """The error names them, and how to choose."""
    with pytest.raises(SourceError, match="iris/v2, iris/v3: say which by --route"):
        measure([pair(1), pair(2, candidate="v3")])
    with pytest.raises(SourceError, match="no comparable pair"):
        measure([])


def test_what_is_asked_comes_before_what_is_recorded() -> None:
    """And the recorded difference is tried beside none and the harms."""
    recorded = measure([pair(seq, 1, 2 if seq % 50 == 0 else 1) for seq in range(101)])
    question = question_of(assumed(disagreement=None, rate=None), recorded)
    assert question.disagreement == pytest.approx(3 / 101)
    assert question.pairs_per_s == pytest.approx(1.01)
    assert question.differences == (0.0, 0.0297, 0.02, 0.03)
    question = question_of(assumed(mirror=0.5, replicate=0.02, difference=0.005), recorded)
    assert question.disagreement == 0.04
    assert question.pairs_per_s == pytest.approx(0.5)
    assert question.differences == (0.005, 0.02, 0.03)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"margin": 0.0}, "--margin 0"),
        ({"disagreement": None}, "--disagreement, such as 4%, or --from"),
        ({"harms": (2.0,)}, "a difference of 2"),
    ],
)
def test_numbers_out_of_range_are_refused(changes: dict[str, object], message: str) -> None:
    """Before anything is simulated."""
    with pytest.raises(UnderstudyError, match=message):
        question_of(assumed(**changes), None)


def test_a_harm_beyond_the_disagreement_raises_it() -> None:
    """A candidate that is 10 points worse differs in a tenth of the pairs at least."""
    question = question_of(assumed(harms=(0.1,)), None)
    forecasts = answer(question)
    assert [found.trial.disagreement for found in forecasts] == [0.04, 0.1]
    found = document(question, None, forecasts)
    assert found["forecasts"][0]["likely"] == "promote"
    halt = found["forecasts"][1]["halt"]
    assert halt["median_s"] == pytest.approx(halt["median_pairs"] / 50)
    assert found["forecasts"][1]["likely"] == "halt"


def test_a_verdict_that_half_of_the_experiments_miss_is_none() -> None:
    """At the margin itself nothing is decided."""
    question = question_of(assumed(difference=0.01, max_pairs=20_000), None)
    found = document(question, None, answer(question))["forecasts"][0]
    assert found["likely"] is None
    assert found["undecided"] > 0.85
    assert found["promote"]["median_pairs"] is None


@pytest.mark.parametrize(
    ("duration_s", "words"),
    [
        (0.3, "under a second"), (1, "about 1 second"), (59, "about 59 seconds"),
        (61, "about 1 minute"), (5_400, "about 1.5 hours"), (86_400 * 12.4, "about 12 days"),
        (59.96, "about 1 minute"), (86_400 * 1234, "about 1,200 days"),
    ],
)  # fmt: skip
def test_durations_are_said_in_words(duration_s: float, words: str) -> None:
    """With what the simulation knows: two digits."""
    assert about(duration_s) == words


def test_pairs_are_rounded() -> None:
    """Likewise."""
    assert [rounded(pairs) for pairs in (7, 3_058, 1_556_530)] == ["7", "3,100", "1,600,000"]
