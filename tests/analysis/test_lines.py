"""Lines counted by columns say what records say, whatever stands in them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given, settings, strategies as st

from proxy.analysis.aggregate import Aggregate, Reading, add_all
from proxy.analysis.lines import MIN_LINES, LineCounter
from proxy.analysis.summarise import summary_of
from proxy.analysis.summary import Selection
from tests.analysis.test_parallel import counted, mixed

Records = list[dict[str, Any]]

EVERY_PAIR = Reading()

#: Texts in which quotes, commas, braces and names of fields stand where they could mislead.
TEXTS = st.sampled_from(
    ['a,"', ',"equal":true', '"', "\\", "}\n{", 'x,\\"primary_status":"ok",', "é,", "", "},{"]
)
PREDICTIONS = st.one_of(
    st.none(),
    st.integers(-3, 3),
    st.floats(-2, 2),
    TEXTS,
    st.lists(st.floats(0, 1), max_size=3),
    st.lists(TEXTS, max_size=3),
    st.dictionaries(st.sampled_from(["label", "primary_chunks", "input_tokens"]), TEXTS),
    st.just({"x": 1, "primary_input_tokens": 5, "candidate_prediction": [1]}),
)


def lines_of(records: Records) -> bytes:
    """Return records as lines."""
    return b"".join(orjson.dumps(each, option=orjson.OPT_APPEND_NEWLINE) for each in records)


def by_columns(blocks: Sequence[bytes], reading: Reading = EVERY_PAIR) -> Aggregate:
    """Return the counts of blocks, all of which must count by columns."""
    aggregate = Aggregate(reading)
    counter = LineCounter(aggregate)
    assert [counter.count(block) for block in blocks] == [True] * len(blocks)
    return aggregate


def by_records(records: Records, reading: Reading = EVERY_PAIR) -> Aggregate:
    """Return the counts of records, one by one."""
    aggregate = Aggregate(reading)
    add_all(aggregate, records)
    return aggregate


def told(aggregate: Aggregate, reading: Reading = EVERY_PAIR) -> dict[str, Any]:
    """Return the whole summary."""
    return counted(summary_of(aggregate, reading))


@pytest.mark.parametrize(
    "selection", [Selection(worst=5), Selection(candidate="v3", since_ms=1_700_000_300_000)]
)
def test_blocks_of_lines_count_as_their_records_do(selection: Selection) -> None:
    """Failures, duplicates, two candidates and segments included, over several blocks."""
    records = mixed(600)
    records += records[:40]
    blocks = [lines_of(records[start : start + 160]) for start in range(0, len(records), 160)]
    reading = Reading(selection)
    assert told(by_columns(blocks, reading), reading) == told(by_records(records, reading), reading)


@settings(max_examples=12)
@given(st.integers(0, 2**32), st.lists(PREDICTIONS, min_size=1, max_size=12), st.data())
def test_nested_values_and_texts_mislead_nobody(
    seed: int, predictions: list[Any], data: st.DataObject
) -> None:
    """Whether such lines count by columns or not, what comes out is the same."""
    records = mixed(MIN_LINES, seed)
    rng = random.Random(seed)
    for record in records:
        record["primary_prediction"] = rng.choice(predictions)
        record["candidate_prediction"] = rng.choice(predictions)
        record["replicate_prediction"] = rng.choice(predictions)
    for record in data.draw(st.lists(st.sampled_from(records), max_size=6)):
        name = data.draw(st.sampled_from(["primary_body", "path", "candidate_error", "request_id"]))
        record[name] = data.draw(TEXTS)
        record["segments"] = {"tier": data.draw(TEXTS), "lang": "de", "equal": "x"}
    aggregate = Aggregate(Reading())
    if not LineCounter(aggregate).count(lines_of(records)):
        assert not aggregate.records
        return
    assert told(aggregate) == told(by_records(records))


@pytest.mark.parametrize(
    "change",
    [
        {"segments": {"tier": "gold", "lang": "de", "plan": "free"}},
        {"primary_prediction": {"label": "cat", "score": 0.5}},
        {"candidate_prediction": ["a", "b", "c"], "replicate_prediction": {"a": 1, "b": 2}},
        {"primary_ttft_ms": 12.5, "candidate_itl_max_ms": 3},
        {"candidate_error": 'ends in a comma,"', "primary_body": ',"equal":false,"'},
    ],
)
def test_what_a_recorder_may_write_counts_by_columns(change: dict[str, Any]) -> None:
    """Several segments, predictions that are objects, streams, any text: in some lines or in all."""
    records = mixed(100)
    for record in records[::3]:
        record.update(change)
    assert told(by_columns([lines_of(records)])) == told(by_records(records))
    for record in records:
        record.update(change)
    assert told(by_columns([lines_of(records)])) == told(by_records(records))


def _without(name: str) -> Records:
    records = mixed(MIN_LINES)
    return [{k: v for k, v in record.items() if k != name} for record in records]


def _with(**changes: Any) -> Records:
    records = mixed(MIN_LINES)
    records[7].update(changes)
    return records


@pytest.mark.parametrize(
    "content",
    [
        lines_of(mixed(MIN_LINES - 1)),
        lines_of(mixed(MIN_LINES))[:-1],
        lines_of(mixed(MIN_LINES)) + b"\n",
        lines_of(mixed(MIN_LINES)) + b"{nonsense}\n",
        lines_of(mixed(MIN_LINES)).replace(b'"seq":9,', b'"seq":09,'),
        lines_of(mixed(MIN_LINES)).replace(b'"seq":9,', b'"seq":9.5,'),
        lines_of(mixed(MIN_LINES)).replace(b'"seq":9,', b'"seq":9,9,'),
        lines_of(mixed(MIN_LINES)).replace(b'"rescued":false', b'"rescued":fa', 1),
        lines_of([*mixed(MIN_LINES), {"a": 1}]),
        lines_of(_without("primary_status")),
        lines_of(_with(seq=None)),
        lines_of(_with(equal="yes")),
        lines_of(_with(primary_latency_ms="fast")),
        lines_of(_with(segments={"a": 1})),
        lines_of([dict(reversed(each.items())) for each in mixed(3)] + mixed(MIN_LINES)),
        b"",
    ],
    ids=range(16),
)
def test_lines_of_another_shape_are_left_to_records(content: bytes) -> None:
    """Nothing of such a block is counted."""
    aggregate = Aggregate(Reading())
    counter = LineCounter(aggregate)
    assert not counter.count(content)
    assert (aggregate.records, aggregate.groups, aggregate.bad) == (0, {}, 0)


def test_what_came_first_counts_whichever_way_it_went() -> None:
    """Records that wait to be counted are counted before the next block."""
    records = mixed(MIN_LINES)
    again = [record | {"equal": None, "comparable": False} for record in records]
    aggregate = Aggregate(EVERY_PAIR)
    for record in records[:5]:
        aggregate.add(record)
    assert LineCounter(aggregate).count(lines_of(again))
    assert told(aggregate) == told(by_records([*records[:5], *again]))


def test_a_shape_is_learnt_from_the_lines() -> None:
    """Of another release, with a field more and one that need not be there less."""
    records = [{**each, "added_later": [1, 2]} for each in _without("loss_diff")]
    assert told(by_columns([lines_of(mixed(40)), lines_of(records)])) == told(
        by_records([*mixed(40), *records])
    )


def test_after_strange_blocks_fewer_are_looked_at() -> None:
    """A foreign log is read no slower than before; a usual block is found again soon."""
    aggregate = Aggregate(Reading())
    counter = LineCounter(aggregate)
    strange, usual = b"[]\n" * 50, lines_of(mixed(40))
    for _ in range(5):
        counter.count(strange)
    assert True in [counter.count(usual) for _ in range(5)]
