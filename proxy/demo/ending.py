"""What the demo says at its end: where things lie, what to try next, and all of it as JSON."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

from proxy.analysis.summary import Summary
from proxy.demo.checks import Check
from proxy.demo.story import Story
from proxy.demo.traffic import PATH, Tally
from proxy.telemetry import rfc3339

SAMPLE = "request.json"


def next_commands(path: Path, crashed_ms: int) -> list[tuple[str, str]]:
    """Return commands to try on the records in the demo's folder `path`, with what they do."""
    state, pairs = shlex.quote(str(path / "state")), shlex.quote(str(path / "state" / "pairs"))
    return [
        (
            f"understudy compare --from {state} --until {rfc3339(crashed_ms)} --worst 20",
            "the comparison again, with more of it",
        ),
        (f"understudy verdict --from {state} --candidate v2", "and with the crash"),
        (f"zstdcat {pairs}/*.zst | head -1 | python3 -m json.tool", "one record, whole"),
        ("understudy demo --keep", "the same, left running to play with"),
    ]


def play_commands(story: Story) -> list[tuple[str, str]]:
    """Return commands to try on the running demo, with what they do; writes the sample request."""
    folder, running = story.folder.path, story.running
    (folder / SAMPLE).write_bytes(story.sample_request())
    headers = "-H 'content-type: application/json' -H 'x-user-id: ada'"
    return [
        (f"cd {shlex.quote(str(folder))}", "there, the commands find the proxy by themselves"),
        (f"curl -s {headers} --data @{SAMPLE} {running.url}{PATH}", "ask as a user"),
        (f"curl -s {running.admin_url}/api/v1/status", "what the proxy knows"),
        ("understudy status -w", "the same, to read, each second"),
        (
            "understudy ramp start digits --candidate v2 --reason 'its server is back'",
            "let it have users again, by evidence",
        ),
        ("understudy weight digits v2 25 --reason 'by hand'", "or a quarter of them at once"),
        ("understudy kill --reason 'just because'", "back to the primary, now"),
        ("understudy revive --reason 'all is well'", "and open it again"),
    ]


def as_json(story: Story, found: Sequence[Check], summary: Summary, seconds: float) -> bytes:
    """Return everything the demo found, as one JSON object with a final newline."""
    measured = story.measured
    kill = measured.kill
    document = {
        "ok": all(check.is_passed for check in found),
        "seconds": round(seconds, 3),
        "folder": str(story.folder.path),
        "records": str(story.folder.state / "pairs"),
        "models": [
            {"name": t.spec.name, "role": t.spec.role, "accuracy": t.accuracy}
            for t in story.trained
        ],
        "requests": measured.sent,
        "phases": {name: _phase(tally) for name, tally in measured.tallies.items()},
        "ramps": {
            name: {"phase": ramp.phase, "events": ramp.events, "seconds": round(ramp.seconds, 3)}
            for name, ramp in {**measured.ramps, "crash": measured.crash}.items()
            if ramp is not None
        },
        "kill": kill
        and {
            "confirmed_ms": kill.confirmed_s * 1000,
            "effect_ms": kill.effect_s * 1000,
            "arrived_late": kill.arrived_late,
        },
        "checks": found,
        "comparison": summary,
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _phase(tally: Tally) -> dict[str, Any]:
    return {
        "requests": tally.answered,
        "failed": tally.failed,
        "wrong": tally.wrong,
        "served": dict(tally.served),
        "p50_ms": tally.latency_ms(0.5),
        "p99_ms": tally.latency_ms(0.99),
        "seconds": round(tally.seconds, 3),
    }
