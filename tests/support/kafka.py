"""Kafka brokers for tests and benchmarks: yours, a real one started here, or a wire-level mock.

The real one is Apache Kafka from Maven's artifacts, one node in KRaft mode on the loopback, with a
small heap and its own data directory. Its jars are resolved once into a cache directory.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from proxy.telemetry import monotonic_s
from tests.support.deadline import PATIENCE_S
from tests.support.upstreams import unused_port

KAFKA_VERSION = "4.3.1"
POM = Path(__file__).with_name("kafka_pom.xml")

#: The first resolve may load 45 MB over a slow line.
RESOLVE_TIMEOUT_S = 600
START_TIMEOUT_S = 120
_START_ATTEMPTS = 3

_JVM_OPTIONS = (
    "-Xmx512m",
    "-Xms128m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-Djava.awt.headless=true",
)

_LOG4J = """
Configuration:
  status: error
  Appenders:
    Console: {name: out, PatternLayout: {pattern: "%d %p %m (%c)%n%throwable"}}
  Loggers:
    Root: {level: warn, AppenderRef: {ref: out}}
"""


class BrokerError(RuntimeError):
    """A broker could not be had; says what was tried and the end of its output."""


def can_start_broker() -> bool:
    """Return whether this machine has what a real broker needs."""
    return shutil.which("java") is not None and shutil.which("mvn") is not None


def resolve_jars(cache_dir: Path) -> str:
    """Return the class path of Apache Kafka, resolving it into `cache_dir` the first time.

    Raises:
        BrokerError: Maven failed or took longer than `RESOLVE_TIMEOUT_S`.
    """
    cache_dir = cache_dir.resolve()  # Maven takes a relative path from the POM's folder
    jars = cache_dir / f"jars-{KAFKA_VERSION}"
    cache_dir.mkdir(parents=True, exist_ok=True)
    with (cache_dir / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not jars.exists():
            _resolve(cache_dir, jars)
    return f"{jars}/*"


def _resolve(cache_dir: Path, jars: Path) -> None:
    fresh = cache_dir / f"{jars.name}.new"
    shutil.rmtree(fresh, ignore_errors=True)
    command = [
        "mvn",
        "--quiet",
        "--batch-mode",
        "--file",
        str(POM),
        "dependency:copy-dependencies",
        f"-DoutputDirectory={fresh}",
        f"-Dkafka.version={KAFKA_VERSION}",
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=RESOLVE_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise BrokerError(f"Maven took over {RESOLVE_TIMEOUT_S} s to load Apache Kafka") from exc
    if done.returncode or not any(fresh.glob("kafka_*.jar")):
        raise BrokerError(f"Maven could not load Apache Kafka: {done.stdout[-2000:]}{done.stderr}")
    fresh.rename(jars)


class Broker:
    """One real broker that can be stopped, killed, frozen and started again on its own port.

    `settings` are added to the broker's properties; `format_options` to the words that format its
    storage (users of SCRAM are made there); `listeners` are further ones, protocols by name.

    Attributes:
        bootstrap: `host:port` for clients.
        addresses: the same of every listener, by name.
    """

    def __init__(
        self,
        cache_dir: Path,
        data_dir: Path,
        settings: Mapping[str, str] | None = None,
        format_options: Sequence[str] = (),
        listeners: Mapping[str, str] | None = None,
    ) -> None:
        self._classpath = resolve_jars(cache_dir)
        self._data_dir = data_dir
        self._settings = dict(settings or {})
        self._format_options = tuple(format_options)
        self._protocols = {"PLAINTEXT": "PLAINTEXT", **(listeners or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.bootstrap = ""
        self.addresses: dict[str, str] = {}

    def create(self) -> None:
        """Format fresh storage and start; a port taken by another in between is tried again.

        Raises:
            BrokerError: it did not come up.
        """
        for attempt in range(_START_ATTEMPTS):
            shutil.rmtree(self._data_dir, ignore_errors=True)
            self._data_dir.mkdir(parents=True)
            # Kept from all others, so that it finds them free when it comes back after a kill.
            controller, *ports = [unused_port() for _ in range(1 + len(self._protocols))]
            self.addresses = {
                name: f"127.0.0.1:{port}" for name, port in zip(self._protocols, ports, strict=True)
            }
            self.bootstrap = self.addresses["PLAINTEXT"]
            self._configure(f"127.0.0.1:{controller}")
            self._format()
            try:
                self.start()
            except BrokerError:
                if attempt + 1 == _START_ATTEMPTS or b"Address already in use" not in self._log():
                    raise
            else:
                return

    def start(self) -> None:
        """Start on storage that is already formatted; return when it answers.

        Raises:
            BrokerError: it did not come up within `START_TIMEOUT_S`.
        """
        self.launch()
        self.wait_until_up()

    def launch(self) -> None:
        """Begin to start. It dies with the thread that does this, so that must be the main one."""
        with (self._data_dir / "server.log").open("wb") as log:
            self._process = subprocess.Popen(
                [*_die_with_parent(), *self._java("kafka.Kafka"), str(self._properties)],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._data_dir,
                start_new_session=True,
            )

    def wait_until_up(self) -> None:
        """Return when a broker that was launched answers.

        Raises:
            BrokerError: it did not come up within `START_TIMEOUT_S`.
        """
        process = self._process
        assert process is not None, "it was not launched"
        deadline = monotonic_s() + START_TIMEOUT_S
        while not _answers(self.bootstrap):
            if process.poll() is not None:
                raise BrokerError(f"the broker exited: {self._tail()}")
            if monotonic_s() > deadline:
                self.kill()
                raise BrokerError(f"no broker after {START_TIMEOUT_S} s: {self._tail()}")
            time.sleep(0.05)

    @property
    def is_running(self) -> bool:
        """Whether it was started and has not ended; a frozen one runs."""
        return self._process is not None and self._process.poll() is None

    def command(self, main: str, *words: str) -> str:
        """Run one of Kafka's own commands, by the name of its class, and return what it says.

        Raises:
            BrokerError: it failed.
        """
        done = subprocess.run(
            [*self._java(main), "--bootstrap-server", self.bootstrap, *words],
            capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise BrokerError(f"{main} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def kill(self) -> None:
        """End it at once, as a power cut would; harmless when it is not running."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
            self._process = None

    def freeze(self) -> None:
        """Stop it from answering while its sockets stay open; each of its threads has stopped by then."""
        self._signal(signal.SIGSTOP)
        if self._process is not None and self.is_running:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let a frozen broker go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self.is_running:
            os.killpg(self._process.pid, number)

    @property
    def _properties(self) -> Path:
        return self._data_dir / "server.properties"

    def _configure(self, controller: str) -> None:
        addresses = {"CONTROLLER": controller, **self.addresses}
        protocols = {"CONTROLLER": "PLAINTEXT", **self._protocols}
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{controller}",
            "listeners": ",".join(f"{name}://{where}" for name, where in addresses.items()),
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": ",".join(map(":".join, protocols.items())),
            "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": str(self._data_dir / "log"),
            "num.partitions": "4",
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # After SIGKILL the broker's own session must end before it may register again.
            "broker.session.timeout.ms": "2000",
            "broker.heartbeat.interval.ms": "500",
            "log.index.size.max.bytes": "1048576",
            # Records of tests are stamped in the past, which retention would take away.
            "log.retention.ms": "-1",
            **self._settings,
        }
        self._properties.write_text("".join(f"{k}={v}\n" for k, v in settings.items()))
        (self._data_dir / "log4j2.yaml").write_text(_LOG4J)

    def _format(self) -> None:
        command = [
            *self._java("kafka.tools.StorageTool"),
            "format",
            f"--cluster-id={uuid.uuid4().hex[:22]}",
            f"--config={self._properties}",
            *self._format_options,
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False
        )
        if done.returncode:
            raise BrokerError(f"formatting the storage failed: {done.stdout}{done.stderr}")

    def _java(self, main: str) -> list[str]:
        config = f"-Dlog4j2.configurationFile={self._data_dir / 'log4j2.yaml'}"
        return ["java", *_JVM_OPTIONS, config, "-cp", self._classpath, main]

    def _log(self) -> bytes:
        return (self._data_dir / "server.log").read_bytes()

    def _tail(self) -> str:
        return self._log()[-3000:].decode(errors="replace")


