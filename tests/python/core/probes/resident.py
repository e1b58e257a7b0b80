"""What this process keeps in memory, and the most it ever kept, in bytes."""

from __future__ import annotations

import gc
import resource
import sys
from pathlib import Path

KIB = 1024
STATUS = Path("/proc/self/status")


def _status(field: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * KIB
    message = f"{STATUS} has no {field}"
    raise LookupError(message)


def now() -> int:
    """Return the resident memory, after a garbage collection (Linux only)."""
    gc.collect()
    return _status("VmRSS:")


def reset_peak() -> None:
    """Let `peak` start again from what is resident now, where the system can."""
    if STATUS.exists():
        Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Return the most memory that was resident, since `reset_peak` on Linux."""
    if STATUS.exists():
        return _status("VmHWM:")
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage if sys.platform == "darwin" else usage * KIB
