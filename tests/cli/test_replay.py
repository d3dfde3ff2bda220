"""`understudy replay` against what a real instance recorded from real traffic."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from proxy.analysis.export import Format, whole_file, write_pairs as write_parquet
from proxy.analysis.sources import FileSource, open_source
from tests.support.deadline import PATIENCE_S, START_PATIENCE_S, wait_for
from tests.support.instance import COMMAND, running, understudy
from tests.support.pair_log import wait_pairs
from tests.support.records import pair, write_pairs

#: The long form: `UNDERSTUDY_REPLAY_KILLS=200`.
KILLS = int(os.environ.get("UNDERSTUDY_REPLAY_KILLS", "2"))
REQUESTS = max(60, 3 * KILLS)
#: The command, with frames of a few pairs.
SMALL_FRAMES = (
    sys.executable,
    "-c",
    """
import sys
from proxy.analysis import replay_log
from proxy.cli.app import main

replay_log.FRAME_BYTES = 8_000
main(sys.argv[1:])
""",
)


def right(x: int) -> int:
    """Answer as the primary does."""
    return x % 7


def changed(x: int) -> int:
    """Answer as the model of tomorrow does: otherwise at every ninth number."""
    return x % 7 + (1 if x % 9 == 0 else 0)


class Model:
    """A model over HTTP that remembers what it was asked.

    Attributes:
        gate: holds its answers back while it is shut.
        shuts_at: so many requests shut it, however late somebody notices that they have come.
    """

    def __init__(self, rule: Any) -> None:
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.shuts_at = 0
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                fields = {name.lower(): value for name, value in self.headers.items()}
                model.asked.append((self.path, fields, body))
                if len(model.asked) == model.shuts_at:
                    model.gate.clear()
                model.gate.wait(PATIENCE_S)
                x = orjson.loads(body)["x"]
                status = 500 if rule is changed and x % 20 == 11 else 200
                answer = orjson.dumps({"y": rule(x)})
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, request: object, client_address: object) -> None:
                """Say nothing of clients that were killed."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def ids(self) -> Counter[str]:
        """How often each request id was asked."""
        return Counter(fields["x-request-id"] for _, fields, _ in list(self.asked))

    def close(self) -> None:
        """Answer what is waiting, and stop."""
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def serving(rule: Any) -> Iterator[Model]:
    """Serve a rule until the end of the block."""
    model = Model(rule)
    try:
        yield model
    finally:
        model.close()


def config_of(primary: str, bodies: str = "full", name: str = "score") -> dict[str, Any]:
    """Return a config with two candidates for each request, so that each has two records."""
    return {
        "workers": 1,
        "backends": {"v1": {"endpoints": [primary]}, "v2": {"endpoints": [primary]}},
        "routes": [
            {
                "name": name,
                "match": {"path_prefix": "/score"},
                "protocol": "json",
                "primary": "v1",
                "candidates": [
                    {"name": name, "backend": "v2", "mirror": "100%"} for name in ("a", "b")
                ],
                "compare": {"prediction": "y", "comparator": "numeric"},
            }
        ],
        "record": {"bodies": bodies},
    }


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state directory of an instance that has served real requests, and stopped."""
    folder = tmp_path_factory.mktemp("recorded")
    with serving(right) as primary, running(config_of(primary.url), folder) as instance:
        with httpx.Client(trust_env=False, timeout=PATIENCE_S) as client:
            for x in range(REQUESTS):
                client.post(
                    f"{instance.base_url}/score/{x}?secret=1", json={"x": x, "pad": "é" * 50},
                    headers={"x-request-id": f"r-{x}"},
                ).raise_for_status()  # fmt: skip
        wait_pairs(instance.state_dir, 2 * REQUESTS)
    return folder / "state"


def replay(source: Path, to: str, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the command; its output is no terminal."""
    return understudy(
        "replay", "--from", str(source), "--to", to, "--out", str(out), "--rate", "500/s", *more
    )


def pairs_of(out: Path) -> list[dict[str, Any]]:
    """Return the pairs that a replay wrote."""
    return list(FileSource(str(out), [out]))


