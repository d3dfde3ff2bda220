"""`understudy pairs` as a person and as a program meet it."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest

from tests.support.deadline import PATIENCE_S, START_PATIENCE_S, wait_for
from tests.support.instance import COMMAND, understudy
from tests.support.records import NUMERIC, frames, pair, write_pairs

#: The command, whose sources end with a wait for ever before their last pairs.
NEVER_ENDING = (
    sys.executable,
    "-c",
    """
import signal, sys
from proxy.analysis import sources
from proxy.cli.app import main

whole = sources.FileSource.__iter__


def endless(self):
    for number, record in enumerate(whole(self)):
        if number == 1_900:
            signal.pause()
        yield record


sources.FileSource.__iter__ = endless
main(sys.argv[1:])
""",
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return a state directory with 40 pairs, 10 of which came twice."""
    pairs = [
        pair(
            n, [1.0, 2.0], [1.0, 2.3 if n % 10 == 0 else 2.0], compare=NUMERIC,
            **({"candidate_status": "timeout"} if n % 7 == 0 else {}),
        )
        for n in range(1, 41)
    ]  # fmt: skip
    write_pairs(tmp_path / "pairs" / "1.ndjson.zst", [*pairs, *pairs[:10]])
    return tmp_path


def test_tail_shows_a_line_a_pair(log: Path) -> None:
    """Time, candidate, how both ended, whether they agree, id; no colour in a pipe."""
    done = understudy("pairs", "tail", "--from", str(log), "-n", "6")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert lines[-1] == (
        "2023-11-14 22:14:00.000  iris/v2  primary 200 in 2.00 ms, candidate 200 in 2.00 ms  "
        f"differs at y[1]  {pair(40)['pair_id']}"
    )
    assert "candidate timeout in 2.00 ms  not comparable: candidate_failed" in lines[0]


def test_tail_as_json_is_the_records(log: Path) -> None:
    """Filters as for a person."""
    done = understudy(
        "pairs", "tail", "--from", str(log), "--json", "--different", "--route", "iris",
        "--until", "2023-11-14T22:13:55Z",
    )  # fmt: skip
    found = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert [each["seq"] for each in found] == [10, 20, 30]
    assert found[0] == pair(10, [1.0, 2.0], [1.0, 2.3], compare=NUMERIC)


def test_tail_says_when_there_is_nothing(log: Path) -> None:
    """On stderr, so that a program still reads nothing, and it is no error."""
    done = understudy("pairs", "tail", "--from", str(log), "--route", "other", "--json")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"no such pairs in {log}\n"


