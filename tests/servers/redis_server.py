"""A real Redis for a test, and a line to it that can be cut."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
import time

from peakhold.testing import refusing_port

PROGRAM = shutil.which("redis-server")
WITHOUT = "redis-server is not installed (package redis-server, or valkey-server)"
PATIENCE = 10.0
"""Seconds within which a server starts, and answers."""
ATTEMPTS = 5
"""Ports to try: another program may take one that was free a moment ago."""


def shared_by(port, timeout):
    """Return what has processes share by a Redis as if it was their host's own.

    Args:
        port: Where it is, or a line to it.
        timeout: Seconds that it has for an answer.
    """
    return {
        "PEAKHOLD_SHARE": "redis",
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(port),
        "REDIS_TIMEOUT": str(timeout),
    }


class RedisServer:
    """A server on a port of loopback that keeps nothing on disk.

    Use as a context manager. It can be stopped and started again, empty, on its port.

    Attributes:
        port: Where it listens.
    """

    def __enter__(self):
        for _ in range(ATTEMPTS):
            self.port = refusing_port()
            if self.start():
                return self
        raise AssertionError("redis-server does not start")

    def __exit__(self, *_):
        self.stop()

    @property
    def url(self):
        """Its database 0, as a URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self):
        """Start it; returns whether it answers."""
        self._process = subprocess.Popen(
            [
                *(PROGRAM, "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no", "--enable-debug-command", "yes"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + PATIENCE
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(ConnectionError):
                return self.ask("PING") == "PONG"
            time.sleep(0.01)
        return False

    def stop(self):
        """Kill it; everything in it is gone."""
        self._process.kill()
        self._process.wait()

    def ask(self, *words, timeout=PATIENCE):
        """Give it a command on a connection of its own; returns the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout) as connection:
            data = [str(word).encode() for word in words]
            bulks = b"".join(b"$%d\r\n%s\r\n" % (len(each), each) for each in data)
            connection.sendall(b"*%d\r\n%s" % (len(data), bulks))
            with connection.makefile("rb") as answers:
                return _answer(answers)


def _answer(answers):
    kind, rest = (line := answers.readline())[:1], line[1:].strip()
    if not kind:
        raise ConnectionResetError("redis-server closed the connection")
    if kind == b"+":
        return rest.decode()
    if kind == b":":
        return int(rest)
    if kind == b"$":
        size = int(rest)
        return None if size < 0 else answers.read(size + 2)[:-2]
    if kind == b"*":
        return [_answer(answers) for _ in range(int(rest))]
    raise AssertionError(rest.decode())


class Line:
    """A port of loopback that leads to another one, until it is cut.

    Use as a context manager.

    Attributes:
        port: Where it listens.
        connections: How many were made so far.
    """

    def __init__(self, target):
        """Lead to a port of loopback."""
        self.target = target
        self.port = 0
        self.connections = 0
        self._there, self._back = threading.Event(), threading.Event()
        self._answers_to = None
        self._listener = None
        self._sockets = []
        self._lock = threading.Lock()
        self._threads = []

    def __enter__(self):
        self.heal()
        return self

    def __exit__(self, *_):
        self.refuse()
        self._there.set()
        self._back.set()
        for each in self._threads:
            each.join()
        for each in self._sockets:
            each.close()

    @property
    def url(self):
        """A Redis at its end, database 0, as a URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    def cut(self, *, answers_to=None):
        """Let nothing pass. Connections stay open, and new ones are taken.

        What is written meanwhile arrives once the line is healed, as after a partition
        of a network.

        Args:
            answers_to: Bytes of a request: what is asked still arrives, and from the
                first request on that holds them nothing is answered.
        """
        self._answers_to = answers_to
        if answers_to is None:
            self._there.clear()
            self._back.clear()

    def refuse(self):
        """Close all connections and take no further ones."""
        with self._lock:
            if self._listener is not None:
                with contextlib.suppress(OSError):  # not where that wakes nobody
                    self._listener.shutdown(socket.SHUT_RDWR)
                self._listener.close()
                self._listener = None
            for each in self._sockets:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def heal(self):
        """Let everything pass again."""
        self._answers_to = None
        self._there.set()
        self._back.set()
        with self._lock:
            if self._listener is None:
                self._listener = socket.create_server(("127.0.0.1", self.port))
                self.port = self._listener.getsockname()[1]
                self._start(self._accept, self._listener)

    def _start(self, target, *arguments):
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener):
        while True:
            try:
                near, _ = listener.accept()
            except OSError:  # it was closed
                return
            try:
                far = socket.create_connection(("127.0.0.1", self.target), PATIENCE)
            except ConnectionError:
                near.close()
                continue
            far.settimeout(None)
            with self._lock:
                self.connections += 1
                self._sockets += [near, far]
                self._start(self._pass_on, near, far, self._there)
                self._start(self._pass_on, far, near, self._back)

    def _pass_on(self, source, target, passes):
        with contextlib.suppress(
            OSError
        ):  # an end is gone, and the other one learns it
            while data := source.recv(65536):
                passes.wait()
                if passes is self._there and self._is_asked(data):
                    self._back.clear()
                target.sendall(data)
        passes.wait()
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)

    def _is_asked(self, data):
        return self._answers_to is not None and self._answers_to in data
