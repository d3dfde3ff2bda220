"""`understudy check`: whether a config is good, what it does, or everything wrong with it."""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer

from proxy.cli import options
from proxy.cli.against_running import dry_run, dry_run_lines
from proxy.cli.copy_words import guard_words, rewrite_words
from proxy.cli.terminal import BOLD, GREEN, YELLOW, complain, paint
from proxy.comparison.comparators import own_problem
from proxy.config.advice import advice
from proxy.config.load import load_config
from proxy.config.resolved import Candidate, Config, Guard, Match, Route, Split, Tls
from proxy.config.tls_files import tls_advice
from proxy.config.units import duration, percent
from proxy.errors import ConfigError
from proxy.telemetry import wall_ns


def check(
    config: Annotated[Path, typer.Argument(help="The config file (YAML).", metavar="CONFIG")],
    *,
    against_running: Annotated[
        bool,
        typer.Option("--against-running", help="Say what a reload of it would change, too."),
    ] = False,
    state_dir: options.StateDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Check a config and say what it does, or everything that is wrong with it.

    Opens no socket and writes no file. Exit code 1 when there is a fault, or when --against-running
    finds that only a restart could take it over.
    """
    try:
        resolved = load_config(config, looks_at_files=True)
    except ConfigError as exc:
        _tell_faults(exc, as_json=as_json)
        raise typer.Exit(1) from exc
    reload = dry_run(resolved, state_dir) if against_running else None
    if as_json:
        document = summary(resolved) | ({} if reload is None else {"reload": reload})
        print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
    else:
        print(f"{paint('good:', GREEN)} {config} (version {resolved.version})\n")
        print("\n".join(lines(resolved)))
        warn(resolved)
    if reload is not None:
        if not as_json:
            print("\n" + "\n".join(dry_run_lines(reload)))
        if not reload["accepted"]:
            raise typer.Exit(1)


def warn(config: Config) -> None:
    """Say on stderr what in the config has no effect yet, or will not hold for long."""
    for sentence in _warnings(config):
        print(f"{paint('warning:', YELLOW, sys.stderr)} {sentence}", file=sys.stderr)


def summary(config: Config) -> dict[str, Any]:
    """Return what a config does, without secrets."""
    kafka = config.record.kafka
    return {
        "ok": True,
        "config_version": config.version,
        "instance": config.instance,
        "listen": str(config.listen),
        "tls": None if config.tls is None else _tls_summary(config.tls),
        "workers": config.workers,
        "admin": {"listen": str(config.admin.listen), "needs_token": bool(config.admin.token)},
        "state_dir": config.state_dir,
        "routes": [_route_summary(config, route) for route in config.routes],
        "pairs": {
            "sink": "local log" if kafka is None else "kafka",
            "where": _pairs_place(config),
            "bodies": str(config.record.bodies),
        },
        "unused_backends": _unused(config),
        "warnings": _warnings(config),
    }


def lines(config: Config) -> list[str]:
    """Return what a config does, for a person."""
    token = "with a token" if config.admin.token else "without a token, loopback only"
    found = [
        f"listens   {config.scheme}://{config.listen}, {_count(config.workers, 'worker')}",
        *([] if config.tls is None else [f"tls       {_tls_text(config.tls)}"]),
        f"admin     {config.admin.listen}, {token}",
        f"state     {config.state_dir}",
        f"pairs     {_pairs_place(config)}; bodies: {config.record.bodies}",
    ]
    for route in config.routes:
        found += ["", *_route_lines(config, route)]
    unused = _unused(config)
    if unused:
        found += ["", f"no route uses the backend {', '.join(unused)}"]
    return found


def match_text(match: Match, hidden: Collection[str]) -> str:
    """Return which requests a match takes, in one line; `hidden` headers without their values."""
    path = match.path or (f"{match.path_prefix.rstrip('/')}/…" if match.path_prefix else "any path")
    words = ["|".join(match.methods), match.host + path if match.host else path]
    words += [
        f"{name}: {'***' if name in hidden else value}" for name, value in match.headers.items()
    ]
    return " ".join(word for word in words if word)


def split_text(split: Split) -> str:
    """Return a split key as the config writes it."""
    return f"{split.kind}:{split.name}" if split.name else str(split.kind)


def _warnings(config: Config) -> list[str]:
    return advice(config) + _comparator_advice(config) + tls_advice(config.tls, wall_ns() / 1e9)


def _comparator_advice(config: Config) -> list[str]:
    """Return a sentence for each function of the operator's that cannot be loaded from here."""
    found = ((route.name, own_problem(route.compare)) for route in config.routes)
    return [
        f"routes.{name}.compare.comparator: {problem}; pairs are recorded, and not compared"
        for name, problem in found
        if problem is not None
    ]


def _tls_summary(tls: Tls) -> dict[str, Any]:
    return {
        "certificate": tls.certificate,
        "min_version": tls.min_version,
        "needs_client_certificate": bool(tls.client_ca),
    }


def _tls_text(tls: Tls) -> str:
    clients = "client certificates required" if tls.client_ca else "clients need no certificate"
    return f"{tls.certificate}; TLS {tls.min_version} or newer; {clients}"


def _tell_faults(exc: ConfigError, *, as_json: bool) -> None:
    if as_json:
        document = {"ok": False, "faults": [fault._asdict() for fault in exc.faults]}
        print(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode())
        return
    for fault in exc.faults:
        complain(str(fault))
    complain(_count(len(exc.faults), "fault"))


def _route_lines(config: Config, route: Route) -> list[str]:
    compare = f"compared by {route.compare.comparator}"
    if route.compare.prediction:
        compare += f" on {route.compare.prediction}"
    found = [
        f"{paint(f'route {route.name}', BOLD)}: {match_text(route.match, config.record.redact.headers)} ({route.protocol})",
        f"  primary {_backend_text(config, route.primary)}",
        *(f"  candidate {_candidate_text(config, each)}" for each in route.candidates),
    ]
    if not route.candidates:
        return [*found, "  no candidates: nothing is mirrored or recorded"]
    found.append(
        f"  split by {split_text(route.split)}; {compare}; replicate {percent(route.replicate_bp)}"
    )
    if route.mirror_only != Guard():
        found.append(f"  sent twice only: {guard_words(route.mirror_only)}")
    if route.ramp is not None:
        weights = " → ".join(percent(step.weight_bp) for step in route.ramp.steps)
        found.append(f"  ramp {weights}; gates: {_gates_text(route)}")
    return found


def _candidate_text(config: Config, candidate: Candidate) -> str:
    return f"{candidate.name} → {_backend_text(config, candidate.backend)}, " + ", ".join(
        [
            f"mirror {percent(candidate.mirror_bp)}",
            f"weight {percent(candidate.weight_bp)}",
            *rewrite_words(candidate.rewrite),
        ]
    )


def _gates_text(route: Route) -> str:
    assert route.ramp is not None
    return ", ".join(
        f"{gate.metric} ± {gate.margin:g}"
        + (f" within {duration(gate.budget_s)}" if gate.budget_s else "")
        for gate in route.ramp.gates
    )


def _backend_text(config: Config, name: str) -> str:
    endpoints = ", ".join(map(str, config.backends[name].endpoints))
    return f"{name} ({endpoints})"


def _pairs_place(config: Config) -> str:
    kafka = config.record.kafka
    if kafka is None:
        return str(Path(config.state_dir) / "pairs")
    return f"kafka {', '.join(kafka.bootstrap_servers)}, topic {kafka.topic_prefix}.pairs.v1"


def _route_summary(config: Config, route: Route) -> dict[str, Any]:
    return {
        "name": route.name,
        "match": match_text(route.match, config.record.redact.headers),
        "protocol": str(route.protocol),
        "primary": route.primary,
        "split_by": split_text(route.split),
        "replicate_percent": route.replicate_bp / 100,
        "comparator": route.compare.comparator,
        "candidates": [
            {
                "name": each.name,
                "backend": each.backend,
                "mirror_percent": each.mirror_bp / 100,
                "weight_percent": each.weight_bp / 100,
                "timeout_s": each.timeout_s or None,
                "mirror_rate": each.mirror_rate or None,
                "breaker": each.breaker,
                "guard": each.guard,
                "sets_headers": list(each.rewrite.set_headers),
                "removes_headers": each.rewrite.remove_headers,
                "model": each.rewrite.model or None,
            }
            for each in route.candidates
        ],
        "mirror_only": {
            "methods": route.mirror_only.methods,
            "headers": list(route.mirror_only.headers),
            "path_prefixes": route.mirror_only.path_prefixes,
        },
    }


def _unused(config: Config) -> list[str]:
    used = {route.primary for route in config.routes}
    used |= {candidate.backend for route in config.routes for candidate in route.candidates}
    return [name for name in config.backends if name not in used]


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
