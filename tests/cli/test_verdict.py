"""`understudy verdict` as a pipeline meets it: one sentence, an exit code, a record."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.analysis.verdict_report import read_record
from proxy.cli.entry import run
from proxy.comparison.verdict import judge
from proxy.comparison.verdict_json import counts_of, dumps as verdict_dumps
from proxy.config.load import load_config
from proxy.config.resolved import dumps
from tests.support.deadline import START_PATIENCE_S
from tests.support.records import frames, pair, write_pairs

GATES = """
backends: {a: {endpoints: ["http://127.0.0.1:9001"]}, b: {endpoints: ["http://127.0.0.1:9002"]}}
routes:
  - name: iris
    primary: a
    candidates: [{name: v2, backend: b, mirror: 100%, weight: 0%}]
    ramp:
      steps: [{weight: 10%}]
      gates: [{metric: availability, margin: 0.05}]
"""


def verdict(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command; its output is no terminal."""
    return subprocess.run(
        [sys.executable, "-m", "proxy", "verdict", *arguments],
        capture_output=True,
        text=True,
        timeout=START_PATIENCE_S,
        check=False,
    )


def pairs(tmp_path: Path, differing: int, count: int = 1_000, **changes: Any) -> str:
    """Write so many pairs, of which every `differing`th differs (0: none); return where."""
    records = [
        pair(n, 1, 2 if differing and n % differing == 0 else 1, **changes)
        for n in range(1, count + 1)
    ]
    return str(write_pairs(tmp_path / "state" / "pairs" / "1.ndjson.zst", records).parent.parent)


@pytest.mark.parametrize(
    ("differing", "options", "code", "words"),
    [
        (0, ("--metric", "agreement", "--margin", "2%"), 0, "promote. Equivalent within"),
        (8, (), 2, "halt. More disagreement than the margin allows, after 1,000 pairs"),
        (0, (), 3, "continue. Not decided after"),
        (0, ("--candidate", "v9"), 3, "no_data. No data about"),
        (0, ("--metric", "latency", "--budget", "1ms", "--margin", "latency=0.05"), 0, "promote."),
    ],
)
def test_the_first_line_and_the_exit_code_say_the_verdict(
    tmp_path: Path, differing: int, options: tuple[str, ...], code: int, words: str
) -> None:
    """Numbers are in the sentence; gates follow, one a line."""
    done = verdict("--from", pairs(tmp_path, differing), *options)
    assert done.returncode == code
    assert ("none of the 1,000 in" in done.stderr) == ("v9" in options)
    first, *rest = done.stdout.splitlines()
    assert words in first
    assert first.startswith("iris/v" if "v9" not in options else "?/v9")
    assert any(line.split()[0] in ("agreement", "latency") for line in rest)


def test_the_json_is_a_record_that_gives_the_same_verdict_again(tmp_path: Path) -> None:
    """With counts, parameters and offsets in it, and an error where they do not fit."""
    source = pairs(tmp_path, 8)
    done = verdict("--from", source, "--json")
    assert done.returncode == 2
    told = orjson.loads(done.stdout)
    (where, end), = told["record"]["counts"]["offsets"]  # fmt: skip
    assert (where, end) == ("1.ndjson.zst", told["source"]["total"])
    path = tmp_path / "verdict.json"
    path.write_text(done.stdout)
    again = verdict("--from-record", str(path))
    assert (again.returncode, again.stderr) == (2, "")
    assert again.stdout.splitlines()[0] == told["sentence"]
    told["record"]["counts"]["gates"][0]["overall"]["cells"][0][2] += 1
    path.write_bytes(orjson.dumps(told))
    forged = verdict("--from-record", str(path))
    assert forged.returncode == 1
    assert "its counts give" in forged.stderr


def test_the_gates_are_those_of_the_instances_ramp(tmp_path: Path) -> None:
    """Of the state directory that is read, or of a config that is named."""
    source = pairs(tmp_path, 8)
    config = tmp_path / "understudy.yaml"
    config.write_text(GATES)
    done = verdict("--from", source, "--config", str(config))
    assert done.returncode == 0
    assert "gates from: config" in done.stdout
    resolved = load_config(config, {})
    folder = Path(source) / "config"
    folder.mkdir()
    (folder / f"{resolved.version}.json").write_bytes(dumps(resolved))
    for name in (source, f"{source}/pairs"):
        done = verdict("--from", name)
        assert (done.returncode, "availability" in done.stdout) == (0, True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--bogus",), "No such option"),
        (("--metric", "beauty"), "beauty"),
        ((), "--from SOURCE"),
        (("--from", "nothing"), "there is nothing at"),
        (("--from", ".", "--margin", "0.01"), "a share alone needs --metric"),
        (("--from", ".", "--margin", "agreement=2"), "between 0 and 1"),
        (("--from", ".", "--budget", "5"), "--budget 5"),
        (("--from-record", "nothing"), "cannot read nothing"),
    ],
)
def test_an_error_is_never_a_halt(options: tuple[str, ...], words: str) -> None:
    """Wrong usage, too, is exit code 1: 2 would roll back."""
    done = verdict(*options)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr


