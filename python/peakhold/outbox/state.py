"""The state directory, and which of the processes that share it are alive.

A process that owns something there, rows of the outbox or a journal, names itself by an
owner id and keeps the file of that id locked for as long as it lives. The kernel gives
the lock back whatever the process died of, so that a dead owner is known at once, and
no clock is asked. POSIX locks are not inherited by a forked child, which gets an id of
its own; on Windows a process does not fork.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peakhold.outbox.schema import FILE_NAME

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

if sys.platform == "win32":
    import msvcrt

    def _try_lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _try_lock(descriptor: int) -> None:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


_JOURNAL_NAME = re.compile(
    r"(?P<id>(?P<owner>[0-9a-f]+)-\d+-\d+)(\.(?P<adopter>[0-9a-f]+))?\.journal"
)

_lock = threading.Lock()
_held: dict[Path, int] = {}
"""The locks of this process and their descriptors. A POSIX lock does not keep its own
process out, and goes when any descriptor of the file is closed."""


@dataclass(frozen=True)
class JournalName:
    """What the name of a journal says.

    Attributes:
        record_id: The id of the record of its window.
        owner_id: Whose it is: who made it, or adopted it since.
    """

    record_id: str
    owner_id: str

    @classmethod
    def of(cls, path: Path) -> JournalName | None:
        """Return the name of a file; None if it is no journal's."""
        found = _JOURNAL_NAME.fullmatch(path.name)
        if found is None:
            return None
        return cls(found["id"], found["adopter"] or found["owner"])

    def adopted_by(self, owner_id: str) -> str:
        """Return what an owner who adopts the journal names its file."""
        return f"{self.record_id}.{owner_id}.journal"


class StateDirectory:
    """A directory for what has to outlive the process; nobody else may look into it.

    Thread-safe, and usable in a forked child, which is an owner of its own.

    Attributes:
        path: The directory. It is made when something is first put there.
    """

    def __init__(self, path: Path) -> None:
        """Name a directory; nothing is made yet."""
        self.path = path
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
        return (self.path / FILE_NAME).exists()

    @property
    def journals(self) -> Path:
        """The directory of the open windows' journals; it exists.

        Raises:
            OSError: If it cannot be made.
        """
        return self._made(self._made(self.path) / "journals")

    def journal(self, name: str) -> Path:
        """Return where the journal of a name is, or would be; nothing is made."""
        return self.path / "journals" / f"{name}.journal"

    @property
    def owner_id(self) -> str:
        """The id of this process, which counts as alive from the first call on.

        Raises:
            OSError: If the directory cannot be written.
        """
        with _lock:
            if self._claimed is None or self._claimed[0] != os.getpid():
                self._claimed = (os.getpid(), self._claim())
            return self._claimed[1]

    def is_alive(self, owner_id: str) -> bool:
        """Whether the process of an owner id still runs. Who is dead stays dead.

        Raises:
            OSError: If its file cannot be opened for another reason than being gone.
        """
        with _lock:
            return _is_locked(self._lock_file(owner_id))

    def release(self) -> None:
        """Count as dead from now on, as after the end of the process."""
        with _lock:
            claimed, self._claimed = self._claimed, None
            if claimed is None or claimed[0] != os.getpid():
                return
            path = self._lock_file(claimed[1])
            with suppress(OSError):  # Windows; then the next owner deletes it
                path.unlink()
            os.close(_held.pop(path))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Enter a ``with`` block that one process at a time is in; does not wait.

        Raises:
            OSError: If another one is inside, or the directory cannot be written.
        """
        with _lock:
            descriptor = self._open_alone()
            try:
                try:
                    _try_lock(descriptor)
                except OSError as error:
                    message = f"another process is putting {self.path} in order"
                    raise BlockingIOError(message) from error
                yield
            finally:
                os.close(descriptor)

    def _claim(self) -> str:
        owners = self._made(self._made(self.path) / "owners")
        while True:
            owner_id = secrets.token_hex(8)
            path = self._lock_file(owner_id)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            with suppress(OSError):  # somebody is asking whether the owner is alive
                _try_lock(descriptor)
                if path.exists():
                    _held[path] = descriptor
                    break
            os.close(descriptor)
        for other in owners.glob("*.lock"):
            _is_locked(other)  # deletes those of the dead
        os.close(self._open_alone())  # a full disk lets nobody make it later
        return owner_id

    def _open_alone(self) -> int:
        path = self._made(self.path) / "alone.lock"
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)

    def _lock_file(self, owner_id: str) -> Path:
        return self.path / "owners" / f"{owner_id}.lock"

    @staticmethod
    def _made(path: Path) -> Path:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path


def _is_locked(path: Path) -> bool:
    """Whether somebody holds the lock of a file; deletes the file if nobody does."""
    if path in _held:
        return True
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        _try_lock(descriptor)
    except OSError:
        return True
    else:
        # While it is locked: an owner that is about to lock it sees that it is gone,
        # and takes another id. Windows does not delete an open file: it stays.
        with suppress(PermissionError):
            path.unlink()
        return False
    finally:
        os.close(descriptor)


def _after_fork_in_child() -> None:
    """Forget the parent's locks, which closing their descriptors here leaves alone."""
    global _lock  # noqa: PLW0603 - a thread of the parent may hold it
    _lock = threading.Lock()
    for descriptor in _held.values():
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
