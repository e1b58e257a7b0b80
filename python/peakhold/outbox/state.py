"""The state directory, and which of the processes that share it are alive.

A process that owns something there, rows of the outbox or a journal, names itself by an
owner id and keeps the file of that id locked for as long as it lives. The kernel gives
the lock back whatever the process died of, so that a dead owner is known at once, and
no clock is asked. POSIX locks are not inherited by a forked child, which gets an id of
its own; on Windows a process does not fork.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import sys
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from peakhold.locks import shared
from peakhold.outbox.schema import FILE_NAME

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peakhold.notices import Notices

if sys.platform == "win32":
    import msvcrt

    def _lock_file(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock_file(descriptor: int) -> None:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


_HELD_BY_ANOTHER = frozenset({errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK})
"""What says that another process holds a lock. Any other error says that locks do not
work there, as on a network file system without a lock service (``ENOLCK``)."""

_JOURNAL_NAME = re.compile(r"(?P<writer>[0-9a-f]+)(\.(?P<adopter>[0-9a-f]+))?")

_MOST_SETTLED = 100_000
"""Ids that are kept for the outbox. Others it forgets when the process is dead."""

_T = TypeVar("_T")

_held: dict[Path, int] = {}
"""The locks of this process and their descriptors. A POSIX lock does not keep its own
process out, and goes when any descriptor of the file is closed."""


@dataclass(frozen=True)
class JournalName:
    """What the name of a journal, a directory of segments, says.

    Attributes:
        writer_id: The process whose windows it holds.
        owner_id: Whose it is: who wrote it, or adopted it since.
    """

    writer_id: str
    owner_id: str

    @classmethod
    def of(cls, path: Path) -> JournalName | None:
        """Return what a name says; None if it is not a journal's."""
        found = _JOURNAL_NAME.fullmatch(path.name)
        if found is None:
            return None
        return cls(found["writer"], found["adopter"] or found["writer"])

    def adopted_by(self, owner_id: str) -> str:
        """Return what an owner who adopts the journal names it."""
        return f"{self.writer_id}.{owner_id}"


