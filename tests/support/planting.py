"""Secrets to plant wherever a request or an answer may hold one, and a search that finds them.

Every secret begins with one mark, so that a look at gigabytes is a look for a few texts: the mark as
it is, as URLs write it, and as base64 does, wherever in its groups of three it falls.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import zstandard

#: What a request may ask the server for.
KINDS = ("whole", "gzip", "stream", "cut", "long", "form", "error", "malformed")
#: Makes a body longer than what a record may keep of it.
PAD = "x" * 4096


class Mark:
    """The beginning of some secrets, and every way in which it may be written."""

    def __init__(self) -> None:
        #: `/` and `+` look different in URLs.
        self.text = f"{secrets.token_hex(5)}/+{secrets.token_hex(5)}"
        plain = self.text.encode()
        needles = {plain, quote(self.text).encode(), quote(self.text, safe="").encode()}
        for before in range(3):
            for encode in base64.b64encode, base64.urlsafe_b64encode:
                padded = encode(b"\0" * before + plain)
                # What depends on its neighbours is left out: at most a group at either end.
                needles.add(padded[4 : len(padded) // 4 * 4 - 4])
        self._needles = re.compile(b"|".join(map(re.escape, needles)))

    def found(self, data: bytes) -> list[bytes]:
        """Return each place in `data`, with what is around it."""
        return [data[max(0, m.start() - 60) : m.end() + 60] for m in self._needles.finditer(data)]


class Book:
    """The secrets that were planted under a mark."""

    def __init__(self, mark: Mark) -> None:
        self.mark = mark
        self.planted: set[str] = set()
        self._digests: set[bytes] = set()
        self._lock = threading.Lock()

    def secret(self) -> str:
        """Return a secret that nobody had before."""
        made = f"{self.mark.text}{secrets.token_hex(6)}"
        with self._lock:
            self.planted.add(made)
            self._note(made.encode())
        return made

    def note(self, body: bytes) -> bytes:
        """Note that hashes of `body`, which holds a secret, are secrets too; return it."""
        with self._lock:
            self._note(body)
        return body

    def note_digest(self, digest: bytes) -> None:
        """Note that a hash, in hex, is a secret too."""
        with self._lock:
            self._digests.add(digest[:16])

    def _note(self, data: bytes) -> None:
        for algorithm in "md5", "sha1", "sha256", "sha512", "blake2b":
            self._digests.add(hashlib.new(algorithm, data).hexdigest()[:16].encode())
        for size in 8, 16, 24, 32:
            self._digests.add(hashlib.blake2b(data, digest_size=size).hexdigest()[:16].encode())

    def digests_found(self, data: bytes) -> set[bytes]:
        """Return the unkeyed hashes in `data` that somebody could check a guess by."""
        return {word[:16] for word in re.findall(rb"[0-9a-f]{16,}", data)} & self._digests


def answer_document(protocol: str, secret: str, *, is_event: bool = False) -> dict[str, Any]:
    """Return what a model of the protocol says, with a secret in it."""
    if protocol == "openai":
        said = {"role": "assistant", "content": secret}
        choice = {"index": 0, "delta" if is_event else "message": said, "finish_reason": "stop"}
        return {"id": "x", "model": "m", "choices": [choice]}
    if protocol == "open-inference":
        output = {"name": "y", "datatype": "FP32", "shape": [1], "data": [1.5]}
        return {"model_name": "m", "outputs": [output], "parameters": {"ssn": secret}}
    return {"y": 1.5, "email": secret}


class _Handler(BaseHTTPRequestHandler):
    """Answers as the path says: /PROTOCOL/KIND; every answer has secrets of its own."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body leave together, or Nagle's algorithm holds the body back

    @property
    def book(self) -> Book:
        """The server's."""
        assert isinstance(self.server, Planter)
        return self.server.book

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        protocol, kind = self.path.partition("?")[0].split("/")[1:3]
        book = self.book
        if protocol == "open":
            self._answer(body, {"content-type": self.headers.get("content-type", "")})
            return
        headers = {
            "set-cookie": f"session={book.secret()}",
            "x-answer-key": book.secret(),
            "content-type": "application/json",
        }
        document = answer_document(protocol, book.secret(), is_event=kind == "stream")
        if kind == "long":
            document["pad"] = PAD
        said = book.note(orjson.dumps(document))
        if kind == "stream":
            self._stream(said, headers | {"content-type": "text/event-stream"})
        elif kind == "cut":
            self._answer(said, headers, announced=len(said) + 1)
            self.close_connection = True
        elif kind == "gzip":
            packed = book.note(gzip.compress(said, mtime=0))
            self._answer(packed, headers | {"content-encoding": "gzip"})
        elif kind == "malformed":
            self.wfile.write(
                b"HTTP/1.1 200 OK\r\nset-cookie: %b\0\r\n\r\n" % book.secret().encode()
            )
            self.close_connection = True
        elif kind == "form":
            form = book.note(f"email={quote(book.secret())}&y=1".encode())
            self._answer(form, headers | {"content-type": "application/x-www-form-urlencoded"})
        else:
            self._answer(said, headers, status=500 if kind == "error" else 200)

    def _answer(
        self, body: bytes, headers: dict[str, str], status: int = 200, announced: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body) if announced is None else announced))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, said: bytes, headers: dict[str, str]) -> None:
        """Send two events, each in two chunks that meet in the middle of the secret."""
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        event = b"data: " + said + b"\n\n"
        middle = event.index(self.book.mark.text.encode()) + 9
        for piece in (event[:middle], event[middle:]) * 2 + (b"data: [DONE]\n\n",):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


class Planter(ThreadingHTTPServer):
    """A backend whose answers hold secrets."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, book: Book) -> None:
        self.book = book
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that went."""


@contextmanager
def planter(book: Book) -> Iterator[Planter]:
    """Run a backend until the end of the block."""
    with Planter(book) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the bytes of every file in `folder`, compressed ones also inflated.

    Where processes are at work in it, some files are there for a moment only, and are left out.
    """
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue
        yield path.name, path.name.encode() + b"\n" + data
        if path.suffix == ".zst":
            with zstandard.ZstdDecompressor().stream_reader(
                data, read_across_frames=True
            ) as reader:
                yield f"{path.name} (inflated)", reader.read()
