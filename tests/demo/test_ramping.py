"""A ramp as the demo keeps it."""

from __future__ import annotations

from proxy.demo.ramping import Ramping, place_of


def test_words_tell_the_place() -> None:
    """As the proxy writes them into its decisions."""
    assert place_of("shadow") == "shadow"
    assert place_of("holding shadow") == "shadow"
    assert place_of("stepping step 2 of 4 at 10%") == "10%"


def test_what_was_never_looked_at_has_no_phase() -> None:
    """And no events."""
    ramping = Ramping("v2")
    assert (ramping.phase, ramping.words, ramping.events) == ("", "not started", [])
    ramping.told = {"ramp": {"phase": "rolled_back", "words": "rolled_back"}}
    ramping.decisions = [{"action": "ramp_start"}, {"action": "ramp_halt"}]
    assert (ramping.words, ramping.events) == ("rolled back", ["start", "halt"])
