"""Which requests may be sent twice."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from proxy.config import resolved
from proxy.routing.decide import PRIMARY, decide, make_plan, unit_of
from proxy.routing.guard import Guard
from proxy.state.control_page import ControlState, for_config
from tests.support.resolved_config import small_config

CONFIG = small_config(Path("/nowhere"))
STRICT = resolved.Guard(("POST",), {"x-safe": "yes"}, ("/a/", "/b"))


@pytest.mark.parametrize(
    ("guard", "method", "path", "fields", "telling"),
    [
        (resolved.Guard(), b"POST", b"/", {}, None),
        (resolved.Guard(), b"GET", b"/", {}, None),
        (resolved.Guard(), b"DELETE", b"/", {}, "the method DELETE is not one"),
        (resolved.Guard(), b"post", b"/", {}, "the method post is not one"),
        (resolved.Guard(methods=()), b"DELETE", b"/", {}, None),
        (STRICT, b"POST", b"/a", {b"x-safe": b"yes"}, None),
        (STRICT, b"POST", b"/b/c", {b"x-safe": b"yes"}, None),
        (STRICT, b"POST", b"/bc", {b"x-safe": b"yes"}, "none of its prefixes"),
        (STRICT, b"POST", b"/b", {}, "the header x-safe is missing"),
        (STRICT, b"POST", b"/b", {b"x-safe": b"no"}, "the header x-safe is missing"),
        (STRICT, b"GET", b"/b", {b"x-safe": b"yes"}, "the method GET"),
    ],
)
def test_all_of_a_guard_must_hold(
    guard: resolved.Guard,
    method: bytes,
    path: bytes,
    fields: dict[bytes, bytes],
    telling: str | None,
) -> None:
    """And the words for it agree with the decision."""
    compiled = Guard(guard)
    assert compiled.may_repeat(method, path, fields) is (telling is None)
    assert method not in compiled.repeatable or telling is None
    methods = frozenset(name.encode() for name in guard.methods)
    assert compiled.repeatable == (frozenset() if guard.headers or guard.path_prefixes else methods)
    refusal = compiled.refusal(method, path, fields)
    assert refusal is None if telling is None else telling in str(refusal)
    assert "yes" not in str(refusal)


@given(st.binary(min_size=1, max_size=20), st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_guarded_request_goes_to_the_same_server_and_nowhere_else(
    key: bytes, weight_bp: int, replicate_bp: int
) -> None:
    """It sticks to its side; nothing is copied, and a pair there is only where a candidate serves."""
    route = CONFIG.routes[0]
    one, two = route.candidates
    candidates = replace(one, weight_bp=weight_bp), replace(two, mirror_bp=10_000)
    route = replace(route, candidates=candidates, replicate_bp=replicate_bp)
    plan = make_plan(route, for_config(replace(CONFIG, routes=(route,)), ControlState()))
    unit = unit_of(plan, key)
    for _ in range(2):  # the second time from what the plan remembers
        free, alone = decide(plan, key, unit), decide(plan, key, unit, may_repeat=False)
        assert alone.serving == free.serving
        assert (alone.mirrors, alone.mirror_primary, alone.replicate) == ((), False, False)
        assert alone.pairs == (() if alone.serving == PRIMARY else (alone.serving,))
        assert free.mirrors
        served = {} if alone.serving == PRIMARY else {alone.serving: 1.0}
        assert alone.sample_probs == tuple(served.get(number, 0.0) for number in range(2))
        assert alone.assign_prob == free.assign_prob