def test_the_differences_are_those_of_asking_both_directly(recorded: Path, tmp_path: Path) -> None:
    """Each request once, as it was; the same differences, errors and answers as without a log."""
    out = tmp_path / "out.ndjson.zst"
    with serving(changed) as model:
        done = replay(
            recorded, model.url, out, "--json", "--as", "v3",
            "--header", "Authorization: Bearer of-mine",
        )  # fmt: skip
        asked = list(model.asked)
    assert done.returncode == 0, done.stderr
    failing = {x for x in range(REQUESTS) if x % 20 == 11}
    differing = {x for x in range(REQUESTS) if right(x) != changed(x)} - failing
    found = {one["request_id"]: one for one in pairs_of(out)}
    assert {x for x in range(REQUESTS) if found[f"r-{x}"]["equal"] is False} == differing
    assert {x for x in range(REQUESTS) if found[f"r-{x}"]["comparable"] is False} == failing
    for x in range(REQUESTS):
        one = found[f"r-{x}"]
        assert orjson.loads(one["candidate_body"]) == {"y": changed(x)}
        assert one["primary_prediction"] == right(x)
        assert one["abs_diff"] == (None if x in failing else abs(right(x) - changed(x)))
        assert (one["candidate"], one["mode"], one["route"]) == ("v3", "shadow", "score")
    summary = orjson.loads(done.stdout)
    assert (summary["sent"], summary["ok"]) == (REQUESTS, REQUESTS - len(failing))
    assert summary["errors"] == {"http_error": len(failing)}
    assert summary["different"] == len(differing)
    assert summary["skipped"] == {"repeated": REQUESTS}
    assert not out.with_name(out.name + ".state").exists()
    # As they were, each once and marked.
    assert sorted(int(path.removeprefix("/score/")) for path, *_ in asked) == [*range(REQUESTS)]
    for path, fields, body in asked:
        x = int(path.removeprefix("/score/"))
        assert orjson.loads(body) == {"x": x, "pad": "é" * 50}
        assert fields["x-request-id"] == f"r-{x}"
        assert fields["x-understudy-mirror"] == fields["x-understudy-replay"] == "1"
        assert fields["authorization"] == "Bearer of-mine"
        assert fields["content-type"] == "application/json"
    assert b"of-mine" not in out.read_bytes()


def test_parquet_is_replayed_and_compare_reads_the_result(recorded: Path, tmp_path: Path) -> None:
    """Under the name of the candidate; the limit is kept, and the summary is in words."""
    out, parquet = tmp_path / "out.ndjson.zst", tmp_path / "pairs.parquet"
    with whole_file(parquet, Format.PARQUET) as stream:
        write_parquet(open_source(str(recorded)), stream, Format.PARQUET)
    config = str(recorded.parent / "understudy.yaml")
    with serving(changed) as model:
        done = replay(parquet, model.url, out, "--limit", "30", "--config", config)
        assert done.returncode == 0, done.stderr
        assert model.ids.total() == 30
    assert done.stdout.startswith("30 requests sent, ")
    compared = understudy("compare", "--from", str(out), "--json")
    found = orjson.loads(compared.stdout)["comparisons"]
    assert [(c["route"], c["candidate"], c["pairs"]) for c in found] == [("score", "replay", 30)]


def test_after_sigkill_the_rest_is_sent(recorded: Path, tmp_path: Path) -> None:
    """What was answered is never sent again; what was under way is, and the summary says so."""
    out = tmp_path / "out.ndjson.zst"
    state = out.with_name(out.name + ".state")
    words = ["replay", "--from", str(recorded), "--out", str(out), "--max-in-flight", "4"]
    with serving(changed) as model:
        words += ["--to", model.url, "--json"]
        model.shuts_at = 20  # from then on requests stay under way
        process = subprocess.Popen([*COMMAND, *words, "--rate", "60/s"], stdout=subprocess.DEVNULL)
        wait_for(lambda: len(model.asked) >= 20, "some requests")
        wait_for(lambda: _under_way(state) == 4, "four")
        process.send_signal(signal.SIGKILL)
        process.wait()
        under_way = _ids_under_way(state)
        model.gate.set()
        done = understudy(*words, "--rate", "500/s")
        assert done.returncode == 0, done.stderr
        ids = model.ids
    found = pairs_of(out)
    assert sorted(one["request_id"] for one in found) == sorted(f"r-{x}" for x in range(REQUESTS))
    assert sorted(one["seq"] for one in found) == [*range(REQUESTS)]
    assert len({one["pair_id"] for one in found}) == REQUESTS
    assert {name for name, count in ids.items() if count > 1} <= under_way
    assert set(ids) == {f"r-{x}" for x in range(REQUESTS)}
    summary = orjson.loads(done.stdout)
    assert summary["sent"] == REQUESTS
    assert summary["sent_again"] == len(under_way) == 4
    assert summary["resumed"] >= 16
    assert not state.exists()


