"""`understudy compare` as a person and as a program meet it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson

from tests.support.deadline import START_PATIENCE_S
from tests.support.records import pair, write_pairs


def compare(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command; its output is no terminal."""
    return subprocess.run(
        [sys.executable, "-m", "proxy", "compare", *arguments],
        capture_output=True,
        text=True,
        timeout=START_PATIENCE_S,
        check=False,
    )


def test_a_state_directory_is_compared(tmp_path: Path) -> None:
    """The report goes to stdout without colour, and nothing to stderr."""
    records = [pair(n, 3, 8 if n % 10 == 0 else 3) for n in range(1, 101)]
    write_pairs(tmp_path / "pairs" / "1.ndjson.zst", records)
    done = compare("--from", str(tmp_path), "--worst", "2")
    assert (done.returncode, done.stderr) == (0, "")
    first = "iris/v2: Stop: its answers differ more than allowed. More disagreement than"
    assert done.stdout.startswith(first)
    assert "90.0%" in done.stdout
    assert "\x1b" not in done.stdout
    assert "r-20" in done.stdout
    assert "r-30" not in done.stdout


def test_json_is_one_object_and_the_selection_is_obeyed(tmp_path: Path) -> None:
    """What was asked for is in it."""
    records = [pair(n, candidate="v2" if n % 2 else "v3") for n in range(1, 101)]
    path = write_pairs(tmp_path / "a.ndjson.zst", records)
    done = compare(
        "--from", str(path), "--json", "--route", "iris", "--candidate", "v3",
        "--since", "2023-11-14T22:13:51Z", "--until", "1h",
    )  # fmt: skip
    assert done.returncode == 0
    value = orjson.loads(done.stdout)
    assert value["source"]["name"] == str(path)
    assert value["selection"]["candidate"] == "v3"
    assert [c["candidate"] for c in value["comparisons"]] == ["v3"]
    assert value["comparisons"][0]["pairs"] == 35


def test_no_pairs_is_no_error(tmp_path: Path) -> None:
    """But says how to get some."""
    done = compare("--from", str(tmp_path))
    assert done.returncode == 0
    assert done.stdout.startswith("No pairs in ")
    assert "understudy serve" in done.stdout


def test_what_cannot_be_read_is_one_line_and_exit_1(tmp_path: Path) -> None:
    """Never a traceback, and quickly where no broker listens."""
    for source, words in (
        (str(tmp_path / "nothing"), "there is nothing at"),
        ("kafka://127.0.0.1:1/shadow.pairs.v1", "cannot reach a Kafka broker at 127.0.0.1:1"),
        ("ftp://x/y", "a source is a path or kafka://"),
    ):
        done = compare("--from", source)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("error: ")
        assert words in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_wrong_time_is_one_line_and_exit_1(tmp_path: Path) -> None:
    """The line shows how to write one."""
    done = compare("--from", str(tmp_path), "--since", "yesterday")
    assert done.returncode == 1
    assert "15m, 2h or 7d" in done.stderr


def test_reports_are_written_to_files_beside_the_terminals(tmp_path: Path) -> None:
    """Said on stderr, so that JSON for a program may go to stdout."""
    records = [pair(n, 3, 8 if n % 10 == 0 else 3) for n in range(1, 101)]
    path = write_pairs(tmp_path / "a.ndjson.zst", records)
    html, markdown = tmp_path / "r.html", tmp_path / "r.md"
    done = compare(
        "--from", str(path), "--html", str(html), "--markdown", str(markdown), "--one-look", "--json",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, f"wrote {html}\nwrote {markdown}\n")
    tests = orjson.loads(done.stdout)["candidates"][0]["one_look"]
    assert {test["test"] for test in tests} == {"McNemar", "bootstrap, 95%", "TOST, 90%", "TOST"}
    assert html.read_text().startswith("<!doctype html>")
    for text in (html.read_text(), markdown.read_text()):
        assert "One-look tests" in text
        assert "Stop: its answers differ more than allowed" in text


def test_a_report_that_cannot_be_written_is_told_before_anything_is_read(tmp_path: Path) -> None:
    """One line that says why."""
    for path, words in (
        (tmp_path / "no" / "r.html", "there is no folder"),
        (tmp_path, "it is a folder; name a file in it"),
    ):
        done = compare("--from", str(tmp_path / "nothing"), "--html", str(path))
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"error: cannot write {path}: {words}")
        assert done.stderr.count("\n") == 1
