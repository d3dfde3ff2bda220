"""`understudy plan` as a person and as a program meet it."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from tests.support.instance import understudy
from tests.support.records import pair, write_pairs


def test_a_plan_is_a_table_and_sentences() -> None:
    """The same for the same question; hours where a rate is known."""
    done = understudy("plan", "--disagreement", "4%", "--rate", "100", "--mirror", "50%")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Margin 0.01; 4.00% of the pairs differ; 50 pairs/s.\n")
    said = " ".join(done.stdout.split())
    assert "If the candidate is as good as the primary, expect `promote` after" in said
    assert "If the candidate is 0.03 worse than the primary, expect `halt` after" in said
    assert "about 1 minute" in said
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_recorded_pairs_give_disagreement_and_rate(tmp_path: Path) -> None:
    """One pair a second, of which every tenth differs: without replicates that counts in full."""
    records = [pair(n, 3, 8 if n % 10 == 0 else 3) for n in range(1, 101)]
    path = write_pairs(tmp_path / "a.ndjson.zst", records)
    done = understudy("plan", "--from", str(path), "--json")
    assert done.returncode == 0, done.stderr
    found = orjson.loads(done.stdout)
    assert found["disagreement"] == found["recorded"]["difference"] == 0.1
    assert found["pairs_per_s"] == pytest.approx(100 / 99)
    assert [one["true_difference"] for one in found["forecasts"]] == [0.0, 0.1, 0.02, 0.03]
    assert found["forecasts"][1]["likely"] == "halt"
    words = understudy("plan", "--from", str(path)).stdout
    assert "No pair has a replicate" in words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "say --disagreement"),
        (("--disagreement", "4"), "--disagreement: 4 has no percent sign; write 4%"),
    ],
)
def test_what_is_missing_or_wrong_is_said(words: tuple[str, ...], message: str) -> None:
    """With what to write instead."""
    done = understudy("plan", *words)
    assert done.returncode == 1
    assert message in done.stderr
