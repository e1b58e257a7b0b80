"""How much memory the process has."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from peakhold.cli.errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Callable

_STATM = Path("/proc/self/statm")


def memory_gauge() -> tuple[Callable[[], int], str]:
    """Return a function that reads the memory in bytes, and what it reads.

    Linux tells how much is resident now. Elsewhere, without a package for it, the
    system tells only the most that ever was; its growth is still seen, but what was
    given back is not. Windows tells neither to Python.

    Raises:
        CommandError: The system tells nothing.
    """
    if _STATM.exists():
        return _resident_now, "resident memory"
    try:
        import resource
    except ImportError as error:
        raise CommandError(
            "--soak cannot read the memory of a process on this system: run it on "
            "Linux or macOS"
        ) from error
    # The unit is the kernel's: bytes on macOS, kilobytes elsewhere.
    unit = 1 if sys.platform == "darwin" else 1024

    def highest() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    return highest, "highest resident memory so far"


def _resident_now() -> int:
    pages = int(_STATM.read_bytes().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
