"""Waiting for what other threads and processes do."""

from __future__ import annotations

import time


def eventually(condition, timeout=30.0):
    """Wait until a condition holds; returns whether it does."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
