# /// script
# requires-python = ">=3.10,<3.13"
# dependencies = [
#     "inference-core[http]",
#     "onnxruntime",
#     "peakhold",
#     "requests",
#     "uvicorn",
# ]
#
# [tool.uv.sources]
# peakhold = { path = ".." }
# ///
"""A workflow through the HTTP server of `inference`: 50 requests, a window or two.

    uv run examples/http_server.py

The server makes new blocks for every request; with peakhold they share a window. The
call of `configure` stands for the two variables of the README, which do the same from
outside, in a container for example.
"""

from __future__ import annotations

import os
import socket
import tempfile
import threading
import time
from pathlib import Path

import requests
import uvicorn

# A monitor on this machine: peakhold monitor --port 8100
os.environ.setdefault("API_BASE_URL", "http://127.0.0.1:8100")
os.environ.setdefault("ROBOFLOW_API_KEY", "any")

import peakhold.workflows

peakhold.workflows.configure()

REQUESTS = 50
WORKFLOW = {
    "version": "1.4.0",
    "inputs": [
        {
            "type": "WorkflowBatchInput",
            "name": "predictions",
            "kind": ["classification_prediction"],
        },
        {"type": "WorkflowParameter", "name": "model"},
    ],
    "steps": [
        {
            "type": "roboflow_core/model_monitoring_inference_aggregator@v1",
            "name": "monitoring",
            "predictions": "$inputs.predictions",
            "model_id": "$inputs.model",
            "frequency": 1,
            "unique_aggregator_key": "http-server",
        },
        {
            "type": "roboflow_core/roboflow_custom_metadata@v1",
            "name": "metadata",
            "predictions": "$inputs.predictions",
            "field_name": "line",
            "field_value": "7",
        },
    ],
    "outputs": [
        {"type": "JsonField", "name": name, "selector": f"$steps.{name}.message"}
        for name in ("monitoring", "metadata")
    ],
}


def make_server() -> uvicorn.Server:
    """Put the server together as the images of `inference` do."""
    # It serves its pages from here; the wheel has none.
    for pages in ("out/static", "out/_next/static"):
        Path("inference/landing", pages).mkdir(parents=True)

    from inference.core.interfaces.http.http_api import HttpInterface
    from inference.core.managers.base import ModelManager
    from inference.core.registries.roboflow import RoboflowModelRegistry
    from inference.models.utils import ROBOFLOW_MODEL_TYPES

    manager = ModelManager(model_registry=RoboflowModelRegistry(ROBOFLOW_MODEL_TYPES))
    config = uvicorn.Config(HttpInterface(manager).app, log_level="warning")
    return uvicorn.Server(config)


def request_body(number: int) -> dict[str, object]:
    """Return a request with the workflow and one recorded classification."""
    name = f"product-{number % 10}"
    prediction = {
        "image": {"width": 640, "height": 480},
        "predictions": [{"class": name, "class_id": 0, "confidence": 0.9}],
        "top": name,
        "confidence": 0.9,
        "inference_id": f"request-{number}",
    }
    return {
        "specification": WORKFLOW,
        "api_key": os.environ["ROBOFLOW_API_KEY"],
        "inputs": {"predictions": [prediction], "model": "products/2"},
    }


def main() -> None:
    """Start the server, send the requests, stop it."""
    server = make_server()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            while thread.is_alive() and not server.started:
                time.sleep(0.1)
            for number in range(REQUESTS):
                answer = requests.post(
                    f"{url}/workflows/run", json=request_body(number), timeout=60
                )
                answer.raise_for_status()
        finally:
            server.should_exit = True
            thread.join()
    print(f"{REQUESTS} requests, the last answer: {answer.json()['outputs'][0]}")
    print(f"what arrived: {os.environ['API_BASE_URL']}/dashboard")


if __name__ == "__main__":
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        main()
        os.chdir(home)
