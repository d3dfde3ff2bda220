"""A disk that stops answering: orders, questions and the processes that take them go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from proxy.state.control_page import ControlPage, Part, open_page
from proxy.telemetry import monotonic_s
from tests.support.counting_backend import counting_backend, two_workers
from tests.support.deadline import wait_for
from tests.support.disks import HangingDisk, hanging_disk
from tests.support.instance import Instance, running, understudy

pytestmark = pytest.mark.slow

#: How long an answer or a command may take. What hung, hung as long as the disk.
SOON_S = 20.0
KILL = "/api/v1/kill"
WEIGHT = "/api/v1/routes/iris/candidates/v2/weight"


class _Stage:
    """An instance on a disk of its own, and its page, mapped before anything hangs."""

    def __init__(self, disk: HangingDisk, instance: Instance, page: ControlPage) -> None:
        self.disk = disk
        self.instance = instance
        self.page = page
        # Its address is read now: so is no file, while the disk hangs, by this process.
        self.client = httpx.Client(base_url=instance.admin_url, timeout=SOON_S, trust_env=False)

    def order(self, method: str, path: str, **body: Any) -> httpx.Response:
        """Give an order to control, which answers soon."""
        seen = self.page.generation()
        body |= {"reason": "test"} | ({"seen_generation": seen} if method == "PUT" else {})
        return self.client.request(method, path, json=body)

    def status(self) -> dict[str, Any]:
        """Return what control tells, soon."""
        found: dict[str, Any] = self.client.get("/api/v1/status").raise_for_status().json()
        return found

    def decisions(self) -> list[tuple[int, str, str]]:
        """Return number, action and outcome of each decision in the log, the oldest first."""
        found = self.client.get("/api/v1/decisions").raise_for_status().json()["decisions"]
        return [(each["seq"], each["action"], each["outcome"]) for each in found[::-1]]


@contextmanager
def _stage(tmp_path: Path) -> Iterator[_Stage]:
    with (
        hanging_disk(tmp_path / "disk") as disk,
        counting_backend("primary") as primary,
        counting_backend("candidate") as candidate,
    ):
        config = {**two_workers(primary, candidate), "state_dir": str(disk.path / "state")}
        with running(config, tmp_path) as instance:
            stage = _Stage(disk, instance, open_page(instance.state_dir))
            try:
                with stage.client:
                    yield stage
            finally:
                disk.go_on()
                stage.page.close()


def test_orders_take_effect_while_the_disk_syncs_nothing(tmp_path: Path) -> None:
    """The first and the next; they are in the log, in their order, when it has answered."""
    with _stage(tmp_path) as stage:
        assert stage.order("PUT", WEIGHT, percent=30).status_code == 200
        stage.disk.hang()
        answer = stage.order("POST", KILL)
        assert (answer.status_code, answer.json()["in_effect"]) == (200, True), answer.text
        assert stage.page.read().killed == Part.DEFAULT
        assert stage.order("PUT", WEIGHT, percent=10).status_code == 200
        assert stage.page.read().routes["iris"].candidates["v2"].weight_bp == 1_000
        assert stage.status()["killed"]
        stage.disk.go_on()
        expected = [(1, "weight", "done"), (2, "kill", "done"), (3, "weight", "done")]
        wait_for(lambda: stage.decisions() == expected, "all decisions in the log")


def test_all_answer_while_the_disk_takes_not_even_a_write(tmp_path: Path) -> None:
    """A kill goes past the page, and is on it when the disk answers; all else is refused at once."""
    with _stage(tmp_path) as stage:
        stage.disk.hang_writes()
        wait_for(lambda: "has not answered" in str(stage.status()["problems"]), "the problem")
        answer = stage.order("POST", KILL)
        assert answer.status_code == 202, answer.text
        assert "told by SIGUSR1" in str(answer.json()["warnings"])
        assert stage.order("PUT", WEIGHT, percent=10).status_code == 503
        began_s = monotonic_s()
        done = understudy("kill", "--state-dir", str(stage.instance.state_dir), "--reason", "test")
        assert (done.returncode, "told by SIGUSR1" in done.stderr) == (1, True), done.stderr
        environment = {"UNDERSTUDY_ADMIN": str(stage.client.base_url)}
        done = understudy("kill", "--reason", "test", env=environment)
        assert done.returncode == 1, done.stdout
        assert monotonic_s() - began_s < 3 * SOON_S
        assert stage.status()["decisions"]["in_memory"] > 0
        stage.disk.go_on()
        wait_for(lambda: stage.page.read().killed == Part.DEFAULT, "the kill")
        wait_for(lambda: not stage.status()["decisions"]["in_memory"], "all decisions in the log")
        state = stage.page.read().routes["iris"].candidates["v2"]
        assert state.weight_bp == 2_000
        found = stage.decisions()
        assert [seq for seq, *_ in found] == list(range(1, len(found) + 1))
        assert ("kill", "done") in {(action, outcome) for _, action, outcome in found}
        assert ("weight", "refused") in {(action, outcome) for _, action, outcome in found}
