"""Where pairs are read from: a path or a Kafka topic, as one stream of records.

Decides what a source's name means. How a file's bytes become records is `proxy.analysis.reading`'s;
whether a JSON object is a pair, `proxy.analysis.rows`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from proxy.analysis.reading import READ_BYTES, open_reading
from proxy.analysis.source import Record, Source, SourceStatistics
from proxy.analysis.topic import NO_OPTIONS, ClientOptions, Span, parse_topic
from proxy.errors import SourceError

__all__ = ["READ_BYTES", "FileSource", "Record", "Source", "SourceStatistics", "open_source"]

KAFKA_SCHEME: Final = "kafka://"

#: Endings of the files that are read from a folder.
ENDINGS: Final = (
    *(kind + packed for kind in (".ndjson", ".jsonl") for packed in ("", ".zst", ".gz")),
    ".parquet",
)


class FileSource(Source):
    """Files of NDJSON (plain, gzip, zstd) or Parquet, one after the other."""

    def __init__(self, name: str, paths: list[Path]) -> None:
        super().__init__(SourceStatistics(name, "files", parts=len(paths)))
        self._paths = paths
        self._statistics.total = sum(_size(path) for path in paths)

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return the files, in their order."""
        return tuple(self._paths)

    def __iter__(self) -> Iterator[Record]:
        for path in self._paths:
            try:
                reading = open_reading(path, self)
                before = self._statistics.done
                yield from reading.records()
                yield from reading.finish()
                self._statistics.offsets[path.name] = self._statistics.done - before
            except FileNotFoundError:
                self._statistics.note(f"{path.name}: removed while reading")
            except OSError as exc:
                raise SourceError(f"cannot read {path}: {exc.strerror or exc}") from exc


def open_source(
    name: str,
    *,
    since_ms: int | None = None,
    until_ms: int | None = None,
    options: ClientOptions = NO_OPTIONS,
) -> Source:
    """Return the source that `name` means; nothing of it is read yet.

    Args:
        name: `kafka://HOST:PORT[,HOST:PORT]/TOPIC`, a state directory (its `pairs` folder is
            read), a folder of `*.ndjson`, `*.ndjson.gz`, `*.ndjson.zst` or `*.parquet`, or one
            such file.
        since_ms: records before it are not needed; a source may skip them, or not.
        until_ms: likewise those from then on.
        options: of a topic's client, as `record.kafka.options` names them.

    Raises:
        SourceError: the name makes no sense, or there is nothing at the path.
    """
    if name.startswith(KAFKA_SCHEME):
        # aiokafka takes a third of a second to import, which readers of files need not wait for.
        from proxy.analysis.kafka_source import KafkaSource  # noqa: PLC0415

        return KafkaSource(parse_topic(name, options), Span(since_ms=since_ms, until_ms=until_ms))
    return FileSource(name, files_of(name))


def files_of(name: str) -> list[Path]:
    """Return the files that a path means, in the order of their names.

    Raises:
        SourceError: there is nothing, or it is no path.
    """
    if "://" in name:
        raise SourceError(f"{name}: a source is a path or kafka://HOST:PORT/TOPIC")
    path = Path(name)
    try:
        if path.is_dir():
            folder = path / "pairs" if (path / "pairs").is_dir() else path
            return sorted(p for p in folder.iterdir() if p.name.endswith(ENDINGS) and p.is_file())
        if path.exists():
            return [path]
    except OSError as exc:
        raise SourceError(f"cannot read {path}: {exc.strerror}") from exc
    raise SourceError(f"there is nothing at {path}")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
