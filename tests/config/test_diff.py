"""What differs between two configs: in the file's words, without secrets, and what only a start can do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from proxy.config.diff import differences, only_at_start
from proxy.config.resolved import (
    Address,
    Breaker,
    Candidate,
    Config,
    Kafka,
    Log,
    Otlp,
    Rewrite,
    Route,
    Split,
    SplitKind,
    Telemetry,
)
from tests.support.resolved_config import small_config

CONFIG = small_config(Path("/nowhere"))
ROUTE = CONFIG.routes[0]
SECRET = "hunter2"


def _lines(config: Config, before: Config = CONFIG) -> list[str]:
    return [str(change) for change in differences(before, config)]


def _route(**changes: object) -> Config:
    route: Route = replace(ROUTE, **changes)  # type: ignore[arg-type]  # whatever a test wants
    return replace(CONFIG, routes=(route,))


def test_nothing_differs_from_itself() -> None:
    """Another version of the same is no change either."""
    assert _lines(CONFIG) == []
    assert _lines(replace(CONFIG, version="another")) == []


def test_values_are_written_as_in_the_file() -> None:
    """With units, and by the file's names."""
    v2 = replace(ROUTE.candidates[0], weight_bp=50, breaker=Breaker(open_for_s=0.25))
    limits = replace(CONFIG.limits, memory_bytes=2**20, journal_disk_bytes=1500)
    config = _route(split=Split(SplitKind.HEADER, "x-user"), candidates=(v2, ROUTE.candidates[1]))
    config = replace(config, limits=limits, log=Log(100, 0.5), trusted_proxies=("10.0.0.0/8",))
    assert _lines(config) == [
        "trusted_proxies: [] -> [10.0.0.0/8]",
        "routes.iris.split_by: request_id -> header:x-user",
        "routes.iris.candidates.v2.weight: 10% -> 0.5%",
        "routes.iris.candidates.v2.breaker.open_for: 5s -> 250ms",
        "limits.memory: 64MiB -> 1MiB",
        "limits.journal_disk: 1GiB -> 1500B",
        "log.access: 0% -> 1%",
        "log.slow: added: 500ms",
    ]


def test_a_thing_that_comes_or_goes_is_one_change() -> None:
    """Not one for each of its keys; and the order of things is told only where it has changed."""
    v2, v3 = ROUTE.candidates
    config = _route(candidates=(v3, Candidate("v9", "iris-v2", 100, 0)))
    rose = replace(ROUTE, name="rose")
    config = replace(
        config, routes=(rose, *config.routes), backends={"iris-v1": CONFIG.backends["iris-v1"]}
    )
    assert _lines(config) == [
        "routes.rose: added: primary iris-v1",
        "routes.iris.candidates.v9: added: backend iris-v2, mirror 1%, weight 0%",
        "backends.iris-v2: removed: [http://127.0.0.1:9]",
        "routes.iris.candidates.v2: removed: backend iris-v2, mirror 100%, weight 10%",
    ]
    assert _lines(_route(candidates=(v3, v2))) == ["routes.iris.candidates.order: v2, v3 -> v3, v2"]
    assert len(_lines(_route(candidates=()))) == 2


def test_no_secret_is_told() -> None:
    """That it changed is; neither the old nor the new one."""
    v2 = replace(ROUTE.candidates[0], rewrite=Rewrite({"authorization": SECRET}))

    def with_secrets(secret: str) -> Config:
        headers = {"authorization": secret}
        route = replace(ROUTE, candidates=(replace(v2, rewrite=Rewrite(headers)),))
        kafka = Kafka(("k:1",), "shadow", {"sasl_plain_password": secret})
        return replace(
            CONFIG,
            routes=(route,),
            admin=replace(CONFIG.admin, token=secret),
            record=replace(CONFIG.record, kafka=kafka),
            telemetry=Telemetry(Otlp("http://o:1", headers, 0)),
        )

    lines = _lines(with_secrets(SECRET), with_secrets("before"))
    assert lines == [
        f"{key}: changed (secret)"
        for key in (
            "admin.token",
            "routes.iris.candidates.v2.set_headers.authorization",
            "record.kafka.options.sasl_plain_password",
            "telemetry.otlp.headers.authorization",
        )
    ]
    assert SECRET not in "".join(_lines(with_secrets(SECRET)))


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (replace(CONFIG, workers=2), "workers"),
        (replace(CONFIG, recorders=2), "recorders"),
        (replace(CONFIG, instance="other"), "instance"),
        (replace(CONFIG, state_dir="/other"), "state_dir"),
        (replace(CONFIG, listen=Address("127.0.0.1", 1)), "listen"),
        (replace(CONFIG, admin=replace(CONFIG.admin, listen=Address("::1", 1))), "admin.listen"),
        (replace(CONFIG, limits=replace(CONFIG.limits, shutdown_s=3.0)), "limits.shutdown"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_fixed_at_the_start_is_known(config: Config, key: str) -> None:
    """Sockets, numbers of processes, folders, and the order of a stop."""
    assert [change.key for change in only_at_start(differences(CONFIG, config))] == [key]
    token = replace(config, admin=replace(config.admin, token="t"))
    assert "admin.token" not in {c.key for c in only_at_start(differences(CONFIG, token))}
