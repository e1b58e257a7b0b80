"""An API on loopback, in a process of its own so that it takes no time of ours.

    python loopback.py

Prints its port, answers every request at once, and ends when its standard input does.
`GET /received` tells how many POSTs came, and when.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_QUIET = 0.3
_PATIENCE = 30.0


class Post(NamedTuple):
    """One request that came in: its path, when, and what it held."""

    path: str
    at: float
    body: dict[str, object]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    posts: list[Post] = []  # noqa: RUF012 - one server per process

    def do_GET(self) -> None:
        received = self.path.startswith("/received")
        self._answer(self.posts if received else {"workspace": "bench"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.posts.append(Post(self.path.partition("?")[0], time.time(), body))
        self._answer({})

    def _answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response_only(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Keep standard error clean."""


class Loopback:
    """The server as the benchmarks see it.

    Attributes:
        url: Its address.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        # A proxy of the environment is not for this machine.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def posts(self) -> list[Post]:
        """Return what was posted so far."""
        with self._opener.open(f"{self.url}/received", timeout=10) as answer:
            return [Post(*post) for post in json.load(answer)]

    def settle(self) -> list[Post]:
        """Wait until nothing has arrived for a while; return what was posted."""
        deadline = time.monotonic() + _PATIENCE
        seen = self.posts()
        while time.monotonic() < deadline:
            time.sleep(_QUIET)
            now = self.posts()
            if len(now) == len(seen):
                break
            seen = now
        return seen


@contextmanager
def serving() -> Iterator[Loopback]:
    """Run the server in another process."""
    with subprocess.Popen(
        [sys.executable, __file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdin
        try:
            yield Loopback(int(process.stdout.readline()))
        finally:
            process.stdin.close()


def main() -> None:
    """Serve until the parent goes away."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
