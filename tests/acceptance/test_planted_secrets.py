"""A thousand secrets go through a whole instance, and none is anywhere afterwards.

They are planted in the headers of requests and answers, in queries, in JSON bodies (whole, streamed,
compressed, broken off), in what requests are split by, and in the config. Looked for, as they are and
as URLs and base64 write them, is each of them in every file of the state directory, in the topic, in
what the processes log, and in what the admin API says. Unkeyed hashes of them count as found.
Beside them goes a control that nothing hides: it must be found, or the search is worth nothing.
"""

from __future__ import annotations

import base64
import gzip
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
import zstandard

from proxy.routing.split import salt_of, unit_digest, unit_hash
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.instance import Instance, running, understudy
from tests.support.kafka_topics import consume, create_topic
from tests.support.pair_log import read_pairs
from tests.support.planting import KINDS, PAD, Book, Mark, files, planter

pytestmark = pytest.mark.slow

#: Of each protocol: so many requests of each kind.
ROUNDS = 3
#: Of each protocol: where the requests' key is, and what its route redacts.
ROUTES: dict[str, tuple[str, list[Any]]] = {
    "open-inference": (
        "header:x-user-id",
        ["inputs[*].parameters.ssn", {"path": "parameters.ssn", "action": "mask"}],
    ),
    "openai": (
        "cookie:uid",
        [{"path": "messages[*].content", "action": "hash"},
         {"path": "choices[*].message.content", "action": "hash"}],
    ),
    "json": (
        "json:user.id",
        [{"path": "user.id", "action": "hash"}, {"path": "user.email", "action": "mask"}, "email"],
    ),
}  # fmt: skip
PATHS = ("/metrics", "/api/v1/status", "/api/v1/routes", "/api/v1/decisions", "/", "/openapi.json")


