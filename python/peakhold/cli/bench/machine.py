"""What the figures depend on: machine and versions."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from peakhold._peakhold import __version__, build_profile


def describe_machine() -> dict[str, str]:
    """Return date, machine and versions, by their names."""
    return {
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "cpu": f"{_cpu()}, {os.cpu_count()} threads",
        "platform": platform.platform(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "numpy": version("numpy"),
        "supervision": version("supervision"),
        "peakhold": f"{__version__}, {build_profile} build",
    }


def _cpu() -> str:
    # Linux alone has it here, and alone does not have it in `platform`.
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
