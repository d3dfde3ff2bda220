"""From the checked file to the `Config` that processes read. No decisions but two defaults.

What the file leaves open is filled in here: the instance is the host's name, the experiment the
route's. A relative `state_dir` is made absolute from the folder given.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from proxy.config.resolved import (
    Admin,
    Backend,
    Candidate,
    Compare,
    Config,
    Gate,
    Kafka,
    Limits,
    Match,
    Ramp,
    Record,
    Redact,
    Route,
    Step,
    digest,
)
from proxy.config.schema import (
    BackendFile,
    ConfigFile,
    KafkaFile,
    LimitsFile,
    MatchFile,
    RampFile,
    RecordFile,
    RouteFile,
)


def resolve(file: ConfigFile, *, host_name: str, folder: Path) -> Config:
    """Return `file` complete and with its version.

    Args:
        file: a file without faults.
        host_name: the instance's name where the file gives none.
        folder: what a relative `state_dir` is relative to; absolute.
    """
    config = Config(
        version="",
        instance=file.instance or host_name,
        listen=file.listen,
        trusted_proxies=file.trusted_proxies,
        workers=file.workers,
        recorders=file.recorders,
        state_dir=str(folder / Path(file.state_dir).expanduser()),
        admin=Admin(file.admin.listen, file.admin.token),
        backends={name: _backend(name, backend) for name, backend in file.backends.items()},
        routes=tuple(_route(route) for route in file.routes),
        record=_record(file.record),
        limits=_limits(file.limits),
    )
    return dataclasses.replace(config, version=digest(config))


def _backend(name: str, backend: BackendFile) -> Backend:
    return Backend(
        name=name,
        endpoints=backend.endpoints,
        connect_timeout_s=backend.connect_timeout,
        timeout_s=backend.timeout,
        max_in_flight=backend.max_in_flight,
        keepalive_s=backend.keepalive,
    )


def _route(route: RouteFile) -> Route:
    compare = route.compare
    return Route(
        name=route.name,
        match=_match(route.match),
        protocol=route.protocol,
        primary=route.primary,
        split=route.split_by,
        candidates=tuple(
            Candidate(each.name, each.backend, each.mirror, each.weight)
            for each in route.candidates
        ),
        replicate_bp=route.replicate,
        compare=Compare(compare.prediction, compare.comparator, compare.rel_tol, compare.abs_tol),
        ramp=None if route.ramp is None else _ramp(route.ramp),
        experiment_id=route.experiment_id or route.name,
    )


def _match(match: MatchFile) -> Match:
    return Match(
        host=match.host,
        path=match.path,
        path_prefix=match.path_prefix,
        methods=match.methods,
        headers={name.lower(): value for name, value in match.headers.items()},
    )


def _ramp(ramp: RampFile) -> Ramp:
    steps = tuple(
        Step(
            weight_bp=step.weight,
            min_pairs=step.min_pairs,
            min_duration_s=step.min_duration,
            max_duration_s=step.max_duration,
            approval=step.approval,
        )
        for step in ramp.steps
    )
    gates = tuple(Gate(gate.metric, gate.margin, gate.budget or 0.0) for gate in ramp.gates)
    return Ramp(steps, gates)


def _record(record: RecordFile) -> Record:
    redact = record.redact
    return Record(
        kafka=None if record.kafka is None else _kafka(record.kafka),
        bodies=record.bodies,
        hash=record.hash,
        redact=Redact(tuple(name.lower() for name in redact.headers), redact.json_paths),
    )


def _kafka(kafka: KafkaFile) -> Kafka:
    return Kafka(kafka.bootstrap_servers, kafka.topic_prefix, kafka.options)


def _limits(limits: LimitsFile) -> Limits:
    return Limits(
        request_head_bytes=limits.request_head,
        request_body_bytes=limits.request_body,
        mirror_body_bytes=limits.mirror_body,
        record_body_bytes=limits.record_body,
        memory_bytes=limits.memory,
        journal_disk_bytes=limits.journal_disk,
        head_timeout_s=limits.head_timeout,
        body_timeout_s=limits.body_timeout,
        keep_alive_s=limits.keep_alive,
        connections=limits.connections,
        shutdown_s=limits.shutdown,
    )