def test_tail_follows_until_ctrl_c(log: Path) -> None:
    """What is appended comes at once; the end is quiet."""
    process = subprocess.Popen(
        [*COMMAND, "pairs", "tail", "--from", str(log), "-n", "1", "-f", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert orjson.loads(process.stdout.readline())["seq"] == 40
        with (log / "pairs" / "1.ndjson.zst").open("ab") as file:
            file.write(frames([pair(41)]))
        assert orjson.loads(process.stdout.readline())["seq"] == 41
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=PATIENCE_S) == (b"", b"")
        assert process.returncode == 130
    finally:
        process.kill()
        process.wait()


def test_a_reader_that_has_enough_gets_no_traceback(log: Path) -> None:
    """As with `| head -1`."""
    done = subprocess.run(
        f"{sys.executable} -m proxy pairs tail --from {log} -n 40 --json | head -c 10",
        shell=True, capture_output=True, timeout=START_PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.stderr == b""


def test_show_puts_both_answers_side_by_side(log: Path) -> None:
    """What differs is marked, path by path, and all else is there."""
    done = understudy("pairs", "show", pair(40)["pair_id"], "--from", str(log))
    assert done.returncode == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[0] == "iris/v2 differs at y[1]"
    assert lines[1].startswith("2023-11-14T22:14:00.000000Z numeric, abs_diff 0.300, rel_diff")
    assert "primary candidate" in lines
    assert "prediction[0] 1.0 1.0" in lines
    assert "≠ prediction[1] 2.0 2.3" in lines
    assert "≠ body.y[1] 2.0 2.3" in lines
    assert "latency_ms 2.0 2.0" in lines
    assert "request_id r-40" in lines
    assert "method POST" in lines
    assert "mode shadow" in lines


def test_show_says_all_there_is_in_json_and_exits_1_without_any(log: Path) -> None:
    """Both ids are taken."""
    done = understudy("pairs", "show", "r-5", "--from", str(log), "--json")
    assert orjson.loads(done.stdout)["pair_id"] == pair(5)["pair_id"]
    done = understudy("pairs", "show", "r-500", "--from", str(log), "--json")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: no pair r-500 in {log}\n"


def test_show_cannot_be_made_to_move_the_cursor(tmp_path: Path) -> None:
    """Answers and names come from outside; markup in them is text."""
    evil = "\x1b[2J[bold]x[/bold]"
    write_pairs(tmp_path / "a.ndjson.zst", [pair(1, evil, f"{evil}!", path=evil)])
    for words in (("tail",), ("show", "r-1")):
        done = understudy("pairs", *words, "--from", str(tmp_path))
        assert done.returncode == 0
        assert "\x1b" not in done.stdout
        assert ("[bold]x[/bold]" in done.stdout) == (words[0] == "show")


def test_a_long_answer_is_shown_by_what_differs(tmp_path: Path) -> None:
    """All of it with --all."""
    primary = list(range(1000))
    candidate = [-n if n >= 900 else n for n in primary]
    write_pairs(tmp_path / "a.ndjson.zst", [pair(1, primary, candidate)])
    short = understudy("pairs", "show", "r-1", "--from", str(tmp_path)).stdout
    assert short.count("≠ prediction") == 40
    assert "… 60 more that differ" in short
    assert "… 890 more that are the same" in short
    long = understudy("pairs", "show", "r-1", "--from", str(tmp_path), "--all").stdout
    assert long.count("≠ prediction") == 100
    assert "more that" not in long


def test_export_writes_each_pair_once_and_says_so(log: Path, tmp_path: Path) -> None:
    """On stderr for a person, on stdout for a program."""
    out = tmp_path / "pairs.parquet"
    words = ("pairs", "export", "--from", str(log), "--to", "parquet", "--out", str(out))
    done = understudy(*words)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"40 pairs in {out}; 10 delivered again and left out\n"
    assert pq.read_table(out)["seq"].to_pylist() == [*range(1, 41)]
    said = orjson.loads(understudy(*words, "--json", "--failed", "--columns", "seq").stdout)
    assert (said["pairs"], said["file"], said["bytes"]) == (5, str(out), out.stat().st_size)
    assert pq.read_table(out).to_pydict() == {"seq": [7, 14, 21, 28, 35]}


def test_export_to_stdout_is_for_pipes(log: Path) -> None:
    """NDJSON and CSV; Parquet needs a file."""
    words = ("pairs", "export", "--from", str(log), "--out", "-")
    done = understudy(*words, "--to", "csv", "--columns", "seq,equal", "--different")
    assert done.stdout.split() == ["seq,equal", "10,false", "20,false", "30,false", "40,false"]
    done = understudy(*words, "--to", "parquet")
    assert (done.returncode, done.stdout) == (1, "")
    assert "give --out FILE" in done.stderr


def test_an_export_that_is_stopped_leaves_nothing(tmp_path: Path) -> None:
    """SIGTERM in the middle: neither the file nor a part of it."""
    write_pairs(tmp_path / "in" / "1.ndjson.zst", [pair(n, "x" * 500) for n in range(2_000)])
    out = tmp_path / "out"
    out.mkdir()
    process = subprocess.Popen(
        [*NEVER_ENDING, "pairs", "export", "--from", str(tmp_path / "in"), "--to", "csv",
         "--out", str(out / "a.csv")],
        stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_for(lambda: [each for each in out.iterdir() if each.stat().st_size], "the first bytes")
    process.terminate()
    assert process.communicate(timeout=PATIENCE_S)[1] == b""
    assert process.returncode == 143
    assert list(out.iterdir()) == []


def test_without_a_source_the_instance_of_the_folder_is_meant(log: Path, tmp_path: Path) -> None:
    """Its state directory by the config; without either, the error says what to give."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "understudy.yaml").write_text(
        "backends: {a: {endpoints: ['http://127.0.0.1:1']}}\nroutes: [{name: r, primary: a}]\n"
        f"state_dir: {log}\n"
    )
    done = understudy("pairs", "tail", "-n", "1", cwd=folder)
    assert (done.returncode, done.stderr, done.stdout[:4]) == (0, "", "2023")
    done = understudy("pairs", "tail", cwd=tmp_path)
    assert done.returncode == 1
    assert "say --from SOURCE" in done.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("tail", "--from", "nowhere"), "there is nothing at nowhere"),
        (("tail", "--from", "kafka://127.0.0.1:1/t"), "cannot reach a Kafka broker"),
        (("show", "x", "--from", "ftp://x"), "a source is a path or kafka://"),
        (("export", "--from", ".", "--to", "csv", "--out", "no/a.csv"), "cannot write no/a.csv"),
        (("export", "--from", ".", "--to", "csv", "--out", "-", "--columns", "eqal"), "'equal'"),
        (("tail", "--from", ".", "--since", "soon"), "'soon' is no time"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_1(
    tmp_path: Path, words: tuple[str, ...], reason: str
) -> None:
    """Never a traceback."""
    done = understudy("pairs", *words, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


def test_progress_is_for_terminals_and_gone_at_the_end(log: Path, tmp_path: Path) -> None:
    """On stderr, so that stdout is what a program reads."""
    leader, follower = pty.openpty()
    with os.fdopen(follower, "w") as terminal:
        done = subprocess.run(
            [*COMMAND, "pairs", "export", "--from", str(log), "--to", "csv", "--out", "-"],
            stdout=subprocess.PIPE, stderr=terminal, timeout=START_PATIENCE_S, check=True,
            env={**os.environ, "TERM": "xterm"},
        )  # fmt: skip
    shown = b""
    with os.fdopen(leader, "rb", 0) as screen, suppress(OSError):  # which is its end
        while piece := screen.read(100_000):
            shown += piece
    assert b"reading" in shown
    assert b"reading" not in done.stdout
    assert b"40 pairs in -" in shown
