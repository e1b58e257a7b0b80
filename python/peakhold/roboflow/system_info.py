"""What a report tells about the machine, gathered once and off the caller's thread.

Resolving the host's own name may wait for DNS, and finding the MAC address and the
processor may start a program; a frame loop must wait for neither. One thread per
process gathers, started when a client is constructed. If none can be started then, the
thread that first needs the facts gathers them.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import socket
import threading
import time
import uuid
from typing import TYPE_CHECKING

from peakhold.locks import shared

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from threading import Lock

_logger = logging.getLogger("peakhold.roboflow")

MAX_WAIT = 2.0
"""Seconds after the start of the gathering for which anybody waits for its end."""

# A MAC address with this bit is not one of a device: uuid.getnode() made it up.
_MULTICAST_BIT = 1 << 40


def _ip_address() -> str:
    return socket.gethostbyname(socket.gethostname())


def _mac_address() -> str:
    node = uuid.getnode()
    return "" if node & _MULTICAST_BIT else node.to_bytes(6, "big").hex(":")


# In the order of the request.
SOURCES: Mapping[str, Callable[[], str]] = {
    "platform": platform.system,
    "platform_release": platform.release,
    "platform_version": platform.version,
    "architecture": platform.machine,
    "hostname": socket.gethostname,
    "ip_address": _ip_address,
    "mac_address": _mac_address,
    "processor": platform.processor,
}
IDENTIFYING = frozenset({"hostname", "ip_address", "mac_address"})


class Gathering:
    """One run through the sources, on a thread of its own if there can be one."""

    def __init__(self, sources: Mapping[str, Callable[[], str]]) -> None:
        """Prepare; nothing is asked before ``start``."""
        self._sources = sources
        self._facts: dict[str, str] = dict.fromkeys(SOURCES, "")
        self._gathering = threading.Lock()
        self._done = threading.Event()
        self._deadline = time.monotonic() + MAX_WAIT
        self._started = False
        self.complete = False

    def start(self) -> None:
        """Start asking the sources, on a thread."""
        thread = threading.Thread(
            target=self._gather, name="peakhold-system-info", daemon=True
        )
        self._started = True
        try:
            thread.start()
        except RuntimeError as error:
            self._started = False
            _logger.debug("No thread for the facts of reports: %s", error)

    def facts(self) -> dict[str, str]:
        """Return what is known, waiting until ``MAX_WAIT`` seconds after the start."""
        if not self._started:
            self._gather()
        if not self.complete:
            self._done.wait(max(0.0, self._deadline - time.monotonic()))
        return dict(self._facts)

    def _gather(self) -> None:
        if self.complete or self._gathering.locked():
            return
        with self._gathering:  # which an exception of a signal handler leaves free
            if not self.complete:
                self._ask()

    def _ask(self) -> None:
        # Those that may wait for DNS or start a program come last.
        for name in sorted(self._sources, key=IDENTIFYING.__contains__):
            try:
                # Not around what may wait for DNS: a fork waits for the lock.
                with (
                    contextlib.nullcontext() if name in IDENTIFYING else shared(_ASKING)
                ):
                    self._facts[name] = self._sources[name]()
            except (OSError, UnicodeError) as error:  # noqa: PERF203 - eight rounds
                # A host that cannot resolve its own name is common in containers.
                _logger.debug("No %s for reports: %s", name, error)
        self.complete = True
        self._done.set()


FORK_PATIENCE = 0.5
"""Seconds that a fork waits for a thread that asks ``platform``."""

# ``platform`` takes a lock for the processor up to Python 3.11. A process that forks
# while the gathering holds it has a child that can never ask again.
_ASKING = "platform"
_held: dict[int, Lock] = {}


def _let_finish() -> None:
    """Wait before a fork until nobody is inside ``platform``."""
    lock = shared(_ASKING)
    if lock.acquire(timeout=FORK_PATIENCE):
        _held[threading.get_ident()] = lock


def _let_go_on() -> None:
    """Undo ``_let_finish`` in the parent."""
    if lock := _held.pop(threading.get_ident(), None):
        lock.release()


# At most one per value of "identifying facts wanted". A dict's setdefault settles a
# race of two threads without a lock, which a fork could leave held for ever.
_gatherings: dict[bool, Gathering] = {}


def start_gathering(*, identifying: bool) -> Gathering:
    """Return this process's gathering, started now if it is the first call.

    Args:
        identifying: Whether host name, IP address and MAC address may be looked up;
            they stay ``""`` otherwise, because a server expects strings.
    """
    known = _gatherings.get(identifying)
    if known is not None:
        return known
    sources = {
        name: source
        for name, source in SOURCES.items()
        if identifying or name not in IDENTIFYING
    }
    mine = Gathering(sources)
    mine.start()  # first, for one that is listed and never started knows nothing
    return _gatherings.setdefault(identifying, mine)


def _start_anew() -> None:
    """Forget in a forked child what the thread that is gone has not finished."""
    _held.clear()
    for identifying, gathering in list(_gatherings.items()):
        if not gathering.complete:
            del _gatherings[identifying]


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(
        before=_let_finish, after_in_parent=_let_go_on, after_in_child=_start_anew
    )
