"""What peakhold asks of a host's cache, and for how long it waits for one."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from peakhold.delivery.scheduler import Scheduler
    from peakhold.notices import Notices

SLOW = 0.05
"""Seconds after which a read counts as slow."""
AVOIDED = 60.0
"""Seconds for which frames and the clock do not read a slow cache."""
_MOST = 64


class Cache(Protocol):
    """What a block needs of a host's cache."""

    def get(self, key: str) -> Any:
        """Return what is stored, or None."""

    def set(self, key: str, value: Any, expire: int | None = None) -> object:
        """Store a value, for ``expire`` seconds if given."""


def store(cache: Cache, key: str, value: str, expire: int) -> None:
    """Store a value with an expiry, or without where the cache knows no expiry."""
    try:
        cache.set(key, value, expire=expire)
    except TypeError:
        cache.set(key, value)


@dataclass(frozen=True)
class Write:
    """A value that a host's cache is to have.

    Attributes:
        cache: The host's.
        key: Under which it is stored.
        value: What is stored.
        expire: Seconds for which it is kept.
        stays: Says of what is there and of the value whether it is left as it is.
    """

    cache: Cache
    key: str
    value: str
    expire: int
    stays: Callable[[object, str], bool] | None = None


class HostCaches:
    """Hosts' caches, any of which may be slow or hang.

    Values are written by a thread, one per cache at a time: a cache that hangs holds up
    nothing but what is written to it. It is known by its ``id``, as not every one can
    be hashed or referred to weakly; another one that gets the ``id`` of a slow one is
    avoided for a minute at most.
    """

    def __init__(self, notices: Notices, scheduler: Scheduler) -> None:
        """Start without having read any.

        Args:
            notices: Where trouble is counted.
            scheduler: What has a thread write.
        """
        self._notices = notices
        self._scheduler = scheduler
        self._lock = threading.Lock()
        self._reading: dict[object, tuple[int, float]] = {}
        self._avoided: dict[int, float] = {}
        self._waiting: dict[int, dict[str, Write]] = {}
        self._writing: set[int] = set()

    @property
    def is_writing(self) -> bool:
        """Whether something is not written yet."""
        return bool(self._waiting or self._writing)

    def avoids(self, cache: Cache) -> bool:
        """Whether a cache was slow within the last minute, or is keeping a thread."""
        now = time.monotonic()
        if now < self._avoided.get(id(cache), 0.0):
            return True
        return any(
            known == id(cache) and now - since > SLOW
            for known, since in list(self._reading.values())
        )

    def is_read(self, cache: Cache) -> bool:
        """Whether a thread is reading a cache, and it is not known as slow yet."""
        reading = any(known == id(cache) for known, _ in list(self._reading.values()))
        return reading and not self.avoids(cache)

    def read(self, cache: Cache, key: str) -> Any:
        """Return what a cache says of the last report; None if it says nothing.

        One that kept its readers waiting lately is not read.
        """
        if (self._avoided or self._reading) and self.avoids(cache):
            self.warn("it took longer than 50 ms to answer, and is asked once a minute")
            return None
        started, read = time.monotonic(), object()
        try:
            self._reading[read] = id(cache), started
            return cache.get(key)
        except Exception as error:  # noqa: BLE001 - a host's cache may raise anything
            self.warn(f"{type(error).__name__} on reading the last report's time")
            return None
        finally:
            self._reading.pop(read, None)
            if time.monotonic() - started > SLOW:
                if len(self._avoided) >= _MOST:
                    self._avoided.clear()
                self._avoided[id(cache)] = time.monotonic() + AVOIDED

    def write(self, write: Write) -> None:
        """Have a thread write a value, or a later one of its key."""
        with self._lock:
            self._waiting.setdefault(id(write.cache), {})[write.key] = write
        self.start()

    def start(self) -> None:
        """Have a thread write what waits, where none does so."""
        for cache in list(self._waiting):
            if cache not in self._writing:
                self._scheduler.watch(partial(self._write_all, cache), 0.0)

    def write_now(self, write: Write) -> None:
        """Write a value on the caller's thread."""
        with self._lock:
            self._waiting.get(id(write.cache), {}).pop(write.key, None)
        self._write(write)

    def _write_all(self, cache: int, _now: float) -> None:
        with self._lock:
            if cache in self._writing:
                return
            self._writing.add(cache)
        try:
            while write := self._next(cache):
                self._write(write)
        finally:
            self._writing.discard(cache)
            self.start()

    def _next(self, cache: int) -> Write | None:
        with self._lock:
            writes = self._waiting.get(cache)
            if writes:
                return writes.pop(next(iter(writes)))
            self._waiting.pop(cache, None)
            return None

    def _write(self, write: Write) -> None:
        try:
            if write.stays and write.stays(write.cache.get(write.key), write.value):
                return
            store(write.cache, write.key, write.value, write.expire)
        except Exception as error:  # noqa: BLE001 - a host's cache may raise anything
            self.warn(f"{type(error).__name__} on writing the last report's time")

    def warn(self, what: str) -> None:
        """Count and log that a cache is of no use for now."""
        self._notices.warn("cache", "The cache is unusable, going on without: %s", what)
