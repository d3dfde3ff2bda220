"""The status document as tables on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from proxy.cli.decision_table import decision_table
from proxy.cli.ramp_table import ramp_table
from proxy.errors import UnderstudyError

#: What the ledger's verdicts mean.
VERDICTS = {
    "balanced": "all adds up",
    "under_way": "adds up but for what is under way",
    "unbalanced": "DOES NOT ADD UP, see the problems above",
}
#: A recorder ships what was journaled within a second or two as a rule.
_LATE_S: Final = 5.0


def print_status(status: dict[str, Any]) -> None:
    """Print the tables once."""
    Console().print(render(status))


def watch_status(fetch: Callable[[], dict[str, Any]], every_s: float) -> None:
    """Show the tables until Ctrl-C, fetched again every `every_s` seconds.

    An instance that stops answering is told, and asked again: it may be restarting.

    Raises:
        UnderstudyError: it does not answer at the first time.
    """
    with suppress(KeyboardInterrupt), Live(render(fetch()), screen=False) as live:
        while True:
            time.sleep(every_s)
            try:
                found = render(fetch())
            except UnderstudyError as exc:
                found = Text(f"NO ANSWER  {exc}", "bold red")
            live.update(found, refresh=True)


def render(status: dict[str, Any]) -> RenderableType:
    """Return the whole status as something rich can print."""
    parts: list[RenderableType] = [_headline(status)]
    parts += [
        Text(f"KILLED {scope}: {', '.join(kinds)}  ({status['notes'].get(scope, '')})", "bold red")
        for scope, kinds in status["killed"].items()
    ]
    parts += [Text(f"replicas: {_standing(status['replicas'])}")] if "replicas" in status else []
    parts += [Text(f"problem: {problem}", "yellow") for problem in status["problems"]]
    ramps = {
        f"{route['name']}/{candidate['name']}": candidate["ramp"]
        for route in status["routes"]
        for candidate in route["candidates"]
        if candidate.get("ramp") and candidate["ramp"]["phase"] != "idle"
    }
    parts += [_state(status)]
    parts += [ramp_table(ramps)] if ramps else []
    parts += [_traffic(status), _processes(status), _ledger(status)]
    if last := status["decisions"]["last"]:
        parts.append(decision_table(reversed(last), "last decisions"))
    return Group(*parts)


def _standing(found: dict[str, Any]) -> str:
    """Say how an instance stands among its replicas."""
    if found["state"] == "alone":
        return f"on its own ({found['why']})"
    living = [each["instance"] for each in found["replicas"] if each["lives"]]
    leader = "this one leads" if found["leads"] else f"{found['leader'] or 'nobody'} leads"
    return (
        f"{found['state'].replace('_', ' ')}; group {found['group']}: {', '.join(living)}; {leader}"
    )


def _headline(status: dict[str, Any]) -> Text:
    word, style = ("ready", "bold green") if status["ready"] else ("NOT READY", "bold red")
    if not status["running"]:
        word = "NOT RUNNING"
    totals = status["totals"]
    return Text.assemble(
        (word, style),
        f"  {status['instance']}  {status['scheme']}://{status['listen']}  config {status['config_version']}"
        f"  requests {totals['received']}  connections {totals['connections_open']}"
        f"  rejected {sum(totals['rejected'].values())}",
    )


def _state(status: dict[str, Any]) -> Table:
    table = Table(title="routes", title_justify="left")
    for name in ("leg", "backend", "weight", "mirror", "breaker", "killed"):
        table.add_column(name)
    for route in status["routes"]:
        table.add_row(f"{route['name']}/primary", route["primary"])
        for candidate in route["candidates"]:
            table.add_row(
                f"{route['name']}/{candidate['name']}",
                candidate["backend"],
                _share(candidate["effective_weight_bp"], candidate["weight_bp"]),
                _share(candidate["effective_mirror_bp"], candidate["mirror_bp"]),
                Text(candidate["breaker"], "" if candidate["breaker"] == "closed" else "red"),
                Text(", ".join(candidate["killed"]), "red"),
            )
    return table


def _traffic(status: dict[str, Any]) -> Table:
    table = Table(title="traffic", title_justify="left")
    table.add_column("leg")
    for name in ("served", "rescued", "mirrored", "skipped", "pairs", "lost", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right")
    table.add_column("ended")
    for route in status["routes"]:
        by_candidates = sum(candidate["served"] for candidate in route["candidates"])
        cells = [str(route["routed"] - by_candidates), *[""] * 5, *_quantiles(route["latency"])]
        table.add_row(f"{route['name']}/primary", *cells, _by_word(route["served"]))
        for candidate in route["candidates"]:
            table.add_row(
                f"{route['name']}/{candidate['name']}",
                str(candidate["served"]),
                str(candidate["rescued"]),
                str(candidate["mirror_sent"]),
                str(sum(candidate["mirror_skipped"].values())),
                str(candidate["pairs_journaled"]),
                str(sum(candidate["pairs_lost"].values())),
                *_quantiles(candidate["latency"]),
                _by_word(candidate["legs"]),
            )
    return table


def _by_word(counts: dict[str, int]) -> Text:
    """Return how calls ended, the bad ways in red."""
    words = [Text(f"{word} {n}", "" if word == "ok" else "red") for word, n in counts.items()]
    return Text(", ").join(words)


def _processes(status: dict[str, Any]) -> Table:
    table = Table(title="processes", title_justify="left")
    for name in ("process", "pid", "state", "restarts", "last end"):
        table.add_column(name)
    for process in status["processes"]:
        state = Text("up", "green") if process["is_alive"] else Text("DOWN", "bold red")
        if process["is_hung"]:
            state = Text("HANGS", "bold red")
        table.add_row(
            process["name"], str(process["pid"]), state, str(process["restarts"]),
            process["last_end"],
        )  # fmt: skip
    for recorder in filter(None, status["recorders"]):
        state = Text(recorder["state"], "green" if recorder["state"] == "ok" else "bold red")
        lag_s = recorder.get("lag_s") or 0
        if lag_s >= _LATE_S:
            state.append(f", {lag_s:,.0f} s late")
        table.add_row(f"recorder {recorder['recorder']} sink", "", state, "", recorder["sink"])
    labels = status.get("labels", {})
    if labels.get("sink"):
        table.add_row("labels sink", "", labels["state"], "", labels["sink"])
    return table


def _ledger(status: dict[str, Any]) -> Table:
    table = Table(title="ledger", title_justify="left")
    table.add_column("account")
    table.add_column("total", justify="right")
    table.add_column("settled")
    table.add_column("under way", justify="right")
    for account in status["ledger"]:
        parts = ", ".join(f"{name} {count}" for name, count in account["parts"].items())
        table.add_row(account["name"], str(account["total"]), parts, str(account["open"]))
    word = status["ledger_verdict"]["verdict"]
    table.title = Text.assemble(
        "ledger: ", (VERDICTS[word], "bold red" if word == "unbalanced" else "")
    )
    backlog = sum(r["backlog_bytes"] for r in filter(None, status["recorders"]))
    if backlog:
        table.caption = f"{backlog:,} bytes of journal wait for the sink's word"
    return table


def _share(effective_bp: int, live_bp: int) -> str:
    if effective_bp == live_bp:
        return f"{live_bp / 100:g}%"
    return f"{effective_bp / 100:g}% (set {live_bp / 100:g}%)"


def _quantiles(latency: dict[str, Any]) -> list[str]:
    return ["" if latency[q] is None else f"{latency[q]:.1f}" for q in ("p50_ms", "p99_ms")]
