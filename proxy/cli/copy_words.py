"""What a config says about a candidate's calls, in words; of headers the names alone. Pure."""

from __future__ import annotations

from proxy.config.resolved import CanaryGuard, Candidate, Guard, Rewrite
from proxy.config.units import duration


def copy_words(candidate: Candidate) -> list[str]:
    """Return what bounds a candidate's calls and what is changed in its requests."""
    breaker = candidate.breaker
    found = []
    if candidate.timeout_s:
        found.append(f"copies end after {duration(candidate.timeout_s)}")
    if candidate.mirror_rate:
        found.append(f"at most {candidate.mirror_rate:g} copies per second")
    if breaker.failures:
        found.append(
            f"the breaker opens after {breaker.failures} copies in a row without an answer, for "
            f"{duration(breaker.open_for_s)} up to {duration(breaker.max_open_for_s)}"
        )
    else:
        found.append("no breaker")
    return [*found, canary_words(candidate.guard), *rewrite_words(candidate.rewrite)]


def canary_words(guard: CanaryGuard) -> str:
    """Return when a candidate is taken out of live traffic."""
    if not guard.failures:
        return "no guard of its live calls"
    slow = ""
    if guard.latency_s is None:
        slow = " or are much slower than the primary's"
    elif guard.latency_s:
        slow = f" or are slower than {duration(guard.latency_s)}"
    return f"its guard takes it out after {guard.failures} live calls that fail{slow}"


def rewrite_words(rewrite: Rewrite) -> list[str]:
    """Return what is changed in a candidate's requests, mirrored or serving; empty for nothing."""
    found = []
    if rewrite.set_headers:
        found.append(f"sets {', '.join(rewrite.set_headers)}")
    if rewrite.remove_headers:
        found.append(f"removes {', '.join(rewrite.remove_headers)}")
    if rewrite.model:
        found.append(f"names the model {rewrite.model!r}")
    return found


def guard_words(guard: Guard) -> str:
    """Return which requests may be sent twice, in one line."""
    words = [" or ".join(guard.methods) or "any method"]
    if guard.path_prefixes:
        words.append(f"below {' or '.join(guard.path_prefixes)}")
    if guard.headers:
        words.append(f"with the right {' and '.join(guard.headers)}")
    return " ".join(words)
