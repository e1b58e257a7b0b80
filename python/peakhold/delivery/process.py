"""The process's dispatcher: made when first asked for, replaced after a fork."""

from __future__ import annotations

import atexit
import os
import sys

from peakhold.delivery.dispatcher import Dispatcher
from peakhold.delivery.settings import (
    SHARED,
    DeliverySettings,
    NoStateDirectoryError,
)
from peakhold.locks import shared
from peakhold.outbox import StateDirectory
from peakhold.outbox.schema import NoSQLiteError, check_sqlite

_current: Dispatcher | None = None


def current() -> Dispatcher:
    """Return the process's dispatcher, made as the environment says.

    Raises:
        ValueError: If a variable of the environment cannot be used.
    """
    global _current  # noqa: PLW0603 - one per process is the point
    if _current is not None:
        return _current
    with shared("dispatcher"):
        if _current is not None:
            return _current
        dispatcher, trouble = _make(DeliverySettings.from_environment())
        _close_at_exit()
        _current = dispatcher
    # Without the lock, for a logging handler may ask for the health.
    if trouble is not None:
        dispatcher.notices.warn("disk", "What is sealed waits in memory: %s", trouble)
    if dispatcher.state is not None:
        dispatcher.state.warn_if_exposed(dispatcher.notices)
    elif dispatcher.settings.share in SHARED:
        dispatcher.notices.warn(
            "share",
            "PEAKHOLD_SHARE needs the outbox on disk, which there is not: each "
            "process reports windows of its own. Set PEAKHOLD_DURABILITY to process "
            "and PEAKHOLD_STATE_DIR to a directory that all of them can write",
        )
    return dispatcher


def _make(settings: DeliverySettings) -> tuple[Dispatcher, Exception | None]:
    """Return a dispatcher, and why it has no outbox on disk if it should have one."""
    if settings.durability == "memory":
        return Dispatcher(None, settings), None
    try:
        check_sqlite()
        return Dispatcher(StateDirectory(settings.directory()), settings), None
    except (NoSQLiteError, NoStateDirectoryError) as error:
        return Dispatcher(None, settings), error


def _close() -> None:
    if _current is not None:
        _current.close()


def _close_at_exit() -> None:
    # Children of multiprocessing leave by os._exit, past atexit.
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        from multiprocessing.util import Finalize

        Finalize(None, _close, exitpriority=0)


def _after_fork_in_child() -> None:
    """Start anew: what the parent sealed is the parent's to deliver."""
    global _current  # noqa: PLW0603 - see current
    _current = None


atexit.register(_close)
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