def test_several_candidates_must_be_chosen_from(tmp_path: Path) -> None:
    """Their names are told."""
    records = [pair(n, candidate=f"v{2 + n % 2}") for n in range(1, 20)]
    path = write_pairs(tmp_path / "1.ndjson.zst", records)
    done = verdict("--from", str(path))
    assert done.returncode == 1
    assert "iris/v2, iris/v3: choose" in done.stderr
    assert verdict("--from", str(path), "--candidate", "v2").returncode == 3
    misspelt = verdict("--from", str(path), "--candidate", "v9")
    assert (misspelt.returncode, "none of the 19 in" in misspelt.stderr) == (3, True)


def test_every_decision_of_a_log_is_made_again(tmp_path: Path) -> None:
    """From the evidence that a ramp's decisions carry; one that was changed is found out."""
    records = [pair(n, 1, 2 if n % 9 == 0 else 1) for n in range(1, 400)]
    source = str(write_pairs(tmp_path / "1.ndjson.zst", records))
    record = orjson.loads(verdict("--from", source, "--json").stdout)["record"]
    decision = {"ts": "2026-01-01T00:00:00Z", "action": "ramp_halt", "scope": "iris/v2"}
    log = tmp_path / "decisions.ndjson"
    lines = [{"action": "kill", "scope": "*"}, decision | {"evidence": record}]
    log.write_bytes(b"\n".join([*map(orjson.dumps, lines), b'{"cut']))
    done = verdict("--from-record", str(log))
    assert (done.returncode, "ramp_halt iris/v2: iris/v2: halt." in done.stdout) == (0, True)
    assert "1 decisions come out of their counts, bit for bit." in done.stdout
    record["counts"]["gates"][0]["overall"]["cells"][0][2] += 1
    log.write_bytes(orjson.dumps(decision | {"evidence": record}))
    done = verdict("--from-record", str(log), "--json")
    assert (done.returncode, orjson.loads(done.stdout)["decisions"][0]["verdict"]) == (1, None)
    assert "1 of 1 decisions do not come out of their counts" in done.stderr
    log.write_text("")
    assert "no decision in it carries a verdict" in verdict("--from-record", str(log)).stderr


def test_a_log_gives_its_verdict_again_however_far_it_has_grown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bit for bit; a log that was changed, and one that is gone, is an error and no verdict."""
    log = tmp_path / "log"
    records = [pair(n, 1, 2 if n % 9 == 0 else 1) for n in range(1, 400)]
    first = write_pairs(log / "1.ndjson.zst", records)
    assert run(["verdict", "--from", str(log), "--until", "2030-01-01T00:00:00Z", "--json"]) == 2
    written = tmp_path / "verdict.json"
    written.write_text(capsys.readouterr().out)
    later = frames(pair(n) for n in range(400, 500))
    first.write_bytes(first.read_bytes() + later)
    (log / "2.ndjson.zst").write_bytes(later)
    assert run(["verdict", "--from", str(log), "--check", str(written)]) == 2
    assert "the same, bit for bit" in capsys.readouterr().out
    lied = orjson.loads(written.read_bytes())
    lied["record"]["counts"]["gates"][1]["overall"]["cells"][0][2] += 1
    changed = judge(counts_of(lied["record"]["counts"]), read_record(written.read_bytes()).params)
    wrong = tmp_path / "wrong.json"
    wrong.write_bytes(orjson.dumps({"record": orjson.Fragment(verdict_dumps(changed))}))
    assert run(["verdict", "--from", str(log), "--check", str(wrong)]) == 1
    assert "does not give the verdict" in capsys.readouterr().err
    first.unlink()
    assert run(["verdict", "--from", str(log), "--check", str(written)]) == 1
    assert "is not there any more" in capsys.readouterr().err
