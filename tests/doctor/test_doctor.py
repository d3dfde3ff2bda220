"""`understudy doctor` finds what would go wrong, on real sockets, and harms nothing."""

from __future__ import annotations

import asyncio
import os
import socket
import uuid
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from proxy.config.resolved import (
    Address,
    Admin,
    Backend,
    Config,
    Endpoint,
    HealthCheck,
    Kafka,
    ReplicaGroup,
    Rewrite,
    UpstreamTls,
)
from proxy.doctor.examine import count, examine
from proxy.doctor.findings import Finding, Level, worst
from proxy.doctor.sample import Sample
from proxy.telemetry import wall_ns
from tests.support.authority import Authority
from tests.support.deadline import PATIENCE_S
from tests.support.kafka_topics import create_topic
from tests.support.resolved_config import small_config
from tests.support.upstreams import Request, Upstream, unused_port

#: Nobody who answers takes so long, whatever else the machine does.
HEALTH = HealthCheck("/ready", 5.0, 15.0, 2, 3)


def config_of(tmp_path: Path, *endpoints: Endpoint, **changes: Any) -> Config:
    """Return a config whose primary has these endpoints, and whose candidate has the last."""
    config = small_config(tmp_path)
    backend = Backend("iris-v1", endpoints, 15.0, 15.0, 64, 4.0, **changes)
    candidate = replace(backend, name="iris-v2", endpoints=endpoints[-1:])
    return replace(config, backends={"iris-v1": backend, "iris-v2": candidate})


def at(port: int, *, is_tls: bool = False, host: str = "127.0.0.1") -> Endpoint:
    """Return an endpoint on the loopback."""
    return Endpoint(host, port, is_tls=is_tls)


async def findings(config: Config, check: str, **options: Any) -> list[Finding]:
    """Return what the doctor finds of one kind."""
    found = await examine(config, **{"runtime": None, **options})
    return [each for each in found if each.check == check]


def answering(
    status: int = 200, body: bytes = b"{}", *fields: bytes, clock_s: float | None = None
) -> Any:
    """Return a behaviour that answers everything so; with the time by a clock that is so far ahead."""

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        del request
        told = fields
        if clock_s is not None:
            date = formatdate(wall_ns() / 1e9 + clock_s, usegmt=True)
            told = (*fields, f"date: {date}".encode())
        lines = b"".join(field + b"\r\n" for field in told)
        writer.write(
            b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n%b\r\n%b" % (status, len(body), lines, body)
        )

    return behave


async def silent(request: Request, writer: asyncio.StreamWriter) -> None:
    """Answer never."""
    del request, writer


async def test_all_is_well_where_it_is(tmp_path: Path) -> None:
    """A backend that answers its health path; only that is asked, once for each endpoint."""
    async with Upstream(answering(200, b"", clock_s=0)) as upstream:
        config = config_of(tmp_path, at(upstream.port), health=HEALTH)
        found = await examine(config, runtime=None)
    assert worst(found) is Level.OK, found
    assert {each.check for each in found} == {
        "config", "disk", "port", "limit", "backend", "health", "clock",
    }  # fmt: skip
    assert [(r.method, r.target) for r in upstream.requests] == [(b"GET", b"/ready")] * 2
    assert not any(each.why or each.mend for each in found)


async def test_without_a_health_path_nothing_is_asked(tmp_path: Path) -> None:
    """Asking a model something else may cost money."""
    async with Upstream(answering()) as upstream:
        (found, _) = await findings(config_of(tmp_path, at(upstream.port)), "backend")
    assert found.level is Level.OK
    assert upstream.requests == []


@pytest.mark.parametrize(
    ("behaviour", "what"),
    [(answering(503), "answers 503"), (silent, "GET /ready: "), (answering(404), "answers 404")],
)
async def test_a_health_path_that_does_not_pass_is_a_fault(
    tmp_path: Path, behaviour: Any, what: str
) -> None:
    """Because workers would leave the endpoint alone."""
    health = replace(HEALTH, timeout_s=0.5) if behaviour is silent else HEALTH
    async with Upstream(behaviour) as upstream:
        config = config_of(tmp_path, at(upstream.port), health=health)
        found = await findings(config, "health")
    assert {each.level for each in found} == {Level.FAULT}
    assert what in found[0].what
    assert "health.path" in found[0].mend


async def test_a_port_where_nobody_listens_and_a_host_that_is_none(tmp_path: Path) -> None:
    """Each endpoint is looked at by itself."""
    config = config_of(tmp_path, at(unused_port()), at(80, host="no-such-host.invalid"))
    refused, unknown, _ = await findings(config, "backend")
    assert (refused.level, refused.what) == (Level.FAULT, "nothing listens there")
    assert unknown.what.startswith("no such host") or "within" in unknown.what
    assert unknown.level is Level.FAULT