def kill_after(words: list[str], model: Model, count: int) -> None:
    """Run a command, and kill it as soon as the model was asked so often."""
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for(lambda: len(model.asked) >= count or process.poll() is not None, "requests")
    process.kill()
    process.wait()


@pytest.mark.timeout(300 + 5 * KILLS)
def test_kills_at_any_moment_lose_nothing_and_repeat_only_what_was_under_way(
    recorded: Path, tmp_path: Path
) -> None:
    """With small frames, so that some kills meet the packing of one."""
    out = tmp_path / "out.ndjson.zst"
    state = out.with_name(out.name + ".state")
    dice = random.Random(20_260_101)
    allowed: Counter[str] = Counter()
    with serving(changed) as model:
        words = [
            *SMALL_FRAMES, "replay", "--from", str(recorded), "--to", model.url, "--out", str(out),
            "--rate", "400/s", "--max-in-flight", "5",
        ]  # fmt: skip
        for _ in range(KILLS):
            enough = len(model.asked) + dice.randint(1, max(2, 2 * REQUESTS // (KILLS + 2)))
            kill_after(words, model, enough)
            if state.exists():
                allowed.update(_ids_under_way(state))
        if state.exists():
            done = subprocess.run(words, timeout=START_PATIENCE_S, check=False)
            assert done.returncode == 0
        ids = model.ids
    assert sorted(one["request_id"] for one in pairs_of(out)) == sorted(
        f"r-{x}" for x in range(REQUESTS)
    )
    assert ids - Counter(dict.fromkeys(ids, 1)) <= allowed
    assert not state.exists()


def _lines(state: Path) -> list[Any]:
    return [orjson.loads(line) for line in state.read_bytes().split(b"\n")[1:-1]]


def _ids_under_way(state: Path) -> set[str]:
    entries = _lines(state)
    begun = {entry["begun"][1] for entry in entries if "begun" in entry}
    return begun - {entry["request_id"] for entry in entries if "begun" not in entry}


def _under_way(state: Path) -> int:
    return len(_ids_under_way(state))


def test_ctrl_c_waits_for_answers_and_the_next_run_goes_on(recorded: Path, tmp_path: Path) -> None:
    """Exit code 130; nothing is sent twice at all."""
    out = tmp_path / "out.ndjson.zst"
    with serving(changed) as model:
        words = ["replay", "--from", str(recorded), "--to", model.url, "--out", str(out)]
        words += ["--max-in-flight", "4"]
        model.shuts_at = 10  # so that it cannot end before it is stopped
        process = subprocess.Popen(
            [*COMMAND, *words, "--rate", "50/s"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        wait_for(lambda: len(model.asked) >= 10, "some requests")
        process.send_signal(signal.SIGINT)
        model.gate.set()
        said, complained = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 130, complained
        assert b"the same command goes on" in complained
        first = len(pairs_of(out))
        assert said.startswith(f"{first} requests sent".encode())
        assert 10 <= first < REQUESTS
        done = understudy(*words, "--rate", "500/s")
        assert done.returncode == 0, done.stderr
        assert set(model.ids.values()) == {1}
    assert f"{first} of them were sent by an earlier run" in done.stdout
    assert "twice" not in done.stdout
    assert len(pairs_of(out)) == REQUESTS


def test_records_without_bodies_say_which_key_to_set(tmp_path: Path) -> None:
    """There is nothing to send, and no file is left."""
    write_pairs(tmp_path / "pairs.ndjson.zst", [pair(n) for n in range(1, 3)])
    config = tmp_path / "understudy.yaml"
    config.write_text(orjson.dumps(config_of("http://127.0.0.1:9", "responses", "iris")).decode())
    out = tmp_path / "out.zst"
    done = replay(tmp_path / "pairs.ndjson.zst", "http://127.0.0.1:9", out, "--config", str(config))
    assert done.returncode == 1
    assert "none of 2 records has a request body" in done.stderr
    assert "`bodies: full` below `record`" in done.stderr
    assert [*tmp_path.glob("out*")] == []
