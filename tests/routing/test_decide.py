"""The laws of the split: stable, monotone, exact in share, and obedient to kills."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hypothesis import given, strategies as st

from proxy.config.resolved import Candidate, Route
from proxy.routing.decide import PRIMARY, Decision, alone, decide, make_plan, unit_of
from proxy.state.control_page import ControlState, Part, for_config
from proxy.state.kill import Scope, kill, set_weight
from tests.support.resolved_config import small_config

CONFIG = small_config(Path("/nowhere"))
KEYS = st.binary(min_size=1, max_size=40)
BP = st.integers(0, 10_000)


def state_of(**weights: int) -> ControlState:
    """Return a live state with these canary weights and everything mirrored at 30%."""
    route = CONFIG.routes[0]
    candidates = tuple(
        Candidate(c.name, c.backend, mirror_bp=3_000, weight_bp=0) for c in route.candidates
    )
    config = replace(CONFIG, routes=(replace(route, candidates=candidates),))
    state = for_config(config, ControlState())
    for name, weight in weights.items():
        state = set_weight(state, Scope("iris", name), weight)
    return state


def decision(state: ControlState | None, key: bytes, route: Route = CONFIG.routes[0]) -> Decision:
    """Decide for one key."""
    plan = make_plan(route, state)
    return decide(plan, key, unit_of(plan, key))


@given(KEYS, BP)
def test_the_same_key_gives_the_same_decision_in_a_new_plan(key: bytes, weight: int) -> None:
    """Nothing but the route's name, the weights and the key enters."""
    assert decision(state_of(v2=weight), key) == decision(state_of(v2=weight), key)


@given(KEYS, BP, BP)
def test_raising_a_weight_moves_nobody_back(key: bytes, one: int, two: int) -> None:
    """Who was served by the candidate at the lower weight is served by it at the higher."""
    low, high = sorted((one, two))
    if decision(state_of(v2=low), key).serving == 0:
        assert decision(state_of(v2=high), key).serving == 0


@given(KEYS, BP, BP)
def test_the_weight_of_one_candidate_does_not_move_the_other(key: bytes, a: int, b: int) -> None:
    """With two candidates, changing the first never takes a key from the second."""
    a, b = min(a, 5_000), min(b, 5_000)
    if decision(state_of(v2=0, v3=b), key).serving == 1:
        assert decision(state_of(v2=a, v3=b), key).serving == 1


def test_the_share_is_exact() -> None:
    """At 10% over 100,000 keys the candidate serves 10% within 0.3 points (four sigma)."""
    plan = make_plan(CONFIG.routes[0], state_of(v2=1_000))
    keys = (b"user-%d" % number for number in range(100_000))
    served = sum(decide(plan, key, unit_of(plan, key)).serving == 0 for key in keys)
    assert abs(served / 100_000 - 0.10) < 0.003


@given(KEYS)
def test_a_kill_beats_every_weight(key: bytes) -> None:
    """Whatever the scope, a killed candidate neither serves nor is mirrored."""
    for scope in (Scope(), Scope("iris"), Scope("iris", "v2")):
        killed = decision(kill(state_of(v2=10_000), scope, Part.DEFAULT, "x"), key)
        assert killed.serving == PRIMARY
        assert 0 not in killed.mirrors


@given(KEYS)
def test_without_a_state_only_the_primary_is_used(key: bytes) -> None:
    """An unreadable control page is no reason to try anything."""
    found = decision(None, key)
    assert (found.serving, found.mirrors, found.replicate) == (PRIMARY, (), False)


@given(KEYS, BP, BP)
def test_where_no_copies_can_be_made_the_same_one_serves_alone(key: bytes, a: int, b: int) -> None:
    """What is left of a decision with copies; one without has no other."""
    plan = make_plan(CONFIG.routes[0], state_of(v2=min(a, 5_000), v3=min(b, 5_000)))
    found = decide(plan, key, unit_of(plan, key))
    bare = alone(plan, found.serving)
    assert found.alone == (bare if found.mirrors or found.mirror_primary else None)
    assert bare.alone is None
    assert (bare.mirrors, bare.mirror_primary, bare.replicate) == ((), False, False)
    assert bare.pairs == (() if found.serving == PRIMARY else (found.serving,))
    assert bare.assign_prob == found.assign_prob


@given(KEYS)
def test_a_canary_is_mirrored_to_the_primary(key: bytes) -> None:
    """At full weight with mirroring on, every exchange still gives a pair of answers."""
    found = decision(state_of(v2=10_000), key)
    assert found.serving == 0
    assert found.mirror_primary
    assert found.pairs[0] == 0
    assert found.assign_prob == found.sample_probs[0] == 1.0
