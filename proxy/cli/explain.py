"""`understudy explain`: what would happen to one request, and why."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import orjson
import typer

from proxy.cli.check import match_text, split_text
from proxy.cli.copy_words import copy_words, guard_words
from proxy.config.load import load_config
from proxy.config.resolved import Config, Route
from proxy.config.units import percent
from proxy.errors import UnderstudyError
from proxy.routing.decide import PRIMARY, Decision, Plan, decide, make_plan, unit_of
from proxy.routing.guard import Guard
from proxy.routing.match import Matcher, Router, host_name
from proxy.routing.split import key_reader
from proxy.state.control_page import ControlState, for_config, open_page


@dataclass(frozen=True, slots=True)
class Asked:
    """The request that the operator asks about; header names in lower case."""

    method: bytes
    path: bytes
    fields: dict[bytes, bytes]
    body: bytes
    client: bytes
    key: bytes | None

    @property
    def host(self) -> bytes:
        """Return the Host field, empty where none was given."""
        return self.fields.get(b"host", b"")


@dataclass(frozen=True, slots=True)
class Answer:
    """What happens to the request and why, in sentences."""

    route: str
    key: str
    serves: str
    mirrors: list[str]
    replicate: bool
    why: list[str]
    guard: str
    candidates: dict[str, list[str]]


def explain(  # noqa: PLR0913 - one argument for each option of the command
    config: Annotated[Path, typer.Argument(help="The config file (YAML).", metavar="CONFIG")],
    *,
    method: Annotated[str, typer.Option(help="The request's method.")] = "POST",
    path: Annotated[str, typer.Option(help="The request's path.")] = "/",
    header: Annotated[
        list[str] | None,
        typer.Option(
            "--header", "-H", help="A header field; may be repeated.", metavar="NAME:VALUE"
        ),
    ] = None,
    body: Annotated[
        str, typer.Option(help="The request's body, for a split key in it.", metavar="JSON")
    ] = "",
    client_ip: Annotated[str, typer.Option(help="The client's address.", metavar="IP")] = "",
    key: Annotated[
        str | None, typer.Option(help="The split key itself, instead of finding it.", metavar="KEY")
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="With the live weights and kills of state_dir.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Say which route takes a request, who serves it, who gets a copy, and why.

    The same code decides as in the data plane. Exit code 1 when no route takes the request.
    """
    resolved = load_config(config)
    asked = Asked(
        method=method.encode(),
        path=path.partition("?")[0].encode(),
        fields=_fields(header or []),
        body=body.encode(),
        client=client_ip.encode(),
        key=None if key is None else key.encode(),
    )
    state = _live_state(resolved) if live else for_config(resolved, ControlState())
    route = Router(resolved.routes).match(asked.method, asked.host, asked.path, asked.fields)
    if route is None:
        reasons = "\n".join(f"  {name}: {why}" for name, why in _refusals(resolved, asked))
        raise UnderstudyError(f"no route takes this request; it would get 404\n{reasons}")
    answer = _answer(route, make_plan(route, state), asked)
    if as_json:
        print(orjson.dumps(answer, option=orjson.OPT_INDENT_2).decode())
        return
    print(f"route     {answer.route}: {match_text(route.match, resolved.record.redact.headers)}")
    print(f"key       {answer.key}")
    print(f"serves    {answer.serves}")
    print(f"mirrors   {', '.join(answer.mirrors) or 'nobody'}")
    print(f"replicate {'yes' if answer.replicate else 'no'}")
    print(f"twice     {answer.guard}")
    print("\n".join(f"  - {reason}" for reason in answer.why))
    for name, words in answer.candidates.items():
        print(f"  - {name}: {'; '.join(words)}")


