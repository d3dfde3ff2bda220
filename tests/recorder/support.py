"""A recorder process and its surroundings, for tests that treat it as users do."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import zstandard

from proxy.config.resolved import Config, Kafka, digest
from proxy.journal.writer import JournalWriter
from proxy.recorder.sink import Pair
from tests.support.deadline import PATIENCE_S, wait_for
from tests.support.journal_lines import line
from tests.support.resolved_config import small_config, write_config

GIB = 1 << 30


def config_for(state_dir: Path, *, kafka: Kafka | None = None, recorders: int = 1) -> Config:
    """Return a config whose pairs go to `kafka`, else to the local log."""
    config = small_config(state_dir)
    config = replace(config, recorders=recorders, record=replace(config.record, kafka=kafka))
    return replace(config, version=digest(config))


def journal(config: Config, numbers: Iterable[int], *, worker: int = 0) -> None:
    """Write a line per number, as a worker would, ten to a frame."""
    directory = Path(config.state_dir) / "journal" / f"worker-{worker}"
    writer = JournalWriter(directory, disk_budget_bytes=GIB)
    for number in numbers:
        fields = line(
            seq=number,
            request_id=f"request-{number}",
            instance=f"test-w{worker}",
            config_version=config.version,
        )
        writer.append(orjson.dumps(fields))
        if number % 10 == 9:
            writer.flush()
    writer.close()


def journal_lines(config: Config, lines: list[bytes]) -> None:
    """Write lines as they are into the journal of worker 0."""
    directory = Path(config.state_dir) / "journal" / "worker-0"
    writer = JournalWriter(directory, disk_budget_bytes=GIB)
    for each in lines:
        writer.append(each)
    writer.close()


def pair(number: int, size: int = 10) -> Pair:
    """Return a pair as the recorder hands it to a sink."""
    return Pair(
        pair_id=f"018bcfe5-687b-7746-9a94-{number:012x}",
        request_id=f"request-{number}",
        trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
        instance="test-w0",
        ts="2023-11-14T22:13:20.123456Z",
        ts_ms=1_700_000_000_123,
        value=orjson.dumps({"pair_id": number, "x": "x" * size}),
    )


@contextmanager
def recorder(config: Config, index: int = 0) -> Iterator[subprocess.Popen[bytes]]:
    """Run a recorder process; end it at the end, whatever the test did to it."""
    command = [sys.executable, "-m", "proxy.recorder"]
    process = subprocess.Popen(
        [*command, "--config", str(write_config(config)), "--index", str(index)],
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def stop(process: subprocess.Popen[bytes]) -> tuple[int, bytes]:
    """Ask a recorder to stop; return its exit code and what it wrote on stderr."""
    process.terminate()
    _, errors = process.communicate(timeout=PATIENCE_S)
    return process.returncode, errors


def statistics(config: Config, index: int = 0) -> dict[str, Any]:
    """Return what a recorder last said of itself; empty before it has."""
    try:
        path = Path(config.state_dir) / f"recorder-{index}.json"
        found: dict[str, Any] = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    return found


def wait_for_acknowledged(
    config: Config, count: int, timeout_s: float = PATIENCE_S
) -> dict[str, Any]:
    """Return the statistics once `count` pairs are acknowledged."""

    def acknowledged() -> dict[str, Any]:
        found = statistics(config)
        return found if found.get("acknowledged", 0) >= count else {}

    return wait_for(acknowledged, f"{count} pairs acknowledged", timeout_s)


def logged(config: Config) -> list[dict[str, Any]]:
    """Return every record of the local log, in the order of the files."""
    found = []
    for path in sorted((Path(config.state_dir) / "pairs").glob("*.ndjson.zst")):
        with (
            path.open("rb") as file,
            zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True) as stream,
        ):
            found += [orjson.loads(each) for each in io.BufferedReader(stream)]
    return found