class StateDirectory:
    """A directory for what has to outlive the process; nobody else may look into it.

    Thread-safe, and usable in a forked child, which is an owner of its own.

    Attributes:
        path: The directory. It is made when something is first put there.
        settled: Ids of windows whose commits are in their journal, so that the outbox
            may forget them.
    """

    def __init__(self, path: Path) -> None:
        """Name a directory; nothing is made yet."""
        self.path = path
        self.settled: deque[str] = deque(maxlen=_MOST_SETTLED)
        self._claimed: tuple[int, str] | None = None

    @property
    def outbox(self) -> Path:
        """The file of the outbox; its directory exists.

        Raises:
            OSError: If the directory cannot be made.
        """
        return self._made(self.path) / FILE_NAME

    def has_outbox(self) -> bool:
        """Whether there is one; makes nothing.

        Raises:
            OSError: If nobody may look.
        """
        try:  # from Python 3.14 on `exists` does not raise
            (self.path / FILE_NAME).stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    @property
    def journals(self) -> Path:
        """The directory of the processes' journals; it exists.

        Raises:
            OSError: If it cannot be made.
        """
        return self._made(self._made(self.path) / "journals")

    def exposure(self) -> str | None:
        """Return who else may change what is in the directory; None if nobody may.

        Windows has other means than modes for that, and is not asked.
        """
        if sys.platform == "win32":
            return None
        if _mode(self.path) & stat.S_IWOTH:
            return "can be written by every user"
        owner = self.other_owner()
        if owner is not None and os.geteuid() != 0:
            return f"belongs to another user, {owner}"
        if _mode(self.path) & (stat.S_IXGRP | stat.S_IXOTH):  # others may go inside
            for name in ("journals", "owners"):
                if _mode(self.path / name) & stat.S_IWOTH:
                    return f"has {name}/ inside, which can be written by every user"
        return None

    def warn_if_exposed(self, notices: Notices) -> None:
        """Warn if somebody else may change what is in the directory.

        To be called without a lock that a logging handler may wait for.
        """
        if exposure := self.exposure():
            notices.warn(
                "exposed",
                "The state directory %s %s, who may change what waits there; `peakhold "
                "doctor` has the remedy",
                self.path,
                exposure,
            )

    def other_owner(self) -> int | None:
        """Return whose the directory is if that is another user, but not root.

        To root that is common, in a container with a directory of the machine's.
        """
        if sys.platform == "win32":
            return None
        try:
            found = self.path.stat()
        except OSError:  # there is none yet
            return None
        if found.st_uid in {0, os.geteuid()} or not os.access(self.path, os.W_OK):
            return None
        return found.st_uid

    @property
    def owner_id(self) -> str:
        """The id of this process, which counts as alive from the first call on.

        Raises:
            OSError: If the directory cannot be written, or locks do not work there.
        """
        with shared("state directory"):
            if self._claimed is None or self._claimed[0] != os.getpid():
                self._claimed = (os.getpid(), self._claim())
            return self._claimed[1]

    def is_alive(self, owner_id: str) -> bool:
        """Whether the process of an owner id still runs. Who is dead stays dead.

        Raises:
            OSError: If its file cannot be opened for another reason than being gone, or
                locks do not work there.
        """
        with shared("state directory"):
            return _is_locked(self._path_of(owner_id))

    def stay_alive(self, notices: Notices) -> None:
        """Lock this process's file anew if somebody deleted it; nothing is raised.

        Others take a process without a file for dead, and deliver what it has open.
        """
        with shared("state directory"):
            if self._claimed is None or self._claimed[0] != os.getpid():
                return
            path = self._path_of(self._claimed[1])
            try:
                old = _held[path]
                if _is_at(old, path):
                    return
                self._made(path.parent)
                path.unlink(missing_ok=True)  # it may be another file
                while not _take(path):
                    path.unlink(missing_ok=True)
                os.close(old)  # not before the new one is locked
                outcome = "it is made anew"
            except OSError as error:
                outcome = f"it cannot be made anew ({error.strerror})"
        notices.warn(
            "owner",
            "The file in %s by which other processes see that this one runs was "
            "deleted; %s. Part of a window may be reported twice. Set "
            "PEAKHOLD_STATE_DIR to a directory that nothing cleans up",
            path.parent,
            outcome,
        )

    def release(self) -> None:
        """Count as dead from now on, as after the end of the process."""
        with shared("state directory"):
            claimed, self._claimed = self._claimed, None
            if claimed is None or claimed[0] != os.getpid():
                return
            path = self._path_of(claimed[1])
            with suppress(OSError):  # Windows; then the next owner deletes it
                path.unlink()
            os.close(_held.pop(path))

    def alone(self, act: Callable[[], _T]) -> _T:
        """Call ``act`` while no other process is in such a call; does not wait.

        Not a context manager, for the reason of ``Database.transaction``.

        Raises:
            OSError: If another one is inside, the directory cannot be written, or locks
                do not work there.
        """
        with shared("state directory"):
            descriptor = self._open_alone()
            try:
                if not _try_lock(descriptor):
                    message = f"another process is putting {self.path} in order"
                    raise BlockingIOError(message)
                return act()
            finally:
                os.close(descriptor)

    def _claim(self) -> str:
        owners = self._made(self._made(self.path) / "owners")
        os.close(self._open_alone())  # a full disk lets nobody make it later
        owner_id = secrets.token_hex(8)
        while not _take(self._path_of(owner_id)):
            owner_id = secrets.token_hex(8)
        for other in owners.glob("*.lock"):
            with suppress(OSError):  # another user's, for one
                _is_locked(other)  # deletes those of the dead
        return owner_id

    def _open_alone(self) -> int:
        path = self._made(self.path) / "alone.lock"
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def _path_of(self, owner_id: str) -> Path:
        return self.path / "owners" / f"{owner_id}.lock"

    @staticmethod
    def _made(path: Path) -> Path:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path


def _mode(path: Path) -> int:
    """Return the mode of a file; 0 if there is none, or nobody may look."""
    try:
        return path.stat().st_mode
    except OSError:
        return 0


def _try_lock(descriptor: int) -> bool:
    """Lock a file; returns whether that was possible, or another process holds it.

    Raises:
        OSError: If locks do not work there.
    """
    try:
        _lock_file(descriptor)
    except OSError as error:
        if error.errno in _HELD_BY_ANOTHER:
            return False
        raise
    return True


def _take(path: Path) -> bool:
    """Make and hold the lock of an owner; False if somebody is asking whether he lives.

    Raises:
        OSError: If the file cannot be made, or locks do not work there.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    taken = False
    try:
        taken = _try_lock(descriptor) and _is_at(descriptor, path)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    finally:
        if not taken:
            os.close(descriptor)
    if taken:
        _held[path] = descriptor
    return taken


def _is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _is_locked(path: Path) -> bool:
    """Whether somebody holds the lock of a file; deletes the file if nobody does."""
    if path in _held:
        return True
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        if not _try_lock(descriptor):
            return True
        # While it is locked: an owner that is about to lock it sees that it is gone,
        # and takes another id. Windows does not delete an open file: it stays. Another
        # process that asks may be faster.
        with suppress(PermissionError, FileNotFoundError):
            path.unlink()
        return False
    finally:
        os.close(descriptor)


def _after_fork_in_child() -> None:
    """Forget the parent's locks, which closing their descriptors here leaves alone."""
    for descriptor in _held.values():
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
