"""End to end through compare: noise halts nobody, and the one group that is served worse is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proxy.analysis.findings import CandidateFindings
from proxy.analysis.judging import Judging
from proxy.analysis.reports.build import page_of
from proxy.analysis.reports.markdown import markdown_of
from proxy.analysis.sources import open_source
from proxy.analysis.summarise import summarise
from proxy.analysis.summary import as_dict
from proxy.comparison.gates import Metric
from tests.support.records import START_MS, pair, write_pairs

#: Whether primary, candidate and replicate answered what they mostly do; wrong ones are all unlike.
Answers = tuple[bool, bool, bool]
_RIGHT = 1


def records(answers: list[Answers], segments: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Return pairs with replicates, one a second."""
    made = {
        each: pair(1, *((_RIGHT if is_right else wrong) for is_right, wrong in
                        zip(each[:2], (2, 3), strict=True)),
                   replicate=_RIGHT if each[2] else 4)
        for each in set(answers)
    }  # fmt: skip
    return [
        made[each]
        | {"seq": n, "ts_ms": START_MS + 1_000 * n, "request_id": f"r-{n}", "segments": group}
        for n, (each, group) in enumerate(zip(answers, segments, strict=True))
    ]


def compared(path: Path, found: list[dict[str, Any]]) -> CandidateFindings:
    """Return what `compare --from` says of a file of pairs."""
    source = open_source(str(write_pairs(path / "pairs.ndjson.zst", found)))
    (one,) = summarise(source).candidates
    return one


def answers_of(
    rng: np.random.Generator, count: int, wrong: tuple[float, float, float]
) -> list[Answers]:
    """Return whether the three calls answer right, each wrong with a probability of its own."""
    found = rng.random((count, 3)) >= np.array(wrong)
    return [(bool(p), bool(c), bool(r)) for p, c, r in found]


@pytest.mark.parametrize("seed", range(6))
def test_a_noisy_primary_and_an_equally_noisy_candidate_are_not_halted(
    tmp_path: Path, seed: int
) -> None:
    """The primary differs from itself in 2%, the candidate from it in 2%: twice the margin."""
    rng = np.random.default_rng(seed)
    answers = answers_of(rng, 4_000, (0.01, 0.01, 0.01))
    one = compared(tmp_path, records(answers, [{}] * len(answers)))
    (agreement,) = (gate for gate in one.verdict.gates if gate.metric == "agreement")
    assert agreement.has_noise_floor
    assert agreement.verdict in ("promote", "continue")
    assert one.verdict.verdict != "halt"
    assert one.agreement.noise_floor.rate == pytest.approx(0.02, abs=0.01)
    assert one.agreement.rate == pytest.approx(0.98, abs=0.01)


def test_without_replicates_the_same_noise_would_halt_it(tmp_path: Path) -> None:
    """So it is the noise floor that the test above shows."""
    answers = answers_of(np.random.default_rng(0), 4_000, (0.01, 0.01, 0.01))
    found = records(answers, [{}] * len(answers))
    for record in found:
        record |= {"replicate_status": None, "replicate_equal": None}
        record["loss_diff"] = 0.0 if record["equal"] else 1.0
    one = compared(tmp_path, found)
    assert (one.verdict.verdict, one.verdict.reason) == ("halt", "agreement: worse_than_margin")


@pytest.mark.parametrize("seed", range(3))
def test_one_group_of_ten_that_is_served_worse_is_named_and_no_other(seed: int) -> None:
    """Three points worse there and better elsewhere, so no worse on the whole; in the report, too."""
    rng = np.random.default_rng(100 + seed)
    groups = [f"g{number}" for number in range(10)]
    answers, segments = [], []
    for group in groups:
        wrong = (0.002, 0.034, 0.004) if group == "g7" else (0.002, 0.002, 0.004)
        answers += answers_of(rng, 2_400, wrong)
        segments += [{"language": group}] * 2_400
    order = rng.permutation(len(answers))
    summary = summarise(records([answers[n] for n in order], [segments[n] for n in order]))
    (one,) = summary.candidates
    assert [each.value for each in one.segments if each.flagged] == ["g7"]
    (agreement,) = (gate for gate in one.verdict.gates if gate.metric == "agreement")
    assert agreement.mean is not None
    assert agreement.mean < agreement.margin / 2
    assert one.verdict.reason == "agreement: worse_than_margin in language=g7"
    assert "where language=g7" in one.sentence
    assert "Over the margin: language=g7." in markdown_of(page_of(as_dict(summary)))


def test_a_group_whose_calls_fail_more_often_is_named_with_its_gate() -> None:
    """Answers are alike there, as far as there are any; users of one tier get fewer."""
    rng = np.random.default_rng(5)
    failed: dict[str, Any] = {
        "candidate_status": "timeout", "candidate_body": None, "candidate_http_status": None,
    }  # fmt: skip
    good, bad = pair(1), pair(1, **failed)
    found = []
    for number in range(12_000):
        group = f"t{number % 6}"
        fails = rng.random() < (0.02 if group == "t4" else 0.0005)
        place = {"seq": number, "ts_ms": START_MS + number, "segments": {"tier": group}}
        found.append((bad if fails else good) | place)
    summary = summarise(found, judging=Judging(margins={Metric.AVAILABILITY: 0.01}))
    (one,) = summary.candidates
    flagged = [(each.metric, each.value) for each in one.segments if each.flagged]
    assert flagged == [("availability", "t4")]
    assert one.verdict.reason == "availability: worse_than_margin in tier=t4"
    assert "Over the margin: tier=t4 (availability)." in markdown_of(page_of(as_dict(summary)))
