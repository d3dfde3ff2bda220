"""Users of the models of `tests.support.ramp_models` behind an instance, who check every answer."""

from __future__ import annotations

import http.client
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

from proxy.telemetry import monotonic_s
from tests.support.deadline import PATIENCE_S
from tests.support.instance import Instance

#: Between two requests of one user: enough of them, and the recorder is not kept from its work.
PAUSE_S = 0.002
#: For many users at a time.
LONG_PAUSE_S = 0.01


class Users:
    """A user of one route, one request after the other.

    Attributes:
        answers: how many were good, and how many were what else.
        longest_s: how long the user has waited for one at most.
    """

    def __init__(self, base_url: str, route: str, pause_s: float) -> None:
        self._parts = urlsplit(base_url)
        self._route = route
        self._pause_s = pause_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers: Counter[str] = Counter()
        self.longest_s = 0.0

    def __enter__(self) -> Users:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        assert self._parts.hostname is not None
        connection = http.client.HTTPConnection(
            self._parts.hostname, self._parts.port, timeout=PATIENCE_S
        )
        number = 0
        while not self._stop.wait(self._pause_s):
            number += 1
            body = json.dumps({"x": number}).encode()
            headers = {"content-type": "application/json"}
            begun_s = monotonic_s()
            connection.request("POST", f"/{self._route}", body, headers)
            answer = connection.getresponse()
            said = json.loads(answer.read())
            self.longest_s = max(self.longest_s, monotonic_s() - begun_s)
            is_good = answer.status == 200 and said["y"] in (number % 7, number % 7 + 1)
            self.answers["good" if is_good else f"{answer.status} {said}"] += 1
        connection.close()


@contextmanager
def users_of(instance: Instance, *routes: str, pause_s: float = PAUSE_S) -> Iterator[list[Users]]:
    """Let a user for each name ask its route until the block ends; see that all were answered."""
    found = [Users(instance.base_url, route, pause_s) for route in routes]
    with ExitStack() as stack:
        for each in found:
            stack.enter_context(each)
        yield found
    for route, each in zip(routes, found, strict=True):
        assert set(each.answers) == {"good"}, (route, each.answers)