def _answer(route: Route, plan: Plan, asked: Asked) -> Answer:
    key, origin = _key(route, asked)
    refusal = Guard(route.mirror_only).refusal(asked.method, asked.path, asked.fields)
    guard = f"yes: {guard_words(route.mirror_only)}" if refusal is None else f"no: {refusal}"
    words = {candidate.name: copy_words(candidate) for candidate in route.candidates}
    if key is None and plan.everyone is None:
        return Answer(
            route=route.name,
            key=origin,
            serves="decided anew for each request, by its id",
            mirrors=[],
            replicate=False,
            why=[f"the probabilities are: primary {plan.primary_prob:.2%}", *_shares(plan)],
            guard=guard,
            candidates=words,
        )
    unit = unit_of(plan, key or b"")
    decision = decide(plan, key or b"", unit, may_repeat=refusal is None)
    names = [candidate.name for candidate in route.candidates]
    copies = [names[number] for number in decision.mirrors]
    if decision.mirror_primary:
        copies.insert(0, f"primary ({route.primary})")
    return Answer(
        route=route.name,
        key=origin if key is None else f"{key.decode('utf-8', 'replace')} ({origin})",
        serves=_server(route, decision),
        mirrors=copies,
        replicate=decision.replicate,
        why=_reasons(plan, decision, may_repeat=refusal is None),
        guard=guard,
        candidates=words,
    )


def _key(route: Route, asked: Asked) -> tuple[bytes | None, str]:
    """Return the split key, as the data plane would find it, and where it is from."""
    if asked.key is not None:
        return asked.key, "given by --key"
    wanted = split_text(route.split)
    key = key_reader(route.split)(asked.fields, asked.body, asked.client)
    if key is not None:
        return key, wanted
    request_id = asked.fields.get(b"x-request-id") or None
    if request_id is not None:
        return request_id, f"x-request-id, because there is no {wanted}"
    return None, f"none: the request has no {wanted}"


def _server(route: Route, decision: Decision) -> str:
    if decision.serving == PRIMARY:
        return f"primary ({route.primary})"
    candidate = route.candidates[decision.serving]
    return f"{candidate.name} ({candidate.backend})"


def _reasons(plan: Plan, decision: Decision, *, may_repeat: bool) -> list[str]:
    candidates = plan.route.candidates
    if not candidates:
        return ["the route has no candidates"]
    chance = f"this key is served so with probability {decision.assign_prob:.2%}"
    reasons = [f"{chance}, the same on every worker and after every restart"]
    for number, share in enumerate(plan.shares):
        name = candidates[number].name
        if number == decision.serving:
            reasons.append(f"{name}: the key is inside its weight of {percent(share.weight_bp)}")
        elif number in decision.mirrors:
            reasons.append(f"{name}: the key is inside its mirror of {percent(share.mirror_bp)}")
        elif not may_repeat:
            reasons.append(f"{name}: gets no copy, because this request must not be sent twice")
        elif not share.weight_bp and not share.mirror_bp:
            reasons.append(f"{name}: its weight and its mirror are 0%, or killed")
        else:
            reasons.append(
                f"{name}: the key is outside its weight of {percent(share.weight_bp)} and its "
                f"mirror of {percent(share.mirror_bp)}"
            )
    if decision.mirror_primary:
        reasons.append("primary: gets a copy, so that the pair can be compared")
    if not all(plan.is_recorded):
        reasons.append("recording is killed for a candidate of this route")
    return reasons


def _shares(plan: Plan) -> list[str]:
    return [
        f"{candidate.name}: weight {percent(share.weight_bp)}, mirror {percent(share.mirror_bp)}"
        for candidate, share in zip(plan.route.candidates, plan.shares, strict=True)
    ]


def _live_state(config: Config) -> ControlState:
    page = open_page(Path(config.state_dir))
    try:
        return page.read()
    finally:
        page.close()


def _fields(headers: list[str]) -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            raise UnderstudyError(f"{header!r} is no header; write NAME:VALUE")
        found[name.strip().lower().encode()] = value.strip().encode()
    return found


def _refusals(config: Config, asked: Asked) -> list[tuple[str, str]]:
    """Return for each route the part of its match that does not hold."""
    hidden = config.record.redact.headers
    return [(route.name, _refusal(Matcher(route), asked, hidden)) for route in config.routes]


def _refusal(matcher: Matcher, asked: Asked, hidden: Collection[str]) -> str:
    if matcher.methods and asked.method not in matcher.methods:
        return f"the method is not {' or '.join(matcher.route.match.methods)}"
    if matcher.host and host_name(asked.host) != matcher.host:
        return f"the host is not {matcher.route.match.host}"
    for name, value in matcher.headers:
        if asked.fields.get(name) != value:
            shown = "the one that is asked for" if name.decode() in hidden else repr(value.decode())
            return f"the header {name.decode()} is not {shown}"
    return f"the path is not {matcher.route.match.path or matcher.route.match.path_prefix + '…'}"
