"""The process's dispatcher: made when first asked for, replaced after a fork."""

from __future__ import annotations

import atexit
import os
import sys
import threading

from peakhold.delivery.dispatcher import METADATA_REQUESTS_PER_SECOND, Dispatcher

METADATA_RATE_VARIABLE = "PEAKHOLD_METADATA_REQUESTS_PER_SECOND"

_lock = threading.Lock()
_current: Dispatcher | None = None


def current() -> Dispatcher:
    """Return the process's dispatcher.

    Raises:
        ValueError: If ``PEAKHOLD_METADATA_REQUESTS_PER_SECOND`` is not a number
            above 0.
    """
    global _current  # noqa: PLW0603 - one per process is the point
    if _current is None:
        with _lock:
            if _current is None:
                _current = Dispatcher(metadata_rate=_metadata_rate())
                _close_at_exit()
    return _current


def _metadata_rate() -> float:
    text = os.environ.get(METADATA_RATE_VARIABLE, "").strip()
    if not text:
        return METADATA_REQUESTS_PER_SECOND
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.0 < rate < float("inf"):
        message = (
            f"{METADATA_RATE_VARIABLE} must be a number above 0, the metadata requests "
            f"a second and destination, not {text!r}"
        )
        raise ValueError(message)
    return rate


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
    global _lock, _current  # noqa: PLW0603 - see current
    _lock = threading.Lock()
    _current = None


atexit.register(_close)
if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
