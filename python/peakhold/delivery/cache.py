"""What peakhold asks of a host's cache."""

from __future__ import annotations

from typing import Any, Protocol


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
