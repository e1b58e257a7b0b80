"""Taking locks so that the exception of a signal handler leaves none taken.

Ctrl-C, an alarm and the time limit of a job queue raise between any two calls. ``with``
a lock of ``threading`` is safe from CPython 3.10 to 3.13: nothing is raised between
taking the lock and entering the block, nor between leaving it and giving the lock back.
``acquire`` before a ``try`` is not, nor is a context manager that is written in Python,
as ``contextmanager`` makes them and as ``threading.Condition`` is.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threading import Lock

_POLL = 0.002
_shared: dict[str, Lock] = {}


def shared(name: str) -> Lock:
    """Return the lock of a name, of which a process has one.

    It is made when it is first asked for, not at import: a server may replace the locks
    and threads of the standard library in between, as gevent and eventlet do, and a
    lock of before would block all of its greenlets. A forked child has new ones.
    """
    return _shared.get(name) or _shared.setdefault(name, threading.Lock())


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_shared.clear)


def is_free(lock: Lock, patience: float = 0.0) -> bool:
    """Whether nobody holds a lock, after waiting for that as long as is allowed.

    To be asked before ``with lock``, in place of ``lock.acquire`` with a time-out.
    Another thread may still take it in between, and is then waited for.

    Args:
        lock: The lock.
        patience: Seconds to wait at most; infinity waits for ever.
    """
    deadline = time.monotonic() + patience
    while lock.locked():
        if time.monotonic() >= deadline:
            return False
        time.sleep(_POLL)
    return True