async def test_certificates_are_checked_as_the_data_plane_checks_them(tmp_path: Path) -> None:
    """An unknown authority and a wrong name are faults; not checking is a warning."""
    authority = Authority(tmp_path)
    trusted = UpstreamTls(ca=str(authority.ca_file))
    async with Upstream(answering(), tls=authority.server("127.0.0.1")) as upstream:
        for tls, level, what in (
            (trusted, Level.OK, "certificate is good"),
            (UpstreamTls(), Level.FAULT, "certificate is refused"),
            (replace(trusted, server_name="b.example"), Level.FAULT, "certificate is refused"),
            (UpstreamTls(verify=False), Level.WARNING, "not checked"),
        ):
            config = config_of(tmp_path, at(upstream.port, is_tls=True), tls=tls, health=HEALTH)
            found = await findings(config, "backend")
            assert found[0].level is level, found
            assert what in found[0].what
            health = await findings(config, "health")
            assert bool(health) == (level is not Level.FAULT)
            assert worst(health) is Level.OK
    async with Upstream(answering()) as plain:
        config = config_of(tmp_path, at(plain.port, is_tls=True), tls=trusted)
        found = await findings(config, "backend")
    assert "no TLS there" in found[0].what


async def test_a_clock_that_is_off_is_told_by_the_backends_date(tmp_path: Path) -> None:
    """Little is a warning, much is a fault."""
    for shift_s, level in ((10, Level.WARNING), (-10, Level.WARNING), (-3600, Level.FAULT)):
        async with Upstream(answering(200, b"", clock_s=shift_s)) as upstream:
            config = config_of(tmp_path, at(upstream.port), health=HEALTH)
            found, _ = await findings(config, "clock")
        assert found.level is level, found
        assert ("ahead of" if shift_s > 0 else "behind") in found.what


async def test_a_disk_without_rights_or_room_is_found(tmp_path: Path) -> None:
    """Rights are a fault, a budget larger than the disk is a warning; nothing is left behind."""
    config = config_of(tmp_path, at(unused_port()))
    huge = replace(config, limits=replace(config.limits, journal_disk_bytes=2**60))
    writable, room = await findings(huge, "disk")
    assert (writable.level, room.level) == (Level.OK, Level.WARNING)
    assert "limits.journal_disk" in room.mend
    assert not any(os.scandir(tmp_path))
    (found,) = await findings(replace(config, state_dir="/proc/understudy"), "disk")
    assert found.level is Level.FAULT
    assert "state_dir" in found.mend


async def test_a_port_is_free_or_ours_or_somebody_elses(tmp_path: Path) -> None:
    """The running instance's own ports are no fault."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = Address("127.0.0.1", other.getsockname()[1])
        config = replace(
            config_of(tmp_path, at(1)),
            listen=taken,
            admin=Admin(Address("127.0.0.1", unused_port()), ""),
        )
        listening, admin = await findings(config, "port")
        assert (listening.level, admin.level) == (Level.FAULT, Level.OK)
        runtime = {"listen": str(taken), "admin": "", "pid": 42, "config_version": "other"}
        listening, _ = await findings(config, "port", runtime=runtime)
        assert (listening.level, "process 42" in listening.what) == (Level.OK, True)
        (_, stale) = await findings(config, "config", runtime=runtime)
        assert (stale.level, stale.mend) == (Level.WARNING, "restart the instance")


async def test_too_few_descriptors_are_a_warning_with_the_number_to_set(tmp_path: Path) -> None:
    """Three quarters of them are the clients'."""
    config = config_of(tmp_path, at(1))
    config = replace(config, limits=replace(config.limits, connections=30_000_000))
    (found,) = await findings(config, "limit")
    assert found.level is Level.WARNING
    assert "40000000" in found.mend


async def test_checks_run_side_by_side(tmp_path: Path) -> None:
    """Twenty-one servers answer when all of them have been asked; progress is told for each check."""
    done: list[str] = []
    all_are_asked = asyncio.Barrier(21)
    answer = answering()

    async def behave(request: Request, writer: asyncio.StreamWriter) -> None:
        await all_are_asked.wait()
        await answer(request, writer)

    async with Upstream(behave) as upstream:
        config = config_of(tmp_path, *(at(upstream.port) for _ in range(20)), health=HEALTH)
        found = await examine(config, runtime=None, on_done=done.append)
    assert [each.level for each in found if each.check == "health"] == [Level.OK] * 21
    assert len(done) == count(config, None)


def numbers(prediction: bytes, *fields: bytes, status: int = 200) -> Any:
    """Answer JSON with a prediction."""
    return answering(status, b'{"y": %b}' % prediction, b"content-type: application/json", *fields)


