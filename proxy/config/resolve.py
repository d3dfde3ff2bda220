"""From the checked file to the `Config` that processes read. No decisions but four defaults.

What the file leaves open is filled in here: the instance is the host's name, the experiment the
route's, tolerances beside `ulp` are 0, and a stream may take ten minutes, or as long as any other answer. A relative `state_dir` is made absolute from the folder given.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from proxy.config.resolved import (
    Admin,
    Backend,
    Breaker,
    CanaryGuard,
    Candidate,
    Compare,
    Config,
    Ejection,
    Gate,
    Guard,
    HealthCheck,
    Journal,
    Kafka,
    Limits,
    Log,
    Match,
    Otlp,
    Ramp,
    Record,
    Redact,
    RedactRule,
    ReplicaGroup,
    Rewrite,
    Route,
    Segment,
    Step,
    Telemetry,
    Tls,
    UpstreamTls,
    Webhook,
    digest,
)
from proxy.config.schema import (
    ConfigFile,
    JournalFile,
    KafkaFile,
    LimitsFile,
    RecordFile,
    ReplicasFile,
    TelemetryFile,
    TlsFile,
)
from proxy.config.schema_backend import BackendFile, HealthFile, UpstreamTlsFile
from proxy.config.schema_ramp import RampFile, WebhookFile
from proxy.config.schema_redact import RedactRuleFile
from proxy.config.schema_route import (
    CandidateFile,
    CompareFile,
    GuardFile,
    MatchFile,
    RouteFile,
)

#: Envoy gives up a stream that is quiet for five minutes, and has no limit for all of it.
STREAM_TIMEOUT_S = 600.0


def resolve(file: ConfigFile, *, host_name: str, folder: Path) -> Config:
    """Return `file` complete and with its version.

    Args:
        file: a file without faults.
        host_name: the instance's name where the file gives none.
        folder: what a relative `state_dir` or file is relative to; absolute.
    """
    config = Config(
        version="",
        instance=file.instance or host_name,
        listen=file.listen,
        tls=None if file.tls is None else resolve_tls(file.tls, folder),
        trusted_proxies=file.trusted_proxies,
        workers=file.workers,
        recorders=file.recorders,
        state_dir=_path(folder, file.state_dir),
        admin=Admin(file.admin.listen, file.admin.token),
        backends={name: _backend(name, each, folder) for name, each in file.backends.items()},
        routes=tuple(_route(route) for route in file.routes),
        record=_record(file.record),
        limits=_limits(file.limits),
        log=Log(file.log.access, file.log.slow),
        telemetry=_telemetry(file.telemetry),
        journal=_journal(file.journal),
        replicas=None if file.replicas is None else _replicas(file.replicas),
    )
    return dataclasses.replace(config, version=digest(config))


def resolve_tls(tls: TlsFile, folder: Path) -> Tls:
    """Return `tls` with its paths made absolute from `folder`."""
    return Tls(
        certificate=_path(folder, tls.certificate),
        key=_path(folder, tls.key),
        client_ca=_path(folder, tls.client_ca) if tls.client_ca else "",
        min_version=tls.min_version,
    )


def resolve_upstream_tls(tls: UpstreamTlsFile, folder: Path) -> UpstreamTls:
    """Return a backend's `tls` with its paths made absolute from `folder`."""
    return UpstreamTls(
        ca=_path(folder, tls.ca) if tls.ca else "",
        certificate=_path(folder, tls.certificate) if tls.certificate else "",
        key=_path(folder, tls.key) if tls.key else "",
        server_name=tls.server_name,
        verify=tls.verify,
    )


def _path(folder: Path, given: str) -> str:
    return str(folder / Path(given).expanduser())


def _backend(name: str, backend: BackendFile, folder: Path) -> Backend:
    health, ejection = backend.health, backend.ejection
    stream_timeout_s = backend.stream_timeout
    if stream_timeout_s is None:
        stream_timeout_s = max(STREAM_TIMEOUT_S, backend.timeout)
    return Backend(
        name=name,
        endpoints=backend.endpoints,
        connect_timeout_s=backend.connect_timeout,
        timeout_s=backend.timeout,
        max_in_flight=backend.max_in_flight,
        keepalive_s=backend.keepalive,
        tls=resolve_upstream_tls(backend.tls, folder),
        health=None if health is None else _health(health),
        ejection=Ejection(
            failures=ejection.failures,
            first_s=ejection.first,
            longest_s=ejection.longest,
            max_share_bp=ejection.max_share,
            slow_start_s=ejection.slow_start,
        ),
        dns_refresh_s=backend.dns_refresh,
        first_byte_timeout_s=backend.first_byte_timeout,
        idle_timeout_s=backend.idle_timeout,
        stream_timeout_s=stream_timeout_s,
    )


def _health(health: HealthFile) -> HealthCheck:
    return HealthCheck(
        path=health.path,
        interval_s=health.interval,
        timeout_s=health.timeout,
        healthy_after=health.healthy_after,
        unhealthy_after=health.unhealthy_after,
    )


