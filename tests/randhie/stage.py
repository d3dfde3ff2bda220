"""The whole of it: model servers, Understudy, traffic, the right answers, and the verdicts.

Nothing here is a stand-in: models are trained, served by processes of their own and asked through the
proxy; pairs and labels go through Kafka; and what decides are the commands that an operator types.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import yaml

from proxy.demo.client import Connection
from proxy.demo.processes import Child, python, start, wait_url
from proxy.telemetry import monotonic_s
from tests.randhie.models import CANDIDATES, COLUMNS, PRIMARY, QUESTIONS, ROWS, people, train
from tests.support.deadline import START_PATIENCE_S
from tests.support.instance import Instance, running, understudy
from tests.support.ledgers import wait_balanced

#: Users at a time.
CONNECTIONS = 16
_HTTP_OK = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is asked, and how much worse a candidate may be.

    Attributes:
        rows: people asked about, spread evenly over the data; each is asked about on both routes.
        margin: of every gate, as a share of requests.
        rate: requests a second at most.
    """

    rows: int = ROWS
    margin: float = 0.01
    rate: float = 400.0

    def people(self) -> range:
        """Return the rows that are asked about."""
        return range(0, ROWS, max(1, ROWS // self.rows))[: self.rows]


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is left when the traffic is over and every pair is in the topic.

    Attributes:
        folder: with the config, the state directory and the labels.
        source: the topic of the pairs.
        requests: that were answered.
        seconds: that the traffic took.
        ledger: its lines by name, all settled.
    """

    folder: Path
    source: str
    requests: int
    seconds: float
    ledger: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Told:
    """What `understudy verdict` says about one candidate."""

    code: int
    document: dict[str, Any]


@contextmanager
def model_servers(folder: Path) -> Iterator[dict[str, Child]]:
    """Train the models and serve them, each role in a process of its own, until the block ends."""
    root = Path(__file__).parents[2]
    with ExitStack() as stack:
        servers: dict[str, Child] = {}
        for role in (PRIMARY, *CANDIDATES):
            paths = [folder / f"{question}-{role}.json" for question in QUESTIONS]
            for question, path in zip(QUESTIONS, paths, strict=True):
                train(question, role).save(path)
            command = [*python(), "-m", "tests.randhie.server", *map(str, paths)]
            servers[role] = start(role, command, folder / f"{role}.log", root)
            stack.callback(servers[role].stop)
        for child in servers.values():
            wait_url(child, START_PATIENCE_S)
        yield servers


def config_of(urls: dict[str, str], bootstrap: str, prefix: str, plan: Plan) -> dict[str, Any]:
    """Return the config: a route for each question, all candidates on it, gates as declared."""
    answers = {"visits": "agreement", "frequent": "correctness"}
    compare = {
        "visits": {"comparator": "numeric", "rel_tol": 0.01},
        "frequent": {"comparator": "label"},
    }
    return {
        "listen": "127.0.0.1:0",
        "admin": {"listen": "127.0.0.1:0"},
        "state_dir": "state",
        "backends": {
            name: {"endpoints": [url], "max_in_flight": 1024} for name, url in urls.items()
        },
        "routes": [
            {
                "name": question,
                "match": {"path_prefix": f"/{question}"},
                "protocol": "mlflow",
                "primary": PRIMARY,
                "split_by": "header:x-user-id",
                "segments": {"health": "header:x-health"},
                "candidates": [
                    {"name": role, "backend": role, "mirror": "100%"} for role in CANDIDATES
                ],
                "compare": compare[question],
                "ramp": {
                    "steps": [{"weight": "10%"}, {"weight": "100%"}],
                    "gates": [
                        {"metric": metric, "margin": plan.margin}
                        for metric in (answers[question], "availability")
                    ],
                },
            }
            for question in QUESTIONS
        ],
        "record": {"kafka": {"bootstrap_servers": [bootstrap], "topic_prefix": prefix}},
        "limits": {"mirror_lag": 0},  # every pair is to be there, however slow the machine
    }


def record(folder: Path, bootstrap: str, plan: Plan) -> Recorded:
    """Ask about people through the proxy, tell the right answers, and wait for the last pair.

    Raises:
        AssertionError: a user was not answered, or the ledger does not add up.
    """
    prefix = f"randhie-{uuid.uuid4().hex[:8]}"
    with model_servers(folder) as servers:
        urls = {name: child.url for name, child in servers.items()}
        config = config_of(urls, bootstrap, prefix, plan)
        text = yaml.safe_dump({**config, "state_dir": str(folder / "state")}, sort_keys=False)
        (folder / "understudy.yaml").write_text(text)
        _done("topics", "create", "understudy.yaml", cwd=folder)
        with running(text, folder) as instance:
            started_s = monotonic_s()
            answered = asyncio.run(_ask(instance, plan))
            seconds = monotonic_s() - started_s
            _tell_labels(folder, instance, plan)
            ledger = wait_balanced(instance, 60 + 2 * seconds)
    source = f"kafka://{bootstrap}/{prefix}.pairs.v1"
    return Recorded(folder, source, answered, seconds, ledger)


def verdict_of(recorded: Recorded, name: str) -> Told:
    """Return the verdict on a candidate, called `ROUTE/NAME`, from the topic, by the config's gates."""
    route, _, candidate = name.partition("/")
    done = understudy(
        "verdict", "--from", recorded.source, "--route", route, "--candidate", candidate, "--json",
        cwd=recorded.folder, timeout_s=_patience_s(recorded),
    )  # fmt: skip
    assert done.stdout, done.stderr
    return Told(done.returncode, orjson.loads(done.stdout))


def report(recorded: Recorded, html: Path) -> str:
    """Write the report on all candidates as HTML; return what the terminal shows."""
    return _done(
        "compare", "--from", recorded.source, "--html", str(html),
        cwd=recorded.folder, timeout_s=_patience_s(recorded),
    )  # fmt: skip


def _patience_s(recorded: Recorded) -> float:
    """Return how long a command may take that reads the whole topic, on a busy machine."""
    return START_PATIENCE_S + recorded.requests / 100


async def _ask(instance: Instance, plan: Plan) -> int:
    """Ask both questions about all people, at most `plan.rate` requests a second."""
    asked = [(question, row) for row in plan.people() for question in QUESTIONS]
    numbers = iter(range(len(asked)))
    parts = urlsplit(instance.base_url)
    started_s = monotonic_s()

    async def user() -> None:
        async with Connection(parts.hostname or "", parts.port or 0) as connection:
            for number in numbers:
                await asyncio.sleep(started_s + number / plan.rate - monotonic_s())
                question, row = asked[number]
                answer = await connection.ask(_request(parts.netloc, question, row))
                assert answer.status == _HTTP_OK, (question, row, answer)

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(user())
    return len(asked)


def _request(host: str, question: str, row: int) -> bytes:
    """Return the request about one person, as MLflow's clients write it."""
    known = people()
    table = {"columns": COLUMNS, "data": [known.features[row].tolist()]}
    body = orjson.dumps({"dataframe_split": table})
    lines = (
        f"POST /{question}/invocations HTTP/1.1", f"host: {host}",
        "content-type: application/json", f"content-length: {len(body)}", f"x-user-id: {row}",
        f"x-request-id: {question}-{row}", f"x-health: {known.health(row)}", "", "",
    )  # fmt: skip
    return "\r\n".join(lines).encode() + body


def _tell_labels(folder: Path, instance: Instance, plan: Plan) -> None:
    """Say afterwards who was a frequent visitor, as an operator would."""
    path = folder / "labels.ndjson"
    labels = (
        {"request_id": f"frequent-{row}", "label": people().label(row)} for row in plan.people()
    )
    path.write_bytes(b"".join(orjson.dumps(label) + b"\n" for label in labels))
    done = instance.cli("labels", "import", str(path))
    assert done.returncode == 0, done.stderr


def _done(*words: str, cwd: Path, timeout_s: float = START_PATIENCE_S) -> str:
    done = understudy(*words, cwd=cwd, timeout_s=timeout_s)
    assert done.returncode == 0, done.stderr
    return done.stdout
