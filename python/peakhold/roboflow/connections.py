"""Connections that cannot hold a thread longer than they were given.

Four things urllib3 leaves open are closed here, by the hooks it has for it:

* Its read time-out starts anew with every byte: a server that sends one byte a second
  holds the caller for ever. Here the whole answer has one deadline.
* It sends the request under the *connect* time-out, too short for half a megabyte on
  a slow uplink. Here sending has the read time-out.
* Its pool takes a lock, also when it is collected. A process that forks at that moment
  has a child that hangs. Here the pool has none.
* An exception of a signal handler, just after a connection was put back into the pool,
  makes urllib3 put it back again when the response is closed: two threads then write to
  one socket, and what they send is mixed. Here a connection that is put back is another
  object with the same socket; whoever still has the old one has nothing.
"""

from __future__ import annotations

import http.client
import io
import queue
import time
from collections import deque
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.poolmanager import PoolManager, ProxyManager

if TYPE_CHECKING:
    import socket


class _DeadlineReader(io.RawIOBase):
    """Reads a socket until a point in time, however the bytes trickle in."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        self._raw = raw
        self._socket = sock
        # http.client makes the reader once the request is sent, with the read time-out
        # set on the socket.
        seconds = sock.gettimeout()
        self._deadline = None if seconds is None else time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._deadline is not None:
            seconds = self._deadline - time.monotonic()
            if seconds <= 0:
                message = "the answer did not end in time"
                raise TimeoutError(message)
            self._socket.settimeout(seconds)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _DeadlineResponse(http.client.HTTPResponse):
    """A response of which status, headers and body share one deadline."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        raw = self.fp.detach()  # of a BufferedReader, which gives up its socket
        self.fp = io.BufferedReader(_DeadlineReader(raw, sock))


class _PatientSender:
    """Gives sending the read time-out; connecting keeps its own."""

    response_class = _DeadlineResponse
    send_timeout: ClassVar[float]
    sock: Any
    timeout: float | None

    def connect(self) -> None:
        super().connect()  # type: ignore[misc]  # of the connection it is mixed into
        self.sock.settimeout(self.send_timeout)

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            self.timeout = self.send_timeout
        super().request(*args, **kwargs)  # type: ignore[misc]


class _LockFreeStack:
    """The part of `queue.LifoQueue` that urllib3 uses of a pool that never blocks.

    Appending to and popping from a deque is atomic. Two threads that put at the same
    moment may exceed ``maxsize`` by one connection, which does no harm.
    """

    def __init__(self, maxsize: int = 0) -> None:
        self._items: deque[Any] = deque()
        self._maxsize = maxsize

    def put(self, item: Any, block: bool = False) -> None:  # noqa: ARG002 - urllib3's signature
        if len(self._items) >= self._maxsize:
            raise queue.Full
        if item is not None:
            if item.sock is None:  # it is closed, or was put back before
                return
            old, item = item, copy(item)
            old.sock = None
        self._items.append(item)

    def get(self, block: bool = False, timeout: float | None = None) -> Any:  # noqa: ARG002 - urllib3's signature
        try:
            return self._items.pop()
        except IndexError:
            raise queue.Empty from None

    def qsize(self) -> int:
        return len(self._items)


def _pool_classes(send_timeout: float) -> dict[str, type[HTTPConnectionPool]]:
    """Make pool classes whose connections know the time-out for sending.

    The classes are made per client because urllib3 makes connections from a class,
    with arguments that also tell its pools apart.
    """
    members = {"send_timeout": send_timeout}
    plain = type("PlainConnection", (_PatientSender, HTTPConnection), members)
    tls = type("TlsConnection", (_PatientSender, HTTPSConnection), members)
    return {
        "http": type(
            "PlainPool",
            (HTTPConnectionPool,),
            {"ConnectionCls": plain, "QueueCls": _LockFreeStack},
        ),
        "https": type(
            "TlsPool",
            (HTTPSConnectionPool,),
            {"ConnectionCls": tls, "QueueCls": _LockFreeStack},
        ),
    }


class DeadlineAdapter(HTTPAdapter):
    """requests' adapter over the connections of this module; it never retries."""

    def __init__(self, send_timeout: float, pool_size: int) -> None:
        """Keep up to ``pool_size`` idle connections; time-out in seconds."""
        self._pool_classes = _pool_classes(send_timeout)
        super().__init__(pool_maxsize=pool_size, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Use these connections for direct requests."""
        super().init_poolmanager(*args, **kwargs)
        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = self._pool_classes

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> PoolManager:
        """Use these connections through a proxy, too, unless it is a SOCKS one."""
        manager: PoolManager = super().proxy_manager_for(*args, **kwargs)
        if isinstance(manager, ProxyManager):
            manager.pool_classes_by_scheme = self._pool_classes
        return manager
