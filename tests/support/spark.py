"""Spark with its connector to Kafka, to run a script as an analyst would with `spark-submit`.

Spark is the package pyspark; the connector's jars are resolved once into a cache directory.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyspark

POM = Path(__file__).with_name("spark_pom.xml")
CACHE = Path(__file__).parents[2] / ".cache" / "spark"
#: The first resolve may load 7 MB over a slow line.
RESOLVE_TIMEOUT_S = 300
RUN_TIMEOUT_S = 120


def resolve_connector(cache_dir: Path = CACHE) -> list[Path]:
    """Return the jars of the connector, resolving them into `cache_dir` the first time.

    Raises:
        AssertionError: Maven failed.
    """
    jars = cache_dir.resolve() / f"jars-{pyspark.__version__}"
    cache_dir.mkdir(parents=True, exist_ok=True)
    with (cache_dir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.exists():
            _resolve(jars)
    return sorted(jars.glob("*.jar"))


def _resolve(jars: Path) -> None:
    fresh = jars.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)
    command = [
        "mvn", "--quiet", "--batch-mode", "--file", str(POM), "dependency:copy-dependencies",
        f"-DoutputDirectory={fresh}", f"-Dspark.version={pyspark.__version__}",
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=RESOLVE_TIMEOUT_S, check=False
    )
    if done.returncode or not any(fresh.glob("spark-sql-kafka*.jar")):
        raise AssertionError(f"Maven could not load the connector: {done.stdout}{done.stderr}")
    fresh.rename(jars)


def run_spark(script: Path, *arguments: str, cwd: Path) -> str:
    """Run a script to its end on this machine, with little memory; return its stdout.

    Raises:
        AssertionError: it failed; with the end of its stderr.
    """
    settings = {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.local.dir": str(cwd / "spark"),
    }
    options = [
        "--master", "local[2]", "--driver-memory", "1g",
        "--driver-java-options", "'-XX:+UseSerialGC -XX:TieredStopAtLevel=1'",
        "--jars", ",".join(map(str, resolve_connector())),
        *(word for name, value in settings.items() for word in ("--conf", f"{name}={value}")),
        "pyspark-shell",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "PYSPARK_SUBMIT_ARGS": " ".join(options),
        "PYSPARK_PYTHON": sys.executable,
    }
    done = subprocess.run(
        [sys.executable, str(script), *arguments], env=environment, cwd=cwd,
        capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}{done.stderr[-6000:]}"
    return done.stdout
