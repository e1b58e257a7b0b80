"""The HTTP server of `inference`, put together as its own images do, under uvicorn.

    python server_app.py PORT

The working directory gets the directories that the server wants to serve files from.
"""

from __future__ import annotations

import sys
from pathlib import Path

import uvicorn

if __name__ == "__main__":
    Path("inference/landing/out/static").mkdir(parents=True, exist_ok=True)
    Path("inference/landing/out/_next/static").mkdir(parents=True, exist_ok=True)

    from inference.core.interfaces.http.http_api import HttpInterface
    from inference.core.managers.base import ModelManager
    from inference.core.registries.roboflow import RoboflowModelRegistry
    from inference.models.utils import ROBOFLOW_MODEL_TYPES

    registry = RoboflowModelRegistry(ROBOFLOW_MODEL_TYPES)
    interface = HttpInterface(ModelManager(model_registry=registry))
    uvicorn.run(
        interface.app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning"
    )