class Run:
    """One instance under the traffic, and everything that it has written or said."""

    def __init__(self) -> None:
        self.hidden = Book(Mark())
        #: By where they are planted, and in sight: as text, as base64, as a URL has it, as a hash.
        self.controls = {name: Book(Mark()) for name in ("json", "binary", "path", "hash")}
        self.seen: list[tuple[str, bytes]] = []
        self.env = {
            f"UNDERSTUDY_{name}": self.hidden.secret()
            for name in (
                "TOKEN",
                "REDACT_KEY",
                "HASH_KEY",
                "CANDIDATE_KEY",
                "MATCH_KEY",
                "KAFKA_PASSWORD",
            )
        }

    def config(self, primary: str, candidate: str, bootstrap: str) -> dict[str, Any]:
        """Return a config with secrets, whose sink is Kafka if there is a broker."""
        own = {"authorization": "Bearer ${UNDERSTUDY_CANDIDATE_KEY}"}
        v2 = {"name": "v2", "backend": "b", "mirror": "100%", "weight": "20%", "set_headers": own}
        routes: list[dict[str, Any]] = [
            {
                "name": protocol,
                "match": {"path_prefix": f"/{protocol}"},
                "protocol": protocol,
                "primary": "a",
                "split_by": split,
                "replicate": "20%",
                "candidates": [v2],
                "record": {"redact": {"json": rules}},
            }
            for protocol, (split, rules) in ROUTES.items()
        ]
        keyed = {
            "name": "keyed",
            "match": {"headers": {"x-api-key": "${UNDERSTUDY_MATCH_KEY}"}},
            "primary": "a",
        }
        open_route = {
            "name": "open",
            "primary": "a",
            "candidates": [{"name": "v2", "backend": "b"}],
        }
        record: dict[str, Any] = {
            "bodies": "full",
            "hash": "always",
            "hash_key": "${UNDERSTUDY_HASH_KEY}",
            "redact": {"key": "${UNDERSTUDY_REDACT_KEY}"},
        }
        if bootstrap:
            record["kafka"] = {
                "bootstrap_servers": [bootstrap],
                "topic_prefix": "planted",
                "options": {"sasl.password": "${UNDERSTUDY_KAFKA_PASSWORD}"},
            }
        return {
            "backends": {"a": {"endpoints": [primary]}, "b": {"endpoints": [candidate]}},
            "routes": [keyed, *routes, open_route],
            "record": record,
            "limits": {"record_body": "4KiB"},
            "log": {"access": "100%", "slow": "1ms"},
        }

    def request(self, protocol: str, kind: str, number: int) -> httpx.Request:
        """Return a request with secrets wherever one may be."""
        secret = self.hidden.secret
        key = secret()
        headers = {
            "authorization": f"Bearer {secret()}",
            "cookie": f"uid={quote(key) if protocol == 'openai' else secret()}; s={secret()}",
            "x-api-key": secret(),
            "x-anything-else": secret(),
            "x-user-id": self.key(protocol, key),
            "content-type": "application/json",
        }
        document: dict[str, Any] = {"pad": PAD if kind == "long" else "", "n": number}
        if protocol == "open-inference":
            document["inputs"] = [{"name": "x", "parameters": {"ssn": secret()}}]
        elif protocol == "openai":
            document["messages"] = [{"role": "user", "content": secret()} for _ in range(2)]
        else:
            document["user"] = {"id": key, "email": secret()}
        body = self.hidden.note(orjson.dumps(document))
        if kind == "gzip":
            body = self.hidden.note(gzip.compress(body, mtime=0))
            headers["content-encoding"] = "gzip"
        elif kind == "form":
            body = self.hidden.note(f"email={quote(secret())}".encode())
        inside = (
            f";token={quote(secret())}" if number % 2 else f"%3Ftoken%3D{quote(secret(), safe='')}"
        )
        path = f"/{protocol}/{kind}/x{inside}?api_key={quote(secret(), safe='')}&q={secret()}"
        return httpx.Request("POST", f"{self.base_url}{path}", headers=headers, content=body)

    def key(self, route: str, key: str) -> str:
        """Note that a hash of the key which anybody can make is a secret, too; return the key."""
        unit = unit_digest(unit_hash(salt_of("split", route)), key.encode())
        self.hidden.note_digest(unit.hex().encode())
        return key

    def control_requests(self) -> Iterator[httpx.Request]:
        """Yield requests whose secrets nothing hides."""
        books, url = self.controls, f"{self.base_url}/open"
        text = {"content-type": "application/json"}
        binary = {"content-type": "application/octet-stream"}
        body = b"\xff" + books["binary"].secret().encode()
        yield httpx.Request("POST", f"{url}/x", headers=text, json={"x": books["json"].secret()})
        yield httpx.Request("POST", f"{url}/x", headers=binary, content=body)
        yield httpx.Request(
            "POST", f"{url}/{quote(books['path'].secret(), safe='')}", content=b"{}"
        )
        yield httpx.Request(
            "POST", f"{url}/x", content=books["hash"].note(b"a body that is hashed")
        )

    def drive(self, instance: Instance) -> int:
        """Send everything while the recorder stands still, so that the journal is seen too."""
        self.base_url = instance.base_url
        instance.send("recorder 0", signal.SIGSTOP)
        requests = [
            self.request(protocol, kind, number)
            for number in range(ROUNDS)
            for protocol in ROUTES
            for kind in KINDS
        ]
        requests += self.control_requests()
        with httpx.Client(trust_env=False, timeout=PATIENCE_S) as client:
            for request in requests:
                try:
                    client.send(request)
                except httpx.RemoteProtocolError:
                    assert "/cut" in str(request.url)
        wait_for(lambda: journaled(instance) >= len(requests), "the journal")
        self.look("journal", instance.state_dir)
        instance.send("recorder 0", signal.SIGCONT)
        return len(requests)

    def ask(self, instance: Instance) -> None:
        """See what the admin API and the commands say."""
        order = {"route": "open", "candidate": "v2", "reason": "look"}
        assert instance.admin("POST", "/api/v1/kill", order).status_code == 200
        for path in PATHS:
            answer = instance.admin("GET", path)
            assert answer.status_code == 200, path
            self.seen.append((path, answer.content))
        config = str(instance.state_dir.parent / "understudy.yaml")
        commands = [
            ("check", config), ("check", config, "--json"),
            ("explain", config, "--path", "/json/x"), ("status", "--json"),
        ]  # fmt: skip
        for words in commands:
            env = {**self.env, "UNDERSTUDY_ADMIN": instance.admin_url}
            done = understudy(*words, env=env)
            assert done.returncode == 0, done.stderr
            self.seen.append((" ".join(words), (done.stdout + done.stderr).encode()))

    def look(self, name: str, folder: Path) -> None:
        """See all files of a folder."""
        self.seen += [(f"{name}: {file}", data) for file, data in files(folder)]

    def found(self, book: Book) -> dict[str, list[bytes]]:
        """Return where secrets of a book were seen, and a few of the places."""
        found: dict[str, list[bytes]] = {}
        for name, data in self.seen:
            for where, places in (
                (name, book.mark.found(data)),
                (f"hash in {name}", sorted(book.digests_found(data))),
            ):
                if places:
                    found.setdefault(where, []).extend(places[:3])
        return found