@contextmanager
def broker(
    cache_dir: Path,
    data_dir: Path,
    settings: Mapping[str, str] | None = None,
    format_options: Sequence[str] = (),
    listeners: Mapping[str, str] | None = None,
) -> Iterator[Broker]:
    """Run a real broker that the test may stop, freeze or restart; see `Broker`."""
    found = Broker(cache_dir, data_dir, settings, format_options, listeners)
    try:
        found.create()
        yield found
    finally:
        found.thaw()
        found.kill()


@contextmanager
def real_broker(cache_dir: Path, data_dir: Path) -> Iterator[str]:
    """Run a real broker and give its bootstrap address."""
    with broker(cache_dir, data_dir) as found:
        yield found.bootstrap


@contextmanager
def mock_broker() -> Iterator[str]:
    """Run librdkafka's mock cluster in this process and give its bootstrap address."""
    owner = Producer({"bootstrap.servers": "", "test.mock.num.brokers": 1})
    first = next(iter(owner.list_topics(timeout=PATIENCE_S).brokers.values()))
    yield f"{first.host}:{first.port}"
    owner.flush(1)


def _answers(bootstrap: str) -> bool:
    """Return whether a broker answers a metadata request; a closed port is the cheap no."""
    host, _, port = bootstrap.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=1).close()
        AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(timeout=2)
    except (OSError, KafkaException):
        return False
    return True


def _die_with_parent() -> list[str]:
    """Return a command prefix so that a killed test session leaves no broker, where there is one."""
    return ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
