"""Makes the helper modules of this folder importable by its tests.

The suite runs with `--import-mode=importlib`, which puts no folder on `sys.path`; the
helpers are loaded by path, under names that no other module has.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, settings

HERE = Path(__file__).parent

# The machines that run this are shared and small: no deadline for one example.
settings.register_profile(
    "core", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def _load(name: str, path: Path) -> None:
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


_load("core_columns", HERE / "columns.py")
_load("core_frames", HERE / "frames.py")
_load("core_model", HERE / "model.py")
_load("core_streams", HERE / "streams.py")


class RunProbe(Protocol):
    """The signature of the ``run_probe`` fixture."""

    def __call__(self, probe: str, *arguments: str) -> dict[str, Any]:
        """Run a probe, see ``run_probe``."""


@pytest.fixture(scope="session")
def run_probe() -> RunProbe:
    """Run a script of `probes/` in a process of its own; returns the JSON it prints.

    Memory is measured where nothing else has allocated any, and first occurrences
    where nothing has occurred yet.
    """

    def run(probe: str, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(HERE / "probes" / probe), *arguments],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    return run
