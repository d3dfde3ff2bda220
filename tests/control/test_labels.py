"""`POST /api/v1/labels`: what is taken is on the disk, and what is not is named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from proxy.control import labels
from proxy.journal.label_journal import LabelJournal, label_journal
from proxy.journal.reader import JournalReader
from proxy.pairs.label import MAX_LINE_BYTES
from tests.support.admin import Instance

PATH = "/api/v1/labels"
NDJSON = {"content-type": "application/x-ndjson"}


def line(number: int, **fields: Any) -> bytes:
    """Return a label of request `r-<number>`."""
    return orjson.dumps({"request_id": f"r-{number}", "label": number, **fields})


def journaled(state_dir: Path) -> list[dict[str, Any]]:
    """Return the records that wait in the journal."""
    reader = JournalReader(label_journal(state_dir))
    try:
        return [orjson.loads(each) for each in reader.read(2**30).lines]
    finally:
        reader.close()


async def post(client: httpx.AsyncClient, *lines: bytes) -> httpx.Response:
    """Send lines."""
    return await client.post(PATH, content=b"\n".join(lines), headers=NDJSON)


async def test_good_lines_are_taken_and_bad_ones_are_named(
    client: httpx.AsyncClient, instance: Instance
) -> None:
    """By their number; blank lines count as lines, and are none."""
    answer = await post(client, line(1), b"", b"{", line(4, source="expert"), line(5, label=None))
    assert answer.status_code == 200
    found = answer.json()
    assert (found["accepted"], found["refused"]) == (2, 2)
    assert [each["line"] for each in found["errors"]] == [3, 5]
    assert found["errors"][1]["error"].startswith("label: is missing")
    records = journaled(instance.state_dir)
    assert [(r["request_id"], r["label"], r["source"]) for r in records] == [
        ("r-1", 1, None), ("r-4", 4, "expert"),
    ]  # fmt: skip


async def test_the_journal_is_private(client: httpx.AsyncClient, instance: Instance) -> None:
    """Mode 0600 in a folder 0700: labels say something about people."""
    await post(client, line(1))
    folder = label_journal(instance.state_dir)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o777 for each in folder.glob("*")} == {0o600}


async def test_a_large_body_is_taken_piece_by_piece(
    client: httpx.AsyncClient, instance: Instance
) -> None:
    """Lines that are cut by the network are one."""
    lines = [line(n, source="x" * 50) for n in range(20_000)]
    body = b"\n".join(lines)

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 10_007):
            yield body[start : start + 10_007]

    answer = await client.post(PATH, content=pieces(), headers=NDJSON)
    assert answer.json()["accepted"] == len(lines)
    assert [r["label"] for r in journaled(instance.state_dir)] == list(range(20_000))


async def test_a_kill_need_not_wait_for_a_large_body(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others get the event loop while lines are read, also those of one piece."""
    turns, turns_while_reading = 0, []
    sync = LabelJournal.sync

    async def watched(journal: LabelJournal, segments: Iterable[int]) -> None:
        turns_while_reading.append(turns)
        await sync(journal, segments)

    monkeypatch.setattr(LabelJournal, "sync", watched)

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        counting = group.create_task(count())
        answer = await post(client, *(line(n) for n in range(20_000)))
        counting.cancel()
    assert answer.json()["accepted"] == 20_000
    assert turns_while_reading[0] >= 100


async def test_faults_that_are_told_are_bounded(client: httpx.AsyncClient) -> None:
    """All are counted."""
    found = (await post(client, line(1), *[b"{"] * 1000)).json()
    assert (found["refused"], len(found["errors"])) == (1000, labels.MAX_FAULTS)


@pytest.mark.parametrize(
    ("body", "headers", "status", "told"),
    [
        (line(1), {"content-type": "application/json"}, 415, "application/x-ndjson"),
        (line(1), {}, 415, "application/x-ndjson"),
        (b"", NDJSON, 422, "line 1 is empty"),
        (b"\n{\n", NDJSON, 422, "line 2 is not JSON"),
        (b"x" * (3 * MAX_LINE_BYTES), NDJSON, 422, "line 1 is longer than"),
        (b"x" * (labels.BODY_LIMIT_BYTES + 1), NDJSON, 413, "at most"),
    ],
)
async def test_a_bad_body_is_answered_with_what_and_how_to_mend(
    client: httpx.AsyncClient, body: bytes, headers: dict[str, str], status: int, told: str
) -> None:
    """And nothing is written."""
    answer = await client.post(PATH, content=body, headers=headers)
    assert answer.status_code == status
    assert told in answer.json()["error"]


async def test_a_line_without_an_end_does_not_fill_the_memory(client: httpx.AsyncClient) -> None:
    """What follows it is taken."""
    answer = await post(client, b"x" * (5 * MAX_LINE_BYTES), line(1))
    assert answer.json()["accepted"] == 1
    assert "is longer than" in answer.json()["errors"][0]["error"]


async def test_when_too_many_wait_new_ones_are_refused_and_none_is_dropped(
    client: httpx.AsyncClient, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever sends labels can send them again; whoever was told that they are safe cannot know."""
    assert (await post(client, line(1))).status_code == 200
    monkeypatch.setattr(LabelJournal, "check_room", _full(LabelJournal.check_room))
    answer = await post(client, line(2))
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    assert "wait to be shipped" in answer.json()["error"]
    assert len(journaled(instance.state_dir)) == 1


def _full(check: Any) -> Any:
    """Look at the room as if the budget were 1 byte."""

    def checked(journal: LabelJournal) -> None:
        journal._budget_bytes = 1
        check(journal)

    return checked


async def test_a_disk_that_refuses_is_told(client: httpx.AsyncClient, instance: Instance) -> None:
    """503: the sender keeps them."""
    label_journal(instance.state_dir).parent.mkdir(mode=0o700)
    label_journal(instance.state_dir).write_text("")
    answer = await post(client, line(1))
    assert answer.status_code == 503
    assert "send them again" in answer.json()["error"]


async def test_they_are_counted_in_the_metrics_and_trouble_is_a_problem(
    client: httpx.AsyncClient, instance: Instance
) -> None:
    """From what the recorder that ships them says."""
    await post(client, line(1), line(2), b"{")
    said = {"state": "retrying", "message": "no broker", "acknowledged": 7, "backlog_bytes": 99}
    (instance.state_dir / "labels.json").write_bytes(orjson.dumps(said))
    text = (await client.get("/metrics")).text
    for sample in (
        "understudy_labels_accepted_total 2.0", "understudy_labels_refused_total 1.0",
        "understudy_labels_acknowledged_total 7.0", "understudy_labels_backlog_bytes 99.0",
        'understudy_labels_dropped_total{reason="rejected"} 0.0',
    ):  # fmt: skip
        assert sample in text
    assert "labels: retrying: no broker" in (await client.get("/readyz")).json()["problems"]
    assert (await client.get("/api/v1/status")).json()["labels"]["accepted"] == 2
