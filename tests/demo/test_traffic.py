"""The demo's traffic judges answers: a wrong one must not pass."""

from __future__ import annotations

import asyncio

import httpx

from proxy.demo.models import HELD_OUT
from proxy.demo.processes import Child
from proxy.demo.traffic import (
    USERS,
    Load,
    Tally,
    Traffic,
    ask_directly,
    label_of,
    row_body,
    row_of,
    trickle,
)
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.models import digits, trained

FAST = 1e9
BODIES = [row_body(n, row) for n, row in enumerate(digits().held_out_rows)]


async def _answers(servers: dict[str, Child], *names: str) -> dict[str, list[bytes]]:
    return {name[-1]: await ask_directly(servers[name].url, BODIES) for name in names}


async def test_right_answers_are_counted_by_who_gave_them(servers: dict[str, Child]) -> None:
    """And every user comes."""
    expected = await _answers(servers, "digits-v1")
    labels = trained("digits-v1").model.predict(digits().held_out_rows)[0]
    assert [label_of(answer) for answer in expected["1"]] == labels.tolist()
    traffic = Traffic(servers["digits-v1"].url, BODIES, expected)
    tally = Tally()
    await traffic.run(Load(USERS * 2, FAST), ("1",), tally)
    assert (tally.answered, tally.failed, tally.wrong) == (2 * USERS, 0, 0)
    assert tally.served == {"1": 2 * USERS}
    assert tally.users_of("1") == set(range(USERS))
    assert tally.versions == dict.fromkeys(range(2 * USERS), "1")
    assert traffic.settled() == set(range(2 * USERS))
    assert 0 < (tally.latency_ms(0.5) or 0) <= (tally.latency_ms(0.99) or 0)


async def test_an_answer_of_another_model_is_wrong(servers: dict[str, Child]) -> None:
    """The candidate's answer is wrong while it may not serve, also when the label is the same."""
    expected = await _answers(servers, "digits-v1", "digits-v2")
    traffic = Traffic(servers["digits-v2"].url, BODIES, expected)
    shadow, canary, killed = Tally(), Tally(), Tally()
    await traffic.run(Load(40, FAST), ("1",), shadow)
    await traffic.run(Load(40, FAST), ("1", "2"), canary)
    traffic.primary_only_from = traffic.sent + 10
    await traffic.run(Load(40, FAST), ("1", "2"), killed)
    assert shadow.wrong == 40
    assert "not the answer of 1" in shadow.examples[0]
    assert canary.served == {"2": 40}
    assert (killed.served["2"], killed.wrong) == (10, 30)


async def test_failures_are_counted_and_told(servers: dict[str, Child]) -> None:
    """A 503 is one; so is no server at all."""
    traffic = Traffic(servers["digits-v3"].url, BODIES, {"1": [b""] * HELD_OUT})
    bad, gone = Tally(), Tally()
    await traffic.run(Load(20, FAST), ("1",), bad)
    assert (bad.answered, bad.failed, bad.wrong) == (20, 10, 10)
    unreachable = Traffic("http://127.0.0.1:9", BODIES, {})
    await unreachable.run(Load(5, FAST), (), gone)
    assert (gone.answered, gone.failed) == (5, 5)
    assert len(gone.examples) == 5


async def test_the_rate_is_kept_and_a_milestone_is_met(servers: dict[str, Child]) -> None:
    """Not faster than asked, and whoever waits for a number wakes when it is begun."""
    traffic = Traffic(servers["digits-v1"].url, BODIES, await _answers(servers, "digits-v1"))
    tally = Tally()
    async with asyncio.TaskGroup() as group:
        group.create_task(traffic.run(Load(50, 100), ("1",), tally))
        await asyncio.wait_for(traffic.reach(25), PATIENCE_S)
        assert 25 <= traffic.sent < 50
    await traffic.reach(25)
    assert tally.seconds >= 0.49


async def test_a_run_without_a_count_goes_on_until_it_is_finished(
    servers: dict[str, Child],
) -> None:
    """What has a number by then is still sent, and the next run begins with the next number."""
    traffic = Traffic(servers["digits-v1"].url, BODIES, await _answers(servers, "digits-v1"))
    first, second = Tally(), Tally()
    async with asyncio.TaskGroup() as group:
        group.create_task(traffic.run(Load(None, FAST), ("1",), first))
        await asyncio.wait_for(traffic.reach(50), PATIENCE_S)
        traffic.finish()
    assert first.answered == traffic.sent > 50
    await traffic.run(Load(5, FAST), ("1",), second)
    assert sorted(second.versions) == [first.answered + number for number in range(5)]


async def test_a_trickle_goes_on_until_cancelled(servers: dict[str, Child]) -> None:
    """Also after an answer that failed."""
    url = servers["digits-v3"].url

    def failed() -> int:
        return int(httpx.get(f"{url}/stats", timeout=PATIENCE_S).json()["failed"])

    before = await asyncio.to_thread(failed)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(trickle(url, BODIES, 100))
        await asyncio.to_thread(wait_for, lambda: failed() >= before + 3, "three failures")
        task.cancel()
    assert task.cancelled()


def test_a_request_id_tells_the_row() -> None:
    """That is how a pair is held against the models."""
    assert row_of("demo-7") == 7
    assert row_of(f"demo-{HELD_OUT + 7}") == 7
