"""The HTTP server of `inference`, put together as its own images do, under uvicorn.

    python server_app.py PORT [WORKERS]

The working directory gets the directories that the server wants to serve files from.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.supervisors.multiprocess import Process

START = 240.0
"""Seconds for a worker to import the server, which keeps it from saying that it lives:
uvicorn would kill it after five, and begin again."""


def make() -> Any:
    """Return the application; each worker makes its own."""
    from inference.core.interfaces.http.http_api import HttpInterface
    from inference.core.managers.base import ModelManager
    from inference.core.registries.roboflow import RoboflowModelRegistry
    from inference.models.utils import ROBOFLOW_MODEL_TYPES

    registry = RoboflowModelRegistry(ROBOFLOW_MODEL_TYPES)
    return HttpInterface(ModelManager(model_registry=registry)).app


if __name__ == "__main__":
    Path("inference/landing/out/static").mkdir(parents=True, exist_ok=True)
    Path("inference/landing/out/_next/static").mkdir(parents=True, exist_ok=True)
    workers = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    Process.is_alive.__defaults__ = (START,)
    uvicorn.run(
        "server_app:make" if workers > 1 else make(),
        factory=workers > 1,
        workers=workers,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
    )
