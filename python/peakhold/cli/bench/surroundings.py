"""Surroundings of its own for a benchmark: no variable and no state of the user's."""

from __future__ import annotations

import os
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from peakhold.delivery import current

if TYPE_CHECKING:
    from collections.abc import Iterator

_STATE_VARIABLE = "PEAKHOLD_STATE_DIR"


@contextmanager
def own_surroundings() -> Iterator[None]:
    """Drop the variables the library reads by itself, and keep its state apart.

    They are this process's copies; nothing outside it changes.
    """
    for name in [name for name in os.environ if name.startswith("PEAKHOLD_")]:
        del os.environ[name]
    # Windows removes no file that somebody still has open.
    with TemporaryDirectory(prefix="peakhold-", ignore_cleanup_errors=True) as path:
        os.environ[_STATE_VARIABLE] = path
        try:
            yield
        finally:
            current().close(0)  # else it is at exit that the directory is used last
