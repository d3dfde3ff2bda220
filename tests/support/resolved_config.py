"""A small resolved config, for tests of the processes that read one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from proxy.config.resolved import (
    Address,
    Admin,
    Backend,
    Bodies,
    Candidate,
    Compare,
    Config,
    Endpoint,
    HashPolicy,
    Limits,
    Match,
    Protocol,
    Record,
    Redact,
    Route,
    Split,
    SplitKind,
    digest,
    dumps,
)

LOOPBACK = Address("127.0.0.1", 0)


def small_config(state_dir: Path, *, token: str = "", workers: int = 1) -> Config:
    """Return a config with the route `iris`, its candidates `v2` (mirrored, 10%) and `v3` (idle)."""
    backend = Backend("iris-v1", (Endpoint("127.0.0.1", 9),), 1.0, 5.0, 64, 4.0)
    route = Route(
        name="iris",
        match=Match("", "", "/", (), {}),
        protocol=Protocol.JSON,
        primary="iris-v1",
        split=Split(SplitKind.REQUEST_ID, ""),
        candidates=(
            Candidate("v2", "iris-v2", mirror_bp=10_000, weight_bp=1_000),
            Candidate("v3", "iris-v2", mirror_bp=0, weight_bp=0),
        ),
        replicate_bp=0,
        compare=Compare("", "exact", 0.0, 0.0),
        upgrades=("websocket",),
        ramp=None,
        experiment_id="iris",
    )
    config = Config(
        version="",
        instance="test",
        listen=LOOPBACK,
        tls=None,
        trusted_proxies=(),
        workers=workers,
        recorders=1,
        state_dir=str(state_dir),
        admin=Admin(LOOPBACK, token),
        backends={name: replace(backend, name=name) for name in ("iris-v1", "iris-v2")},
        routes=(route,),
        record=Record(None, Bodies.RESPONSES, HashPolicy.AUTO, Redact((), ()), niceness=0),
        limits=Limits(
            request_head_bytes=32768,
            request_body_bytes=2**20,
            mirror_body_bytes=2**20,
            mirror_response_bytes=2**26,
            mirror_lag_s=0.0,
            record_body_bytes=2**18,
            memory_bytes=2**26,
            journal_disk_bytes=2**30,
            tunnel_idle_s=3600.0,
            head_timeout_s=10.0,
            body_timeout_s=30.0,
            keep_alive_s=75.0,
            connections=8192,
            shutdown_s=2.0,
        ),
    )
    return replace(config, version=digest(config))


def write_config(config: Config) -> Path:
    """Write `config` where the launcher expects it; return the path."""
    path = Path(config.state_dir) / "config" / f"{config.version}.json"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(dumps(config))
    path.chmod(0o600)
    return path
