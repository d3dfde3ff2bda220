"""All checks of a config, side by side, each bounded in time."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final

from proxy.config.advice import advice
from proxy.config.resolved import Config
from proxy.config.tls_files import tls_advice
from proxy.doctor.backends import Check, backend_checks
from proxy.doctor.findings import Finding, Level, ok
from proxy.doctor.machine import descriptor_findings, disk_findings, port_findings
from proxy.doctor.sample import Sample, sample_findings
from proxy.telemetry import wall_ns

#: For one check, whatever it waits for.
CHECK_S: Final = 20.0


async def examine(
    config: Config,
    *,
    runtime: Mapping[str, Any] | None,
    sample: Sample | None = None,
    on_done: Callable[[str], None] = lambda name: None,
) -> list[Finding]:
    """Run every check at once; return their findings in a fixed order.

    Args:
        config: the one to look at.
        runtime: what the running instance left in its state directory; None where none runs.
        sample: a request to send to the primary and the candidates of its route.
        on_done: called with the name of each check that ends.
    """
    checks = list(_checks(config, runtime, sample))
    tasks: list[asyncio.Task[list[Finding]]] = []
    async with asyncio.TaskGroup() as group:
        for name, check in checks:
            tasks.append(group.create_task(_bounded(name, check, on_done)))
    return [finding for task in tasks for finding in task.result()]


def count(config: Config, sample: Sample | None) -> int:
    """Return how many checks `examine` runs."""
    return sum(1 for _ in _checks(config, None, sample))


def _checks(
    config: Config, runtime: Mapping[str, Any] | None, sample: Sample | None
) -> Iterator[Check]:
    yield "config", _direct(lambda: _config(config, runtime))
    yield "disk", functools.partial(asyncio.to_thread, disk_findings, config)
    yield "ports", _direct(lambda: port_findings(config, runtime))
    yield "file descriptors", _direct(lambda: descriptor_findings(config))
    yield from backend_checks(config)
    if config.record.kafka is not None:
        # Imported here: aiokafka takes a third of a second.
        from proxy.doctor.kafka import kafka_findings  # noqa: PLC0415

        yield (
            "kafka",
            functools.partial(
                kafka_findings, config.record.kafka, has_replicas=config.replicas is not None
            ),
        )
    if sample is not None:
        yield "sample", functools.partial(sample_findings, config, sample)


async def _bounded(
    name: str, check: Callable[[], Awaitable[list[Finding]]], on_done: Callable[[str], None]
) -> list[Finding]:
    try:
        async with asyncio.timeout(CHECK_S):
            return await check()
    except TimeoutError:
        what = f"could not be looked at within {CHECK_S:g} s"
        return [
            Finding(
                "time",
                name,
                Level.FAULT,
                what,
                "it would be too slow for traffic, too",
                "find out what it waits for",
            )
        ]
    finally:
        on_done(name)


def _direct(look: Callable[[], list[Finding]]) -> Callable[[], Awaitable[list[Finding]]]:
    async def check() -> list[Finding]:
        return look()

    return check


def _config(config: Config, runtime: Mapping[str, Any] | None) -> list[Finding]:
    found = [
        ok(
            "config",
            config.version,
            f"routes: {len(config.routes)}, backends: {len(config.backends)}",
        )
    ]
    found += [
        Finding("config", config.version, Level.WARNING, sentence, "see `understudy check`", "")
        for sentence in (*advice(config), *tls_advice(config.tls, wall_ns() / 1e9))
    ]
    running = None if runtime is None else runtime.get("config_version")
    if running is not None and running != config.version:
        found.append(
            Finding("config", config.version, Level.WARNING,
                    f"the running instance has config {running}", "this file is not in force",
                    "restart the instance")
        )  # fmt: skip
    return found
