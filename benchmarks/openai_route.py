"""Claim: a chat completion passes for a small part of what a gateway in Python takes (LiteLLM).

One chat completion, whole and streamed in 32 chunks, against a fixed OpenAI-compatible upstream
(`benchmarks.programs.chat`): forward only through every peer, and with one candidate mirrored
through those that can. The upstream is a program of our own, which bounds the throughput of the
fast ones; CPU per request is what to compare. LiteLLM does more than forward: it reads and writes
every answer anew, and keeps count of tokens.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import tables
from benchmarks.charts import Chart, Kind, Series
from benchmarks.dialogue import Dialogue
from benchmarks.figures import spread
from benchmarks.fleet import BenchmarkError, Fleet, free_port
from benchmarks.load import Load
from benchmarks.mirror_cpu import measure_rounds
from benchmarks.options import Options
from benchmarks.origin import Origin, own_origin
from benchmarks.peers import CHAT_PEERS, LiteLLM, Mode, Setup, Target, Upstreams
from benchmarks.programs.chat import CHUNKS
from benchmarks.report import Report, Table
from benchmarks.stage import DIRECT, Sample, Stage, chosen_peers

NAME = "openai-route"
PATH = "/v1/chat/completions"
KINDS = ("whole", "streamed")
_CONNECTIONS = 8
_ROUNDS = 3
_FIRST_S = 60.0
_SHOWN = (tables.WORKER, tables.TREE, tables.RATE, tables.P50, tables.P99)
_PROMPT = "Say which part the understudy plays tonight, and why the lead may rest. " * 10


def run(options: Options, folder: Path, say: Callable[[str], None]) -> Report:
    """Measure whole and streamed answers."""
    peers, notes = chosen_peers(options.peers, known=CHAT_PEERS)
    rounds = min(options.rounds, _ROUNDS)
    samples: dict[str, list[Sample]] = {}
    with Fleet(folder, options.is_pinned) as fleet:
        upstreams = Upstreams(_chat(fleet), _chat(fleet))
        setup = Setup(path_prefix="/v1/chat", protocol="openai")
        targets = [Target(DIRECT, Mode.FORWARD, f"http://127.0.0.1:{upstreams.primary.port}")]
        for mode in Mode:
            targets += [
                peer.start(fleet, mode, upstreams, setup)
                for peer in peers
                if mode is Mode.FORWARD or not isinstance(peer, LiteLLM)
            ]
        stage = Stage(fleet, upstreams, targets)
        for target in targets:
            _probe(target)
        for kind in KINDS:
            say(f"chat completions, {kind}")
            body = _body(is_streamed=kind == "streamed")
            load = Load(len(body), _CONNECTIONS, options.seconds, PATH, body)
            samples[kind] = measure_rounds(
                stage, targets, load, rounds, say, is_warm=options.is_quick
            )
    found = [one for kind in KINDS for one in samples[kind]]
    versions = [f"LiteLLM {peer.version()}" for peer in peers if isinstance(peer, LiteLLM)]
    return Report(
        name=NAME,
        conditions=(
            f"one chat completion, whole or streamed in {CHUNKS} chunks; one worker per proxy",
            f"{_CONNECTIONS} keep-alive connections, saturated (wrk)",
            f"{rounds} rounds of {options.seconds} s, all in turn in each; medians",
            *versions,
            *notes,
        ),
        tables=tuple(_table(samples[kind], kind) for kind in KINDS),
        samples=tuple(found),
        summary={kind: tables.summary(samples[kind], _SHOWN) for kind in KINDS},
        charts=(_chart(samples),),
        faults=tuple(tables.fault_line(sample) for sample in found if sample.faults),
    )


def _chat(fleet: Fleet) -> Origin:
    """Start an upstream."""
    chat = Dialogue(fleet, "chat", {"port": free_port()})
    fleet.wait_for_port(chat.child, chat.settings["port"])
    return own_origin(chat.settings["port"], "chat")


def _probe(target: Target) -> None:
    """Ask once and check the answer; a Python gateway's first call is slow.

    Raises:
        BenchmarkError: it is no chat completion.
    """
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(target.url + PATH, _body(is_streamed=False), headers)
    try:
        with urllib.request.urlopen(request, timeout=_FIRST_S) as answer:
            said = json.loads(answer.read())
    except (OSError, ValueError) as error:
        raise BenchmarkError(f"{target.peer} answers no chat completion: {error}") from error
    if len(said["choices"][0]["message"]["content"].split()) != CHUNKS:
        raise BenchmarkError(f"{target.peer} answered {said}")


def _body(*, is_streamed: bool) -> bytes:
    """Return a request for one completion."""
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": _PROMPT}]
    request = {"model": "bench-model", "messages": messages, "stream": is_streamed}
    return json.dumps(request).encode()


def _table(samples: Sequence[Sample], kind: str) -> Table:
    """Return the medians of every target, and what each peer takes for each of Understudy's."""
    ours = {s.mode: s for s in samples if s.peer == tables.OURS}
    rows = []
    for (_, mode, peer), group in tables.ordered(samples):
        found = [tables.values(quantity, group) for quantity in _SHOWN]
        worker, tree, rate, p50, p99 = (spread(one).median if one else None for one in found)
        same = [one for one in samples if one.mode is mode]
        times = tables.ratio_to(same, tables.WORKER, peer) if mode in ours and worker else None
        rows.append(
            (
                peer if peer == DIRECT else f"{peer}, {mode}",
                f"{worker:,.0f}" if worker else "",
                f"{tree:,.0f}" if tree else "",
                f"{rate or 0:,.0f}",
                f"{(p50 or 0) / 1e3:.2f}",
                f"{(p99 or 0) / 1e3:.2f}",
                f"{1 / times.median:,.2f}" if times else "",
                str(sum(len(one.faults) for one in group)),
            )
        )
    columns = (
        "", "worker µs/req", "tree µs/req", "req/s", "p50 ms", "p99 ms", "times Understudy's CPU",
        "faults",
    )  # fmt: skip
    return Table(f"Chat completions, {kind}", columns, tuple(rows))


def _chart(samples: dict[str, list[Sample]]) -> Chart:
    """Return CPU per completion, whole and streamed."""
    targets = dict.fromkeys(
        key[1:] for kind in KINDS for key, _ in tables.ordered(samples[kind]) if key[2] != DIRECT
    )
    series = []
    for kind in KINDS:
        points = []
        for mode, peer in targets:
            same = [one for one in samples[kind] if (one.mode, one.peer) == (mode, peer)]
            points.append((f"{peer}, {mode}", spread(tables.values(tables.TREE, same))))
        series.append(Series(kind, tuple(points)))
    return Chart(
        name=NAME,
        title="CPU per chat completion, saturated, one worker",
        x_label="proxy",
        y_label="CPU µs, whole tree",
        kind=Kind.BARS,
        series=tuple(series),
        is_log_y=True,
    )