def _route(route: RouteFile) -> Route:
    return Route(
        name=route.name,
        match=_match(route.match),
        protocol=route.protocol,
        primary=route.primary,
        split=route.split_by,
        candidates=tuple(_candidate(candidate) for candidate in route.candidates),
        replicate_bp=route.replicate,
        compare=_compare(route.compare),
        upgrades=route.upgrades,
        ramp=None if route.ramp is None else _ramp(route.ramp),
        experiment_id=route.experiment_id or route.name,
        mirror_only=_guard(route.mirror_only),
        bodies=route.record.bodies,
        redact=_rules(route.record.redact.json_rules),
        segments=tuple(Segment(*each) for each in route.segments.items()),
    )


def _candidate(candidate: CandidateFile) -> Candidate:
    breaker, guard = candidate.breaker, candidate.guard
    return Candidate(
        name=candidate.name,
        backend=candidate.backend,
        mirror_bp=candidate.mirror,
        weight_bp=candidate.weight,
        timeout_s=candidate.timeout or 0.0,
        mirror_rate=candidate.mirror_rate,
        breaker=Breaker(
            failures=breaker.failures,
            open_for_s=breaker.open_for,
            max_open_for_s=breaker.max_open_for,
            probes=breaker.probes,
        ),
        rewrite=Rewrite(
            set_headers={name.lower(): value for name, value in candidate.set_headers.items()},
            remove_headers=tuple(name.lower() for name in candidate.remove_headers),
            model=candidate.model,
        ),
        guard=CanaryGuard(guard.failures, guard.within, guard.share, guard.latency),
    )


def _compare(compare: CompareFile) -> Compare:
    # Whoever counts steps of float32 wants no tolerance beside them that is wider for small numbers.
    is_bare = compare.ulp > 0
    has = compare.model_fields_set
    return Compare(
        prediction=compare.prediction,
        comparator=compare.comparator,
        rel_tol=0.0 if is_bare and "rel_tol" not in has else compare.rel_tol,
        abs_tol=0.0 if is_bare and "abs_tol" not in has else compare.abs_tol,
        ulp=compare.ulp,
        ignore=compare.ignore,
        unordered=compare.unordered,
        inside_text=compare.inside_text,
        k=compare.k,
        measure=compare.measure,
        min_similarity=compare.min_similarity,
        ignore_case=compare.ignore_case,
    )


def _guard(guard: GuardFile) -> Guard:
    return Guard(
        methods=guard.methods,
        headers={name.lower(): value for name, value in guard.headers.items()},
        path_prefixes=guard.path_prefixes,
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
    return Ramp(steps, gates, _webhook(ramp.confirm), _webhook(ramp.notify))


def _webhook(webhook: WebhookFile | None) -> Webhook | None:
    if webhook is None:
        return None
    return Webhook(webhook.url, webhook.secret, webhook.timeout)


def _record(record: RecordFile) -> Record:
    redact = record.redact
    return Record(
        kafka=None if record.kafka is None else _kafka(record.kafka),
        bodies=record.bodies,
        hash=record.hash,
        redact=Redact(
            headers=tuple(name.lower() for name in redact.headers),
            json=_rules(redact.json_rules),
            query=redact.query,
            key=redact.key,
        ),
        hash_key=record.hash_key,
        niceness=record.niceness,
    )


def _rules(rules: tuple[RedactRuleFile, ...]) -> tuple[RedactRule, ...]:
    return tuple(RedactRule(rule.path, rule.action) for rule in rules)


def _kafka(kafka: KafkaFile) -> Kafka:
    return Kafka(kafka.bootstrap_servers, kafka.topic_prefix, kafka.options)


def _replicas(replicas: ReplicasFile) -> ReplicaGroup:
    return ReplicaGroup(replicas.group, replicas.takeover)


def _journal(journal: JournalFile) -> Journal:
    return Journal(
        segment_bytes=journal.segment,
        segment_age_s=journal.segment_age,
        drop=journal.drop,
        fsync=journal.fsync,
        fsync_interval_s=journal.fsync_interval,
    )


def _telemetry(telemetry: TelemetryFile) -> Telemetry:
    otlp = telemetry.otlp
    if otlp is None:
        return Telemetry()
    return Telemetry(Otlp(otlp.endpoint, otlp.headers, otlp.sample))


def _limits(limits: LimitsFile) -> Limits:
    return Limits(
        request_head_bytes=limits.request_head,
        request_body_bytes=limits.request_body,
        mirror_body_bytes=limits.mirror_body,
        mirror_response_bytes=limits.mirror_response,
        mirror_lag_s=limits.mirror_lag,
        record_body_bytes=limits.record_body,
        memory_bytes=limits.memory,
        journal_disk_bytes=limits.journal_disk,
        tunnel_idle_s=limits.tunnel_idle,
        head_timeout_s=limits.head_timeout,
        body_timeout_s=limits.body_timeout,
        keep_alive_s=limits.keep_alive,
        connections=limits.connections,
        shutdown_s=limits.shutdown,
    )
