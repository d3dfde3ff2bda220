"""What a record's spans say, and whose they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy.config.resolved import Config, Otlp
from proxy.control.metrics import SPAN_DROPS
from proxy.recorder.spans import Extract, Sampler, SpanDraft, SpanDrop, SpanKind, SpanMaker
from proxy.wire.trace_context import CANDIDATE, PRIMARY, REPLICATE, leg_span_id
from tests.support.records import pair
from tests.support.resolved_config import small_config

EXCHANGE = 0x00F067AA0BA90280
TS_US = 1_700_000_000_000_000


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The small one."""
    return small_config(tmp_path)


def spans(maker: SpanMaker, record: dict[str, Any], number: int = 0) -> list[SpanDraft]:
    """Make the spans of one record."""
    return maker.spans(Extract.of(record, TS_US, number))


def test_an_exchange_is_a_server_span_and_each_leg_a_client_span_below(config: Config) -> None:
    """With the ids that the backends were told, and the times of the record."""
    record = pair(1, 1, 2, replicate=1, parent_span_id="b7ad6b7169203331")
    server, candidate, primary, replicate = spans(SpanMaker(config), record)
    assert (server.kind, server.name) == (SpanKind.SERVER, "POST iris")
    assert (server.span_id, server.parent_id) == (EXCHANGE, 0xB7AD6B7169203331)
    assert (server.start_ns, server.end_ns) == (TS_US * 1000, TS_US * 1000 + 2_150_000)
    for span, leg in ((primary, PRIMARY), (replicate, REPLICATE), (candidate, CANDIDATE)):
        assert span.kind is SpanKind.CLIENT
        assert (span.span_id, span.parent_id) == (leg_span_id(EXCHANGE, leg), EXCHANGE)
        assert span.trace_id == server.trace_id == int(record["trace_id"], 16)
        assert (span.start_ns, span.end_ns) == (TS_US * 1000 + 150_000, TS_US * 1000 + 2_150_000)
        assert not span.error
    assert server.attributes == {
        "http.request.method": "POST", "url.path": "/v2/models/iris/infer",
        "http.response.status_code": 200, "http.request.body.size": 5,
        "http.response.body.size": 7, "understudy.route": "iris", "understudy.mode": "shadow",
        "understudy.served_by": "primary", "understudy.rescued": False,
        "understudy.request_id": "r-1", "understudy.experiment_id": "iris",
        "understudy.config_version": "0123456789abcdef",
    }  # fmt: skip
    assert candidate.attributes["understudy.candidate"] == "v2"
    assert candidate.attributes["understudy.equal"] is False
    assert candidate.attributes["understudy.backend"] == "iris-v2"
    assert (candidate.attributes["server.address"], candidate.attributes["server.port"]) == (
        "127.0.0.1", 9,
    )  # fmt: skip


def test_an_exchange_with_two_candidates_has_one_server_span(config: Config) -> None:
    """Each candidate's record brings its own leg, told apart by its place in the route."""
    maker = SpanMaker(config)
    assert len(spans(maker, pair(1))) == 3
    [other] = spans(maker, pair(1, candidate="v3"), number=1)
    assert other.span_id == leg_span_id(EXCHANGE, CANDIDATE + 1)
    assert len(spans(maker, pair(2, span_id=f"{EXCHANGE + 64:016x}"))) == 3


@pytest.mark.parametrize(
    ("changes", "server_error", "candidate_error"),
    [
        ({"candidate_status": "timeout", "candidate_http_status": None}, "", "timeout"),
        ({"candidate_status": "http_error", "candidate_http_status": 404}, "", "404"),
        ({"primary_status": "http_error", "primary_http_status": 404}, "", ""),
        ({"primary_status": "http_error", "primary_http_status": 503}, "503", ""),
        ({"primary_status": "reset", "primary_http_status": 200}, "reset", ""),
        ({"primary_status": "connect_error", "primary_http_status": None}, "connect_error", ""),
    ],
)
def test_failures_have_a_type(
    config: Config, changes: dict[str, Any], server_error: str, candidate_error: str
) -> None:
    """A client's 4xx is no failure of ours; a leg's is one of the call (semantic conventions)."""
    server, candidate, *_ = spans(SpanMaker(config), pair(1, **changes))
    assert (server.error, candidate.error) == (server_error, candidate_error)
    assert server.attributes.get("error.type", "") == server_error
    assert candidate.attributes.get("error.type", "") == candidate_error


def test_a_leg_that_was_never_sent_is_no_span(config: Config) -> None:
    """Nobody was called; the exchange was served all the same."""
    record = pair(1, candidate_status="shed", candidate_http_status=None)
    assert [span.kind for span in spans(SpanMaker(config), record)] == [
        SpanKind.SERVER,
        SpanKind.CLIENT,
    ]
    assert Extract.of(record, TS_US, 0).spans_at_most() == 2


def test_sampled_traces_and_a_share_of_the_others_are_taken() -> None:
    """The same trace everywhere or nowhere: by its id, not by chance."""
    none, quarter, everything = (Sampler(Otlp("http://c", {}, bp)) for bp in (0, 2_500, 10_000))
    sampled = pair(1, trace_sampled=True)
    assert none.takes(sampled)
    low = pair(1, trace_id="f" * 18 + "3" + "f" * 13)
    high = pair(1, trace_id="0" * 18 + "4" + "0" * 13)
    assert [each.takes(low) for each in (none, quarter, everything)] == [False, True, True]
    assert [each.takes(high) for each in (none, quarter, everything)] == [False, False, True]
    assert not everything.takes(pair(1, span_id=None, trace_sampled=True))


def test_reasons_are_those_that_control_tells() -> None:
    """They are written twice, because control does not import the recorder."""
    assert set(SPAN_DROPS) == set(SpanDrop)


def test_a_backend_of_several_addresses_or_a_socket_is_not_misnamed(config: Config) -> None:
    """The record does not say which of them was asked."""
    backend = config.backends["iris-v2"]
    many = replace(backend, endpoints=backend.endpoints * 2)
    config = replace(config, backends={**config.backends, "iris-v2": many})
    _, candidate, primary = spans(SpanMaker(config), pair(1))
    assert "server.address" not in candidate.attributes
    assert "server.address" in primary.attributes
