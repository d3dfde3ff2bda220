"""The upstream of every peer: a fixed JSON answer, given once the whole request body is there.

The answer has about 200 bytes; the requests received are counted. nginx does it when it is
installed. Its `return` would answer before it has read a large body, which is a different exchange
(proxies then stop sending), so its `mirror` module is used to read the body first: the static
handler refuses the POST with 405, and the error page is the answer. Without nginx a small server
of our own stands in (`python -m benchmarks.origin PORT`).
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
import urllib.request
from dataclasses import dataclass

import uvloop

from benchmarks.fleet import Fleet, Place, free_port
from benchmarks.load import PATH
from benchmarks.programs.serving import ANSWER, STATUS, Answering, Count

_REQUESTS = re.compile(r"^\s*\d+ \d+ (\d+)\s*$", re.MULTILINE)


@dataclass(slots=True)
class Origin:
    """A running upstream, which counts the requests that it received."""

    port: int
    status_port: int
    kind: str
    _asked: int = 0

    def received(self) -> int:
        """Return how many requests came since it started, those for the count not included."""
        url = f"http://127.0.0.1:{self.status_port}{STATUS}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            text = answer.read().decode()
        self._asked += 1
        return parse_received(text) - self._asked


def parse_received(text: str) -> int:
    """Return the requests that a stub_status page counts, this page's own included.

    Raises:
        ValueError: it is no such page.
    """
    found = _REQUESTS.search(text)
    if found is None:
        raise ValueError(f"no counts in {text!r}")
    return int(found[1])


def own_origin(port: int, kind: str) -> Origin:
    """Return a server of `benchmarks.programs` that listens on a port, and counts there too."""
    return Origin(port, port, kind)


def nginx_path() -> str | None:
    """Return the path of nginx, which is often outside an ordinary user's PATH; None without it."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


def nginx_main(folder: str, workers: int = 1) -> str:
    """Return the main block that all nginx processes of a benchmark share."""
    user = "user root;" if os.geteuid() == 0 else ""
    return f"""{user}
worker_processes {workers};
daemon off;
pid {folder}/nginx.pid;
error_log stderr crit;
events {{ worker_connections 4096; }}
"""


def nginx_http(folder: str) -> str:
    """Return the settings that all of them share: no logs, endless keep-alive, bodies in memory."""
    temporary = "\n".join(
        f"  {kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""{temporary}
  access_log off;
  default_type application/json;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  tcp_nodelay on;
  client_max_body_size 0;
  client_body_buffer_size 16m;
"""


def start_origin(fleet: Fleet, name: str) -> Origin:
    """Start one upstream and wait until it listens."""
    nginx = nginx_path()
    if nginx is None:
        port = free_port()
        command = [sys.executable, "-m", "benchmarks.origin", str(port)]
        child = fleet.start(name, command, Place.BESIDE)
        fleet.wait_for_port(child, port)
        return Origin(port, port, "built-in Python server (nginx is not installed)")
    port, status_port = free_port(), free_port()
    folder = fleet.subfolder(name)
    refused = folder / "html" / PATH.lstrip("/")
    refused.parent.mkdir(parents=True)
    refused.write_bytes(b"never sent: the static handler refuses POST")
    (folder / "nginx.conf").write_text(
        f"""{nginx_main(str(folder))}
http {{
{nginx_http(str(folder))}
  open_file_cache max=8 inactive=1h;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    root {folder}/html;
    location / {{ mirror /read; error_page 405 =200 @answer; }}
    location = /read {{ internal; return 204; }}
    location @answer {{ return 200 '{ANSWER.decode()}'; }}
  }}
  server {{ listen 127.0.0.1:{status_port}; location = {STATUS} {{ stub_status; }} }}
}}
"""
    )
    command = [nginx, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    child = fleet.start(name, command, Place.BESIDE)
    fleet.wait_for_port(child, status_port)
    return Origin(port, status_port, "nginx")


async def _serve(port: int) -> None:
    """Serve until SIGTERM ends the process."""
    count = Count()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(count), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
