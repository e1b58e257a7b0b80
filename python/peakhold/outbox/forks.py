"""No fork while a database is in use.

The child inherits SQLite's locks as they are at that moment: its mutexes, and what it
knows of the locks of files. They have to be at rest, for the threads that would give
them back are not in the child, which could wait for ever, or write without a lock.
"""

from __future__ import annotations

import os
import weakref
from operator import methodcaller
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from threading import Lock

_acquire = methodcaller("acquire")
_locks: weakref.WeakSet[Lock] = weakref.WeakSet()
_taken: list[Lock] = []


def wait_for(lock: Lock) -> None:
    """Have every fork wait for a lock, which nobody holds together with another one.

    Nor does anybody log while holding it: logging has a lock that forks wait for, too.
    """
    _locks.add(lock)


def _before() -> None:
    # In one call of C: no signal handler's exception leaves one that is not listed.
    _taken.extend(filter(_acquire, list(_locks)))


def _after() -> None:
    while _taken:
        _taken.pop().release()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
