"""What a replay has written: its pairs, and the state to go on from after Ctrl-C or a crash.

The pairs go to OUT in frames of many (`zstdcat`, DuckDB and `understudy compare` read them). A frame
takes a while to fill, and a process that is killed loses what it holds; so each pair is first written,
as it is, to OUT.state, and each request is named there before it is sent. After a kill, then, nothing
that was answered is lost or sent again; what was under way (named, and without a pair) is known, and
is sent again. When frames are written, OUT.state is replaced by a short one.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from proxy.analysis.source import Record
from proxy.analysis.sources import FileSource
from proxy.errors import ReplayError
from proxy.journal.frame_file import FrameFile, compressor, cut_torn_tail

#: Pairs, uncompressed, that fill a frame.
FRAME_BYTES: Final = 1024 * 1024
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a replay does; one that goes on must do the same."""

    source: str
    target: str
    candidate: str
    route: str
    config_version: str


def identity(route: str, request_id: str) -> bytes:
    """Return which request it is, in 12 bytes: by chance, one of a billion requests is taken for another.

    The ids themselves, of ten million requests, would take a gigabyte.
    """
    return hashlib.blake2b(f"{route}\\0{request_id}".encode(), digest_size=12).digest()


class ReplayLog:
    """The output and the state of one replay.

    Attributes:
        instance: unique name of the replay, kept over interruptions.
        again: requests that were under way when an earlier run ended, and may be sent twice.
        resumed: pairs that earlier runs wrote.
    """

    def __init__(self, out: Path, purpose: Purpose) -> None:
        """Begin, or go on where an earlier run with the same purpose stopped.

        Raises:
            ReplayError: the file is there and no replay's that could go on, or it cannot be written.
        """
        self.path = out
        self.state_path = out.with_name(out.name + ".state")
        self.instance = f"replay-{os.urandom(6).hex()}"
        self.again = self.resumed = 0
        self._purpose = purpose
        self._seen: set[bytes] = set()
        self._under_way: dict[bytes, bytes] = {}
        self._lines: list[bytes] = []
        self._size_bytes = 0
        self._state = self._lock = -1
        self._file: FrameFile | None = None

    def open(self) -> Iterator[Record]:
        """Open the files; yield the pairs that earlier runs wrote. Iterate it to its end.

        Raises:
            ReplayError: see above.
        """
        try:
            goes_on = self.state_path.exists()
            if self.path.exists() and not goes_on:
                raise ReplayError(
                    f"{self.path} is there already, and no {self.state_path.name} to go on from: "
                    "give another --out, or remove it"
                )
            self._take_alone()
            if goes_on:
                yield from self._resume()
            self._file = FrameFile(self.path, compressor(), goes_on=True)
            self._write_state()
        except OSError as exc:
            raise ReplayError(f"cannot write {exc.filename}: {exc.strerror}") from exc

    @property
    def pairs(self) -> int:
        """Return how many pairs there are, of earlier runs too."""
        return len(self._seen)

    def has(self, route: str, request_id: str) -> bool:
        """Tell whether a request was sent already, or is under way."""
        key = identity(route, request_id)
        return key in self._seen or key in self._under_way

    def begin(self, route: str, request_id: str) -> None:
        """Note that a request is about to be sent.

        Raises:
            ReplayError: the disk refuses; do not send it.
        """
        line = orjson.dumps({"begun": [route, request_id]}, option=orjson.OPT_APPEND_NEWLINE)
        self._append(line)
        self._under_way[identity(route, request_id)] = line

    def end(self, pair: bytes, route: str, request_id: str) -> None:
        """Keep the pair of a request that was begun.

        Raises:
            ReplayError: the disk refuses.
        """
        line = pair + b"\n"
        self._append(line)
        key = identity(route, request_id)
        self._under_way.pop(key, None)
        self._seen.add(key)
        self._lines.append(line)
        self._size_bytes += len(line)
        if self._size_bytes >= FRAME_BYTES:
            self._pack()

    def close(self, *, is_complete: bool) -> None:
        """Write all that is kept; the state goes when the replay is complete.

        Raises:
            ReplayError: the disk refuses.
        """
        try:
            if self._file is not None:
                self._pack()
                self._file.close()
            for descriptor in (self._state, self._lock):
                if descriptor >= 0:
                    os.close(descriptor)
            self._state = self._lock = -1
            if is_complete:
                self.state_path.unlink()
                if not self._seen:
                    self.path.unlink()
        except OSError as exc:
            raise ReplayError(f"cannot write {self.path}: {exc.strerror}") from exc

    def _take_alone(self) -> None:
        """Keep other replays away from the file until this process ends, however it does."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._lock = os.open(self.path, flags, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ReplayError(f"another replay is writing {self.path}") from None

    def _append(self, line: bytes) -> None:
        try:
            view = memoryview(line)
            while view:
                view = view[os.write(self._state, view) :]
        except OSError as exc:
            raise ReplayError(f"cannot write {self.state_path}: {exc.strerror}") from exc

    def _pack(self) -> None:
        """Move the pairs that are kept into OUT."""
        assert self._file is not None
        try:
            if self._lines:
                self._file.append(b"".join(self._lines))
            # Between these two a kill leaves the pairs in both; `_resume` takes them once.
            self._lines.clear()
            self._size_bytes = 0
            self._write_state()
        except OSError as exc:
            raise ReplayError(f"cannot write {self.path}: {exc.strerror}") from exc

    def _write_state(self) -> None:
        """Replace the state by one that says the same without the pairs that are in OUT."""
        head = {"format": _FORMAT, "instance": self.instance, "purpose": asdict(self._purpose)}
        content = orjson.dumps(head, option=orjson.OPT_APPEND_NEWLINE)
        content += b"".join([*self._under_way.values(), *self._lines])
        fresh = self.state_path.with_name(self.state_path.name + ".new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        descriptor = os.open(fresh, flags, 0o600)
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content)
        fresh.replace(self.state_path)
        if self._state >= 0:
            os.close(self._state)
        self._state = descriptor

    def _resume(self) -> Iterator[Record]:
        head, *lines = self.state_path.read_bytes().split(b"\n")[:-1] or [b""]
        self._take_over(head)
        cut_torn_tail(self.path)
        for pair in FileSource(str(self.path), [self.path]):
            self._seen.add(identity(pair["route"], pair["request_id"]))
            self.resumed += 1
            yield pair
        begun: set[bytes] = set()
        for line in lines:
            entry = orjson.loads(line)
            if "begun" in entry:
                begun.add(identity(*entry["begun"]))
                continue
            key = identity(entry["route"], entry["request_id"])
            if key not in self._seen:
                self._seen.add(key)
                self._lines.append(line + b"\n")
                self._size_bytes += len(line)
                self.resumed += 1
                yield entry
        self.again = len(begun - self._seen)

    def _take_over(self, head: bytes) -> None:
        """Take the instance's name from the state of an earlier run.

        Raises:
            ReplayError: that run did something else.
        """
        found: dict[str, Any] = {}
        with suppress(orjson.JSONDecodeError):
            found = orjson.loads(head)
        if found.get("format") != _FORMAT:
            raise ReplayError(f"{self.state_path} is no state of a replay; remove it")
        before, now = found["purpose"], asdict(self._purpose)
        for name, value in now.items():
            if before.get(name) != value:
                raise ReplayError(
                    f"{self.state_path} is of a replay with another {name.replace('_', ' ')} "
                    f"({before.get(name) or 'none'}, now {value or 'none'}): give another --out, or "
                    "remove it"
                )
        self.instance = found["instance"]
