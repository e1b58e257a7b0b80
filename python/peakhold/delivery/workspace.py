"""Which workspace an api key belongs to: looked up once in 15 minutes."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from peakhold.delivery.cache import store
from peakhold.delivery.sender import is_workspace
from peakhold.locks import is_free
from peakhold.texts import text_of

if TYPE_CHECKING:
    from peakhold.delivery.sender import Sender
    from peakhold.notices import Notices

WORKSPACE_TTL = 900
"""Seconds for which the workspace of an api key is remembered."""

_LOOKUP_PATIENCE = 1.0


class Workspace:
    """The workspace of a destination, kept in the host's cache for 900 s."""

    def __init__(self, notices: Notices) -> None:
        """Start knowing nothing."""
        self._notices = notices
        self._lookup = threading.Lock()
        self._known: tuple[str, float] | None = None

    def get(self, sender: Sender) -> str:
        """Return the workspace, from the cache or by a lookup.

        Raises:
            Exception: Whatever the client raises.
        """
        if known := self._cached(sender):
            return known
        # Deliverers that need it at once share one lookup; behind a lookup that hangs
        # they do not queue up.
        if is_free(self._lookup, _LOOKUP_PATIENCE):
            with self._lookup:
                return self._cached(sender) or self.refresh(sender)
        return self._cached(sender) or self.refresh(sender)

    def refresh(self, sender: Sender) -> str:
        """Look the workspace up, whatever the cache says, and remember it.

        Raises:
            Exception: Whatever the client raises.
        """
        workspace = sender.look_up_workspace()
        self._known = (workspace, time.monotonic() + WORKSPACE_TTL)
        try:
            store(sender.cache, sender.workspace_cache_key, workspace, WORKSPACE_TTL)
        except Exception as error:  # noqa: BLE001 - a host's cache may raise anything
            self._trouble(f"{type(error).__name__} on writing the workspace")
        return workspace

    def _cached(self, sender: Sender) -> str | None:
        try:
            value = sender.cache.get(sender.workspace_cache_key)
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
