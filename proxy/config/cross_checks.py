"""What must fit together between two places of a config. Pure: a valid file in, faults out.

Every check yields a path and a sentence; the lines are `proxy.config.load`'s business. Warnings do
not exist here: what a check reports is a mistake that no operator can have meant.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import TypeVar

from proxy.config.addresses import can_reach, collide, is_loopback
from proxy.config.redact_checks import redact_checks
from proxy.config.resolved import FULL_BP, Protocol, SplitKind
from proxy.config.route_order import reachable
from proxy.config.schema import ConfigFile, LimitsFile
from proxy.config.schema_backend import BackendFile
from proxy.config.schema_ramp import GateFile, RampFile
from proxy.config.schema_route import CandidateFile, RouteFile
from proxy.config.segment_checks import segment_checks
from proxy.config.units import duration, percent, size
from proxy.config.values import KAFKA_OPTIONS
from proxy.config.yaml_tree import Path

Found = Iterator[tuple[Path, str]]
_Item = TypeVar("_Item", bound=Hashable)

#: The control page holds every candidate's live state in a buffer of fixed size.
MAX_CANDIDATES = 256
#: RFC 9110 section 7.2, as strict as the host of a route's match.
_HOST_AND_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?")

#: Comparators that each of their settings is for.
COMPARE_KEYS = {
    "rel_tol": ("numeric",),
    "abs_tol": ("numeric",),
    "ulp": ("numeric",),
    "ignore": ("json",),
    "unordered": ("json",),
    "inside_text": ("json",),
    "k": ("top_k", "ranking"),
    "measure": ("ranking",),
    "min_similarity": ("ranking", "vector", "text"),
    "ignore_case": ("text",),
}

#: Fields that clients may invent, so that they decide nothing.
_UNSEEN = re.compile(r"x-(?:forwarded|understudy)-.*|forwarded|x-real-ip", re.IGNORECASE)
_INSTEAD = "a client may write anything there; use `split_by: client_ip` and `trusted_proxies`"


def cross_check(file: ConfigFile) -> Found:
    """Yield the path and the explanation of everything that does not fit together."""
    yield from _listeners(file)
    yield from _limits(file.limits)
    for name, backend in file.backends.items():
        yield from _backend(("backends", name), backend, file)
    for index, name in _repeated(route.name for route in file.routes):
        yield ("routes", index, "name"), f"there is already a route called {name!r}"
    for index, route in enumerate(file.routes):
        yield from _route(("routes", index), route, file)
        yield from reachable(index, file.routes)
    yield from redact_checks(file)
    yield from segment_checks(file)
    if file.record.kafka is not None:
        yield from _kafka_options(("record", "kafka", "options"), file.record.kafka.options)
    if file.replicas is not None and file.record.kafka is None:
        yield (
            ("replicas",),
            "replicas agree through Kafka, and there is none; set `record.kafka`, or leave this out",
        )
    if sum(len(route.candidates) for route in file.routes) > MAX_CANDIDATES:
        yield ("routes",), f"all routes together have more than {MAX_CANDIDATES} candidates"


def _listeners(file: ConfigFile) -> Found:
    if collide(file.listen, file.admin.listen):
        yield ("admin", "listen"), f"{file.admin.listen} is taken by `listen: {file.listen}`"
    if not file.admin.token and not is_loopback(file.admin.listen.host):
        yield (
            ("admin", "token"),
            (
                f"the admin API on {file.admin.listen} can be reached from other machines, so it needs "
                'a token; set one, such as "${UNDERSTUDY_TOKEN}", or listen on 127.0.0.1'
            ),
        )
    if file.recorders > file.workers:
        yield (
            ("recorders",),
            (
                f"{file.recorders} recorders have nothing to share between {file.workers} worker(s); "
                "use at most one per worker"
            ),
        )


def _limits(limits: LimitsFile) -> Found:
    for key, value in (("mirror_body", limits.mirror_body), ("record_body", limits.record_body)):
        if value > limits.memory:
            yield (
                ("limits", key),
                (
                    f"{size(value)} is more than `memory: {size(limits.memory)}`, so such a body could "
                    "never be kept"
                ),
            )
    if limits.record_body > limits.mirror_response:
        yield (
            ("limits", "record_body"),
            (
                f"{size(limits.record_body)} is more than `mirror_response: "
                f"{size(limits.mirror_response)}`, so no copy's answer could be kept so far"
            ),
        )


def _backend(path: Path, backend: BackendFile, file: ConfigFile) -> Found:
    yield from _deadlines(path, backend)
    yield from _tls((*path, "tls"), backend)
    ejection, health = backend.ejection, backend.health
    if ejection.longest < ejection.first:
        yield (
            (*path, "ejection", "longest"),
            (f"{duration(ejection.longest)} is shorter than `first: {duration(ejection.first)}`"),
        )
    if health is not None and health.timeout > health.interval:
        yield (
            (*path, "health", "timeout"),
            (
                f"{duration(health.timeout)} is longer than the time between two checks "
                f"(`interval: {duration(health.interval)}`)"
            ),
        )
    for index, address in _repeated(backend.endpoints):
        yield (*path, "endpoints", index), f"{address} is listed twice"
    for index, address in enumerate(backend.endpoints):
        for key, listening in (("listen", file.listen), ("admin.listen", file.admin.listen)):
            if can_reach(address, listening):
                yield (
                    (*path, "endpoints", index),
                    f"{address} is Understudy itself (`{key}`); name the model's server",
                )


def _deadlines(path: Path, backend: BackendFile) -> Found:
    head_s = backend.first_byte_timeout
    if backend.connect_timeout > backend.timeout:
        yield (
            (*path, "connect_timeout"),
            (
                f"{duration(backend.connect_timeout)} is longer than the whole call may take "
                f"(`timeout: {duration(backend.timeout)}`)"
            ),
        )
    elif head_s is not None and backend.connect_timeout > head_s:
        yield (
            (*path, "connect_timeout"),
            (
                f"{duration(backend.connect_timeout)} is longer than the head of the answer may "
                f"take (`first_byte_timeout: {duration(head_s)}`)"
            ),
        )
    if head_s is not None and head_s > backend.timeout:
        yield (
            (*path, "first_byte_timeout"),
            (
                f"{duration(head_s)} is longer than the whole call may take "
                f"(`timeout: {duration(backend.timeout)}`)"
            ),
        )


def _tls(path: Path, backend: BackendFile) -> Found:
    tls = backend.tls
    if tls.model_fields_set and not any(endpoint.is_tls for endpoint in backend.endpoints):
        yield path, "no endpoint of this backend speaks TLS; write https://host:port where it does"
    if tls.key and not tls.certificate:
        yield (*path, "key"), "a key is of no use without the `certificate` that it belongs to"
    if not tls.verify and (tls.ca or tls.server_name):
        key = "ca" if tls.ca else "server_name"
        yield (*path, key), f"`{key}` has no effect with `verify: false`; leave one of them out"


def _route(path: Path, route: RouteFile, file: ConfigFile) -> Found:
    if route.match.path and route.match.path_prefix:
        yield (*path, "match", "path_prefix"), "give either path or path_prefix, not both"
    yield from _known_backend((*path, "primary"), route.primary, file)
    yield from _unseen_fields(path, route)
    yield from _candidates((*path, "candidates"), route, file)
    for index, candidate in enumerate(route.candidates):
        yield from _copies((*path, "candidates", index), candidate, route)
        yield from _guard((*path, "candidates", index, "guard"), candidate, file)
    yield from _compare((*path, "compare"), route)
    if route.replicate and not route.candidates:
        yield (*path, "replicate"), "a route without candidates has no pairs to replicate for"
    if route.ramp is not None:
        if not route.candidates:
            yield (*path, "ramp"), "a route without candidates has nothing to ramp"
        for index, candidate in enumerate(route.candidates):
            if not candidate.mirror:
                yield (
                    (*path, "candidates", index, "mirror"),
                    "a ramp judges pairs, and without copies there are none; mirror some",
                )
        yield from _ramp((*path, "ramp"), route.ramp)


def _unseen_fields(path: Path, route: RouteFile) -> Found:
    """Fields that the proxy drops or writes itself are not there to be looked at."""
    named: list[tuple[Path, str]] = [
        ((*path, "match", "headers", name), name) for name in route.match.headers
    ]
    if route.split_by.kind is SplitKind.HEADER:
        named.append(((*path, "split_by"), route.split_by.name))
    named += [
        ((*path, "segments", name), source.name)
        for name, source in route.segments.items()
        if source.kind is SplitKind.HEADER
    ]
    for where, name in named:
        if _UNSEEN.fullmatch(name):
            yield where, f"{name} is never looked at: {_INSTEAD}"


def _candidates(path: Path, route: RouteFile, file: ConfigFile) -> Found:
    for index, name in _repeated(candidate.name for candidate in route.candidates):
        yield (*path, index, "name"), f"there is already a candidate called {name!r} in this route"
    total_bp = 0
    for index, candidate in enumerate(route.candidates):
        yield from _known_backend((*path, index, "backend"), candidate.backend, file)
        if candidate.backend == route.primary:
            yield (
                (*path, index, "backend"),
                (
                    f"{candidate.backend!r} is the primary of this route; a candidate needs another "
                    "backend (use `replicate` to compare the primary with itself)"
                ),
            )
        total_bp += candidate.weight
        if total_bp > FULL_BP >= total_bp - candidate.weight:
            yield (
                (*path, index, "weight"),
                f"the weights of this route add up to {percent(total_bp)}, more than 100%",
            )


def _copies(path: Path, candidate: CandidateFile, route: RouteFile) -> Found:
    breaker = candidate.breaker
    if breaker.max_open_for < breaker.open_for:
        yield (
            (*path, "breaker", "max_open_for"),
            (
                f"{duration(breaker.max_open_for)} is shorter than "
                f"`open_for: {duration(breaker.open_for)}`"
            ),
        )
    if candidate.model and route.protocol is Protocol.RAW:
        yield (
            (*path, "model"),
            "`protocol: raw` does not know where a request names its model; use another protocol",
        )
    names = [name.lower() for name in candidate.set_headers]
    for _, name in _repeated(names):
        yield (*path, "set_headers"), f"{name} is set twice"
    for index, name in enumerate(candidate.remove_headers):
        if name.lower() == "host":
            yield (*path, "remove_headers", index), "a request needs its host; set another one"
    for name, value in candidate.set_headers.items():
        if name.lower() == "host" and not _HOST_AND_PORT.fullmatch(value):
            yield (*path, "set_headers", name), "the host is no host name with an optional port"


def _guard(path: Path, candidate: CandidateFile, file: ConfigFile) -> Found:
    latency_s, backend = candidate.guard.latency, file.backends.get(candidate.backend)
    if not latency_s or backend is None:
        return
    key = "timeout" if backend.first_byte_timeout is None else "first_byte_timeout"
    allowed_s = backend.first_byte_timeout or backend.timeout
    if latency_s >= allowed_s:
        yield (
            (*path, "latency"),
            (
                f"{duration(latency_s)} is not below what {candidate.backend} is allowed "
                f"(`{key}: {duration(allowed_s)}`), at which a call has failed anyway"
            ),
        )


def _compare(path: Path, route: RouteFile) -> Found:
    compare = route.compare
    for key in compare.model_fields_set & {*COMPARE_KEYS}:
        owners = COMPARE_KEYS[key]
        if compare.comparator not in owners:
            names = " or ".join(f"`comparator: {name}`" for name in owners)
            yield (*path, key), f"{key} is for {names}; {compare.comparator} has no use for it"
    if compare.comparator == "vector" and "min_similarity" not in compare.model_fields_set:
        yield (
            (*path, "comparator"),
            (
                "two computations of one vector are never quite the same; say how alike they must "
                "be, such as `min_similarity: 0.99`"
            ),
        )
    if compare.prediction and route.protocol is Protocol.RAW:
        yield (
            (*path, "prediction"),
            "`protocol: raw` compares whole bodies; use `protocol: json` to find a prediction",
        )


def _ramp(path: Path, ramp: RampFile) -> Found:
    before_bp = 0
    for index, step in enumerate(ramp.steps):
        at = (*path, "steps", index)
        if step.weight <= before_bp:
            yield (
                (*at, "weight"),
                (
                    f"{percent(step.weight)} does not rise above the step before "
                    f"({percent(before_bp)}); steps go up"
                ),
            )
        if 0 < step.max_duration < step.min_duration:
            yield (
                (*at, "max_duration"),
                (
                    f"{duration(step.max_duration)} is shorter than "
                    f"`min_duration: {duration(step.min_duration)}`"
                ),
            )
        before_bp = step.weight
    for index, metric in _repeated(gate.metric for gate in ramp.gates):
        yield (*path, "gates", index, "metric"), f"there is already a gate on {metric}"
    for index, gate in enumerate(ramp.gates):
        yield from _gate((*path, "gates", index), gate)


def _gate(path: Path, gate: GateFile) -> Found:
    if gate.metric == "latency" and gate.budget is None:
        yield (*path, "metric"), "a latency gate needs a budget, such as `budget: 50ms`"
    if gate.metric != "latency" and gate.budget is not None:
        yield (*path, "budget"), f"only a latency gate has a budget; {gate.metric} has none"


def _kafka_options(path: Path, options: Mapping[str, str]) -> Found:
    for name, value in options.items():
        allowed = KAFKA_OPTIONS[name]
        if allowed is int and not (value.isascii() and value.isdigit()):
            yield (*path, name), f"{value[:20]!r} is not a whole number of milliseconds"
        if isinstance(allowed, tuple) and value.lower() not in [each.lower() for each in allowed]:
            yield (*path, name), f"{value[:20]!r} is not one of {', '.join(allowed)}"


def _known_backend(path: Path, name: str, file: ConfigFile) -> Found:
    if name in file.backends:
        return
    near = difflib.get_close_matches(name, file.backends, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(file.backends)}"
    yield path, f"there is no backend called {name!r}; {hint}"


def _repeated(items: Iterable[_Item]) -> Iterator[tuple[int, _Item]]:
    seen: set[_Item] = set()
    for index, item in enumerate(items):
        if item in seen:
            yield index, item
        seen.add(item)
