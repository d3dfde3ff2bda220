"""A kill that no page can take, because the disk hangs: workers hear of it by a signal."""

from __future__ import annotations

import signal
from pathlib import Path

from proxy.state.control_page import Part, open_page
from tests.support.counting_backend import Load, counting_backend, two_workers
from tests.support.deadline import wait_for
from tests.support.disks import hanging_disk
from tests.support.instance import running


def test_a_kill_by_signal_reaches_workers_while_the_disk_takes_not_even_a_write(
    tmp_path: Path,
) -> None:
    """Users are served all the time; when the disk goes on, the kill is on the page and in the log."""
    with (
        hanging_disk(tmp_path / "disk") as disk,
        counting_backend("primary") as primary,
        counting_backend("candidate") as candidate,
    ):
        config = {**two_workers(primary, candidate), "state_dir": str(disk.path / "state")}
        with running(config, tmp_path) as instance, Load(instance.base_url) as load:
            page = open_page(instance.state_dir)
            try:
                wait_for(lambda: candidate.requests > 20, "copies and live requests")
                disk.hang_writes()
                seen = candidate.requests
                wait_for(lambda: candidate.requests > seen + 20, "the same on a disk that hangs")
                instance.process.send_signal(signal.SIGUSR1)
                wait_for(lambda: instance.stderr.count("killed by signal") >= 2, "both workers")
                # What was under way when a worker heard of it may still come.
                answered = load.total
                wait_for(lambda: load.total > answered + 20, "answers of the primary")
                seen, answered = candidate.requests, load.total
                wait_for(lambda: load.total > answered + 100, "more of them")
                assert candidate.requests == seen
                assert not page.read().killed
                disk.go_on()
                wait_for(lambda: page.read().killed == Part.DEFAULT, "the page to be killed")
                answered = load.total
                wait_for(lambda: load.total > answered + 100, "answers")
                assert candidate.requests == seen
                assert load.failures == []
                done = instance.cli("revive", "--reason", "test")
                assert done.returncode == 0, done.stderr
                wait_for(lambda: candidate.requests > seen, "copies again")
            finally:
                disk.go_on()
                page.close()
        assert load.failures == []
