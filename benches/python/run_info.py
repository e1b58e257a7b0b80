"""What the numbers of a run depend on."""

from __future__ import annotations

import platform
import shutil
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import numpy as np
import reference
import supervision as sv

import peakhold

_ROOT = Path(__file__).resolve().parents[2]


def run_info() -> dict[str, str]:
    """Return date, commit, machine, compiler and versions; no name of the machine."""
    packages = {
        "peakhold": peakhold.__version__,
        "NumPy": np.__version__,
        "supervision": sv.__version__,
        "requests": version("requests"),
        **reference.versions(),
    }
    return {
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "commit": _ask("git", "describe", "--always", "--dirty") or "none",
        "CPU": _cpu(),
        "system": f"{platform.system()}, {platform.machine()}",
        "compiler": _ask("rustc", "--version") or "none here",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "versions": ", ".join(f"{name} {number}" for name, number in packages.items()),
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if not info.exists():
        return platform.processor() or platform.machine()
    models = [
        line.partition(":")[2].strip()
        for line in info.read_text(encoding="utf-8").splitlines()
        if line.startswith("model name")
    ]
    return f"{models[0]}, {len(models)} threads" if models else platform.machine()


def _ask(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    done = subprocess.run(
        command, cwd=_ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()
