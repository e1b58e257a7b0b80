"""Which workspace an api key belongs to: looked up once in 15 minutes."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from peakhold.delivery.cache import store
from peakhold.locks import is_free
from peakhold.texts import text_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from peakhold.delivery.cache import Cache
    from peakhold.notices import Notices

WORKSPACE_TTL = 900
"""Seconds for which the workspace of an api key is remembered."""

_LOOKUP_PATIENCE = 1.0


class Workspace:
    """The workspace of a destination, kept in the host's cache for 900 s."""

    def __init__(self, cache_key: str, notices: Notices) -> None:
        """Start knowing nothing.

        Args:
            cache_key: Where the host's cache has it.
            notices: Where trouble is counted.
        """
        self._cache_key = cache_key
        self._notices = notices
        self._lookup = threading.Lock()
        self._known: tuple[str, float] | None = None

    def get(self, cache: Cache, look_up: Callable[[], str]) -> str:
        """Return the workspace, from the cache or by a lookup.

        Raises:
            Exception: Whatever ``look_up`` raises.
        """
        if known := self._cached(cache):
            return known
        # Threads that need it at once share one lookup; behind a lookup that hangs they
        # do not queue up.
        if is_free(self._lookup, _LOOKUP_PATIENCE):
            with self._lookup:
                return self._cached(cache) or self.refresh(cache, look_up)
        return self._cached(cache) or self.refresh(cache, look_up)

    def refresh(self, cache: Cache, look_up: Callable[[], str]) -> str:
        """Look the workspace up, whatever the cache says, and remember it.

        Raises:
            Exception: Whatever ``look_up`` raises.
        """
        workspace = look_up()
        self._known = (workspace, time.monotonic() + WORKSPACE_TTL)
        try:
            store(cache, self._cache_key, workspace, WORKSPACE_TTL)
        except Exception as error:  # noqa: BLE001 - a host's cache may raise anything
            self._trouble(f"{type(error).__name__} on writing the workspace")
        return workspace

    def _cached(self, cache: Cache) -> str | None:
        try:
            value = cache.get(self._cache_key)
        except Exception as error:  # noqa: BLE001 - a host's cache may raise anything
            self._trouble(f"{type(error).__name__} on reading the workspace")
        else:
            if is_workspace(value):
                return text_of(value)
            if value is None:
                return None
            self._trouble("the workspace there is not a string")
        # The cache is of no use, so this process's own memory of it is.
        if self._known and time.monotonic() < self._known[1]:
            return self._known[0]
        return None

    def _trouble(self, what: str) -> None:
        self._notices.warn("cache", "The cache is unusable, going on without: %s", what)


def is_workspace(value: object) -> bool:
    """Whether a value can be the name of a workspace."""
    return isinstance(value, str) and bool(value)
