"""Running the monitor: in a thread beside other code, or as a program of its own.

starlette and uvicorn are imported when a server is constructed, so that this module
can be imported where they are not installed.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from peakhold.monitor.errors import NO_THREAD, MonitorError
from peakhold.monitor.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike
    from types import FrameType, TracebackType

    import uvicorn

_BACKLOG = 2048
_LAST_PORT = 65535
_GRACE = 5
"""Seconds for which requests under way may finish when the monitor stops."""

_WAKE_INTERVAL = 0.5
"""Seconds. On Windows a wait without a time-out cannot be interrupted by Ctrl-C."""


class MonitorServer:
    """A Model Monitoring endpoint on this machine, in a background thread.

    Use as a context manager; on entry it is ready, on exit everything that was
    acknowledged is stored.

    Args:
        host: The address to listen on.
        port: The port; 0 has the system choose a free one.
        data: The file to keep everything in; None for a temporary one.
        workspace: The name of the one workspace.
        clock: Tells the time of receipt in seconds since 1970 UTC.

    Raises:
        MonitorError: starlette or uvicorn is not installed.
        ValueError: The workspace is not a plain name, or the port is none.

    Example:
        ```python
        with MonitorServer() as monitor:
            print(monitor.dashboard_url)
        ```
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        data: str | PathLike[str] | None = None,
        workspace: str = "local",
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            import starlette  # noqa: F401 - to fail here, not in the thread
            import uvicorn  # noqa: F401
        except ImportError as error:
            raise MonitorError(
                f"the monitor needs {error.name}, which is not installed; "
                'pip install "peakhold[monitor]"'
            ) from error
        if not workspace or "/" in workspace or not workspace.isprintable():
            raise ValueError(
                f"workspace {workspace!r} cannot be part of an address; "
                "use a name such as 'local'"
            )
        # getaddrinfo would take the number modulo 65536
        if not 0 <= port <= _LAST_PORT:
            raise ValueError(f"port {port} is not between 0 and {_LAST_PORT}")
        self._host = host
        self._port = port
        self._data = data
        self._workspace = workspace
        self._clock = clock
        self._url: str | None = None
        self._store: Store | None = None
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The base address, such as `http://127.0.0.1:50123`.

        Raises:
            MonitorError: The monitor is not running.
        """
        if self._url is None:
            raise MonitorError("the monitor is not running; enter it with `with`")
        return self._url

    @property
    def dashboard_url(self) -> str:
        """The address of the page for people.

        Raises:
            MonitorError: The monitor is not running.
        """
        return f"{self.url}/dashboard"

    @property
    def store(self) -> Store:
        """What has been received.

        Raises:
            MonitorError: The monitor is not running.
        """
        if self._store is None:
            raise MonitorError("the monitor is not running; enter it with `with`")
        return self._store

    def start(self) -> None:
        """Listen, open the data file, and return when requests are answered.

        Raises:
            MonitorError: The address cannot be listened on, no thread can be started,
                or it runs already.
            StoreError: The data file cannot be used.
        """
        if self._thread is not None:
            raise MonitorError("the monitor is running already")
        started = threading.Event()
        with ExitStack() as on_failure:
            listener = on_failure.enter_context(_listen(self._host, self._port))
            self._store = Store(self._data, clock=self._clock)
            on_failure.callback(self.stop)
            self._server = _make_server(self._store, self._workspace, started)
            thread = threading.Thread(
                target=_run,
                args=(self._server, listener, started),
                name="peakhold-monitor",
                daemon=True,
            )
            self._url = _url(listener)
            try:
                thread.start()
            except RuntimeError as error:
                raise MonitorError(NO_THREAD.format(error)) from error
            self._thread = thread
            on_failure.pop_all()
        started.wait()
        if not self._server.started:
            self.stop()
            raise MonitorError("the monitor could not start; the log says why")

    def stop(self) -> None:
        """Finish the requests under way, store what was received, let go of the port.

        A monitor that is not running stays so.
        """
        if self._server is not None:
            self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()
        if self._store is not None:
            self._store.close()
        self._url = self._store = self._server = self._thread = None

    def wait(self, timeout: float) -> bool:
        """Wait until the server ends by itself, at most `timeout` seconds.

        Returns:
            Whether it has ended.
        """
        if self._thread is not None:
            self._thread.join(timeout)
        return self._thread is None or not self._thread.is_alive()

    def __enter__(self) -> MonitorServer:  # noqa: PYI034 - Self is newer than 3.10
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def serve(
    host: str = "127.0.0.1",
    port: int = 0,
    data: str | PathLike[str] | None = None,
    workspace: str = "local",
    *,
    on_ready: Callable[[MonitorServer], None] | None = None,
) -> None:
    """Run the monitor until Ctrl-C or SIGTERM, then stop it cleanly and return.

    To be called on the main thread, which alone receives signals. The handlers that
    were installed before are put back.

    Args:
        host: The address to listen on.
        port: The port; 0 has the system choose a free one.
        data: The file to keep everything in; None for a temporary one.
        workspace: The name of the one workspace.
        on_ready: Called with the running server, to tell its address.

    Raises:
        MonitorError: The monitor could not start, or ended by itself.
        StoreError: The data file cannot be used.
        ValueError: Not the main thread, or a bad workspace name or port.
    """
    stop = threading.Event()
    with _signals_set(stop), MonitorServer(host, port, data, workspace) as server:
        if on_ready is not None:
            on_ready(server)
        while not stop.wait(_WAKE_INTERVAL):
            if server.wait(0):
                raise MonitorError("the monitor ended by itself; the log says why")


@contextmanager
def _signals_set(stop: threading.Event) -> Iterator[None]:
    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    wanted = [signal.SIGINT, signal.SIGTERM]
    if sys.platform == "win32":
        wanted.append(signal.SIGBREAK)
    previous = {number: signal.signal(number, on_signal) for number in wanted}
    try:
        yield
    finally:
        for number, handler in previous.items():
            # None: it was not installed from Python, and cannot be put back from it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    # UnicodeError: a host that is not even a name
    except (OSError, ValueError) as error:
        raise _cannot_listen(host, port, error) from error
    try:
        # Elsewhere a restart would wait for old connections; on Windows this option
        # would let two servers share the port.
        if sys.platform != "win32":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def _cannot_listen(host: str, port: int, error: Exception) -> MonitorError:
    remedy = (
        "port 0 has the system choose a free one"
        if port
        else "name an address of this machine, such as 127.0.0.1"
    )
    return MonitorError(f"cannot listen on {host} port {port} ({error}); {remedy}")


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    # One can listen on every address, but not connect to it.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _make_server(
    store: Store, workspace: str, started: threading.Event
) -> uvicorn.Server:
    import uvicorn

    from peakhold.monitor.app import create_app

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started.set()

    return Server(
        uvicorn.Config(
            create_app(store, workspace),
            http="h11",
            ws="none",
            lifespan="off",
            # The access log prints the query, which holds the api key, and so does
            # uvicorn's trace level. How to log the rest is the application's choice.
            access_log=False,
            log_level="warning",
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=_GRACE,
        )
    )


def _run(
    server: uvicorn.Server, listener: socket.socket, started: threading.Event
) -> None:
    try:
        server.run(sockets=[listener])
    finally:
        listener.close()
        started.set()
