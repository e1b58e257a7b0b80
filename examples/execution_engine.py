# /// script
# requires-python = ">=3.10,<3.13"
# dependencies = ["numpy", "peakhold", "roboflow-workflows>=0.2"]
#
# [tool.uv.sources]
# peakhold = { path = ".." }
# ///
"""A workflow through the `ExecutionEngine` of `roboflow-workflows`, without a server.

    uv run examples/execution_engine.py

One call puts peakhold in place of the reference blocks; the workflow is unchanged.
"""

from __future__ import annotations

import os
import time

import numpy as np

# A monitor on this machine: peakhold monitor --port 8100
os.environ.setdefault("API_BASE_URL", "http://127.0.0.1:8100")
os.environ.setdefault("ROBOFLOW_API_KEY", "any")

import peakhold.workflows

peakhold.workflows.configure()

# After `configure`, because the engine fixes its configuration when it is imported.
from roboflow_workflows.execution_engine.core import ExecutionEngine  # noqa: E402

WORKFLOW = {
    "version": "1.4.0",
    "inputs": [
        {"type": "WorkflowImage", "name": "image"},
        {"type": "WorkflowParameter", "name": "model", "default_value": "motion/1"},
    ],
    "steps": [
        {
            "type": "roboflow_core/motion_detection@v1",
            "name": "motion",
            "image": "$inputs.image",
            "history": 10,
        },
        {
            "type": "roboflow_core/model_monitoring_inference_aggregator@v1",
            "name": "monitoring",
            "predictions": "$steps.motion.detections",
            "model_id": "$inputs.model",
            "frequency": 1,
            "unique_aggregator_key": "execution-engine",
        },
    ],
    "outputs": [
        {
            "type": "JsonField",
            "name": "monitoring",
            "selector": "$steps.monitoring.message",
        }
    ],
}


def main() -> None:
    """Run the workflow on frames in which a square moves."""
    engine = ExecutionEngine.init(
        workflow_definition=WORKFLOW,
        init_parameters={
            "workflows_core.model_manager": None,
            "workflows_core.api_key": os.environ["ROBOFLOW_API_KEY"],
        },
    )
    background = np.random.default_rng(0).integers(90, 110, (240, 320, 3), np.uint8)
    messages: dict[str, int] = {}
    for number in range(150):
        frame = background.copy()
        left = 5 * number % 260
        frame[80:140, left : left + 60] = 30, 200, 240
        (answer,) = engine.run(runtime_parameters={"image": frame})
        message = answer["monitoring"]
        messages[message] = messages.get(message, 0) + 1
        time.sleep(0.02)
    for message, count in messages.items():
        print(f"{count:4} x {message}")
    print(f"what arrived: {os.environ['API_BASE_URL']}/dashboard")


if __name__ == "__main__":
    main()