@pytest.mark.parametrize(
    ("candidate", "what"),
    [
        (numbers(b"[4, 5]"), ""),
        (numbers(b"[4]"), "its prediction is a list of 1"),
        (numbers(b'"four"'), "its prediction is a text, the primary's a list of 2"),
        (answering(200, b"<p>", b"content-type: text/html"), "text/html, where the primary has"),
        (answering(500), "status 500, where the primary has 200"),
        (answering(200, b"{}", b"content-type: application/json"), "no prediction"),
    ],
)
async def test_a_candidate_that_speaks_otherwise_is_found_by_a_sample(
    tmp_path: Path, candidate: Any, what: str
) -> None:
    """Marked as a copy, with the candidate's own credentials, and only when it is asked for."""
    async with Upstream(numbers(b"[1, 2]")) as one, Upstream(candidate) as two:
        config = config_of(tmp_path, at(one.port))
        config.backends["iris-v2"] = replace(config.backends["iris-v2"], endpoints=(at(two.port),))
        (route,) = config.routes
        v2 = replace(route.candidates[0], rewrite=Rewrite({"authorization": "Bearer mine"}, (), ""))
        compare = replace(route.compare, prediction="y")
        config = replace(config, routes=(replace(route, candidates=(v2,), compare=compare),))
        sample = Sample("POST", "/score", {"authorization": "Bearer theirs"}, b"{}")
        first, second = await findings(config, "sample", sample=sample)
    assert first.level is Level.OK, first
    assert (second.level is Level.OK) == (not what), second
    assert what in second.what
    sent = one.requests[0].fields, two.requests[0].fields
    assert [f[b"authorization"] for f in sent] == [b"Bearer theirs", b"Bearer mine"]
    assert [f[b"x-understudy-mirror"] for f in sent] == [b"1", b"1"]


def kafka_config(tmp_path: Path, bootstrap: str, prefix: str = "doctor") -> Config:
    """Return a config that ships to `bootstrap`."""
    config = config_of(tmp_path, at(1))
    return replace(config, record=replace(config.record, kafka=Kafka((bootstrap,), prefix, {})))


@pytest.mark.kafka
async def test_a_topic_that_is_missing_is_found_and_not_made(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    """Pairs are a fault, labels and decisions a warning: not everybody has any, or they wait."""
    bootstrap, name = kafka_bootstrap, f"doctor-{uuid.uuid4().hex[:8]}"
    create_topic(bootstrap, f"{name}.pairs.v1", partitions=2)
    create_topic(bootstrap, f"{name}.labels.v1", partitions=3)
    pairs, *others = await findings(kafka_config(tmp_path, bootstrap), "topic")
    assert [each.level for each in (pairs, *others)] == [Level.FAULT, Level.WARNING, Level.WARNING]
    assert [each.why.split(" ")[0] for each in others] == ["labels", "decisions"]
    assert "topics create" in pairs.mend
    ready = await findings(kafka_config(tmp_path, bootstrap, name), "topic")
    assert [each.subject for each in ready] == [
        f"{name}.pairs.v1", f"{name}.labels.v1", f"{name}.decisions.v1", f"{name}.labels.v1",
    ]  # fmt: skip
    assert f"where {name}.pairs.v1 has 2" in ready[3].what
    there = AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=PATIENCE_S).topics
    assert "doctor.pairs.v1" not in there


@pytest.mark.kafka
async def test_the_topic_through_which_replicas_agree_must_be_fit(
    kafka_bootstrap: str, tmp_path: Path
) -> None:
    """Missing, of several partitions or not compacted it is a fault, where there are replicas at all."""
    prefix = f"doctor-{uuid.uuid4().hex[:8]}"
    alone = kafka_config(tmp_path, kafka_bootstrap, prefix)
    config = replace(alone, replicas=ReplicaGroup("default"))
    name = f"{prefix}.state.v1"
    assert name not in [each.subject for each in await findings(alone, "topic")]
    missing = (await findings(config, "topic"))[-1]
    assert (missing.subject, missing.level, "topics create" in missing.mend) == (
        name, Level.FAULT, True,
    )  # fmt: skip
    create_topic(kafka_bootstrap, name, partitions=1)
    assert "cleanup.policy is delete" in (await findings(config, "topic"))[-1].what
    good, wide = f"{prefix}-good", f"{prefix}-wide"
    create_topic(kafka_bootstrap, f"{good}.state.v1", 1, {"cleanup.policy": "compact"})
    create_topic(kafka_bootstrap, f"{wide}.state.v1", 2, {"cleanup.policy": "compact"})
    for its_prefix, words in ((good, "1 partition, compacted"), (wide, "has 2 partitions")):
        its = replace(
            config, record=replace(config.record, kafka=Kafka((kafka_bootstrap,), its_prefix, {}))
        )
        assert words in (await findings(its, "topic"))[-1].what


async def test_no_broker_is_a_fault_that_names_the_address(tmp_path: Path) -> None:
    """And the rest is looked at none the less."""
    found = await examine(kafka_config(tmp_path, "127.0.0.1:1"), runtime=None)
    (kafka,) = (each for each in found if each.check == "kafka")
    assert kafka.level is Level.FAULT
    assert "127.0.0.1:1" in kafka.what
    assert any(each.check == "disk" for each in found)