def journaled(instance: Instance) -> int:
    """Return how many pairs the workers have written."""
    routes = instance.status()["routes"]
    return sum(each["pairs_journaled"] for route in routes for each in route["candidates"])


@pytest.mark.parametrize("sink", ["local", pytest.param("kafka", marks=[pytest.mark.kafka])])
def test_no_planted_secret_is_ever_written(
    tmp_path: Path, sink: str, request: pytest.FixtureRequest, record_property: Any
) -> None:
    """0 of more than 1,000; the control is found in every place where it must be."""
    run = Run()
    bootstrap = request.getfixturevalue("kafka_bootstrap") if sink == "kafka" else ""
    if bootstrap:
        create_topic(bootstrap, "planted.pairs.v1")
    with planter(run.hidden) as primary, planter(run.hidden) as candidate:
        config = run.config(primary.url, candidate.url, bootstrap)
        with running(config, tmp_path, env=run.env) as instance:
            sent = run.drive(instance)
            if bootstrap:
                for message in consume(bootstrap, "planted.pairs.v1", sent):
                    told = repr((message.key(), message.headers())).encode()
                    run.seen.append(("topic", told + (message.value() or b"")))
            else:
                wait_for(lambda: len(read_pairs(instance.state_dir)) >= sent, "the local log")
            run.ask(instance)
            run.look("state_dir", instance.state_dir)
        run.look("after the stop", instance.state_dir)
        run.seen.append(("stderr", instance.stderr.encode()))
    record_property("planted", len(run.hidden.planted))
    assert len(run.hidden.planted) >= 1000
    assert run.found(run.hidden) == {}
    for name, book in run.controls.items():
        places = " ".join(run.found(book))
        assert "journal: " in places, name
        assert ("topic" if bootstrap else ".ndjson.zst") in places, name
        assert ("hash in" in places) is (name in ("hash",)), name
        assert ("stderr" in places) is (name == "path"), name


def test_the_search_finds_a_secret_however_it_is_written(tmp_path: Path) -> None:
    """Plain, in URLs, in base64 at any place, compressed, as a hash; and not what only looks alike."""
    book = Book(Mark())
    secret = book.secret().encode()
    packed = tmp_path / "x.zst"
    packed.write_bytes(zstandard.compress(b"a") + zstandard.compress(secret))
    texts = [secret, quote(secret).encode(), quote(secret, safe="").encode()]
    texts += [base64.b64encode(b"x" * n + secret + b"y" * m) for n in range(4) for m in range(4)]
    texts += [base64.urlsafe_b64encode(b"x" * n + secret) for n in range(4)]
    texts += [data for name, data in files(tmp_path) if "inflated" in name]
    for text in texts:
        assert book.mark.found(b"before " + text + b" after"), text
    assert not book.mark.found(Mark().text.encode())
