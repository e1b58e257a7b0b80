"""An HTTP server on loopback that answers as told, however badly, and remembers all.

Real sockets, a thread per connection, a port from the operating system.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import sys
import threading
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from peakhold.testing.behaviours import Answer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message

    from typing_extensions import Self

    from peakhold.testing.behaviours import Behaviour

CERTIFICATE = Path(__file__).with_name("localhost.pem")
"""Certificate with key, self-signed for localhost and 127.0.0.1, worthless elsewhere.

Made by ``openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes
-days 36500 -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1``.
"""


@dataclass(frozen=True)
class Request:
    """One request as it arrived.

    Attributes:
        method: GET, POST, ...
        target: Path and query, byte for byte as on the request line.
        headers: Names in any case.
        body: Raw.
        connection: Number of the connection it came on; the same number twice means
            that the connection was used again.
    """

    method: str
    target: str
    headers: Message
    body: bytes
    connection: int

    @property
    def path(self) -> str:
        """The target without its query."""
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, list[str]]:
        """The unquoted parameters."""
        return parse_qs(urlsplit(self.target).query, keep_blank_values=True)

    def json(self) -> Any:
        """Return the body, read as JSON."""
        return json.loads(self.body)


class Peer(BaseHTTPRequestHandler):
    """One connection, seen from the server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener
    asked: Request

    def setup(self) -> None:
        """Number the connection."""
        super().setup()
        self.number = self.server.owner.enter(self.connection)

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        has_length = self.command != "POST" or "Content-Length" in self.headers
        if len(body) < length or not has_length:  # its sender was killed
            self.hang_up()
            return
        target = self.requestline.split(" ")[1]
        self.asked = Request(self.command, target, self.headers, body, self.number)
        self.server.owner.next_behaviour(self.asked).perform(self)

    do_GET = do_POST = do_CONNECT = _serve  # noqa: N815 - http.server's names

    def send_head(
        self,
        status: int,
        length: int | None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send status line and headers; no length means a chunked body follows."""
        self.send_response(status)
        if length is None:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(length))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def send_response(self, code: int, message: str | None = None) -> None:
        """Send the status line alone, so that a behaviour rules over all headers."""
        self.send_response_only(code, message)

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.wfile.write(data)

    def wait(self, seconds: float) -> bool:
        """Wait; True if the server stops meanwhile."""
        return self.server.owner.stopping.wait(seconds)

    def hang_up(self) -> None:
        """End the connection in order (FIN)."""
        self.close_connection = True

    def reset(self) -> None:
        """End the connection at once (RST)."""
        self.close_connection = True
        linger = struct.pack("hh" if hasattr(socket, "SIO_RCVALL") else "ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.rfile.close()
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Keep standard error clean: requests are recorded instead."""


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    owner: MisbehavingServer

    def shutdown_request(self, request: Any) -> None:
        with suppress(OSError):  # already reset
            super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: object) -> None:
        del request, client_address  # the connection's end is told by its exception
        self.owner.note_problem()


class MisbehavingServer:
    """The server; a context manager that starts and stops it.

    Attributes:
        requests: What arrived whole, in order of arrival.
        otherwise: What happens to requests beyond the script.
        problems: Exceptions of the server itself, other than lost connections.
    """

    def __init__(self, *, tls: bool = False) -> None:
        """Bind a port; nothing is answered before the server is entered."""
        self.requests: list[Request] = []
        self.otherwise: Behaviour = Answer()
        self.problems: list[BaseException] = []
        self.stopping = threading.Event()
        self._script: deque[Behaviour] = deque()
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = _Listener(("127.0.0.1", 0), Peer)
        self._listener.owner = self
        self._scheme = "https" if tls else "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            self._listener.socket = context.wrap_socket(
                self._listener.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(
            target=self._listener.serve_forever,
            kwargs={"poll_interval": 0.01},
            name="misbehaving-server",
            daemon=True,
        )

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._listener.server_address[1]

    @property
    def url(self) -> str:
        """Its address, without a trailing slash."""
        return f"{self._scheme}://127.0.0.1:{self.port}"

    def script(self, *behaviours: Behaviour) -> None:
        """Append behaviours for the next requests."""
        with self._lock:
            self._script.extend(behaviours)

    def __enter__(self) -> Self:
        """Start to answer."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and end every connection that is still open."""
        self.stopping.set()
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()
        with self._lock:
            for connection in self._sockets:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def enter(self, connection: socket.socket) -> int:
        """Take up a connection and return its number."""
        with self._lock:
            self._sockets.append(connection)
            return len(self._sockets)

    def next_behaviour(self, request: Request) -> Behaviour:
        """Record a request and return what to do with it."""
        with self._lock:
            self.requests.append(request)
            return self._script.popleft() if self._script else self.otherwise

    def note_problem(self) -> None:
        """Keep the exception being handled, unless the client just went away."""
        problem = sys.exc_info()[1]
        if problem is not None and not isinstance(problem, OSError):
            self.problems.append(problem)
