"""Which endpoints are peakhold monitors, and get windows in place of reports."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from peakhold.roboflow.settings import is_platform

if TYPE_CHECKING:
    from pathlib import Path

    from peakhold.delivery.settings import Windows

_MOST = 1_000
"""Endpoints that are remembered."""


class Monitors:
    """What is known of endpoints, by this process and by those before it.

    It is learned when the workspace of an api key is looked up, and remembered in the
    state directory, so that the first window of the next process has statistics. The
    platform is never asked.
    """

    def __init__(self, path: Path | None, wanted: Windows) -> None:
        """Read what is remembered.

        Args:
            path: The file; None if nothing is remembered.
            wanted: What ``PEAKHOLD_WINDOWS`` says.
        """
        self._path = path
        self._wanted = wanted
        self._known: dict[str, bool] = {}
        if path is not None:
            # It can be learned again.
            with suppress(OSError, ValueError, AttributeError):
                known = json.loads(path.read_bytes()).items()
                self._known = {name: known is True for name, known in known}

    def get(self, endpoint: str) -> bool | None:
        """Return whether an endpoint is a monitor; None while that is not known."""
        if self._wanted != "auto":
            return self._wanted == "on"
        if is_platform(endpoint):
            return False
        return self._known.get(endpoint)

    def learn(self, endpoint: str, *, is_monitor: bool) -> None:
        """Remember whether an endpoint is a monitor."""
        if self._known.get(endpoint) is is_monitor:
            return
        known = {**self._known, endpoint: is_monitor}
        self._known = dict(list(known.items())[-_MOST:])
        if self._path is None:
            return
        scratch = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with suppress(OSError):  # the next process asks again
            with os.fdopen(
                os.open(scratch, os.O_WRONLY | os.O_CREAT, 0o600), "w"
            ) as file:
                json.dump(self._known, file)
            scratch.replace(self._path)
