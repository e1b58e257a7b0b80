"""Time of a workflow whose only step is the sink: what peakhold cannot make quicker.

    python engine.py URL STATE

Prints microseconds of one call of the engine. In an interpreter of its own, because
the engine fixes its configuration when it is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from time import perf_counter_ns
from typing import TYPE_CHECKING

import frames as make
import reference
import sinks

if TYPE_CHECKING:
    from measuring import Line, Surroundings

_WARM_UP = 50
_CALLS = 500
_WORKFLOW = {
    "version": "1.4.0",
    "inputs": [{"type": "WorkflowBatchInput", "name": "predictions", "kind": ["*"]}],
    "steps": [
        {
            "type": "roboflow_core/model_monitoring_inference_aggregator@v1",
            "name": "monitoring",
            "predictions": "$inputs.predictions",
            "model_id": make.MODEL_ID,
            "frequency": sinks.NEVER,
            "unique_aggregator_key": "engine",
        }
    ],
    "outputs": [
        {"type": "JsonField", "name": "monitoring", "selector": "$steps.monitoring.*"}
    ],
}


def engine_call(line: Line, around: Surroundings) -> None:
    """Note the microseconds of a call, where there is an engine."""
    if not reference.installed():
        return
    with sinks.scratch() as state:
        done = subprocess.run(
            # It warns at length while it is imported, and logs.
            [sys.executable, "-W", "ignore", __file__, around.server.url, state],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"no engine could be called:\n{done.stderr}")
    line.engine_call = float(done.stdout.splitlines()[-1])
    print(f"a call of the engine with the sink alone: {line.engine_call:,.0f} us")


def main(url: str, state: str) -> None:
    """Measure in this interpreter."""
    sinks.connect(url, state)
    import peakhold.workflows

    peakhold.workflows.configure()
    from roboflow_workflows.execution_engine.core import ExecutionEngine

    engine = ExecutionEngine.init(
        workflow_definition=_WORKFLOW,
        init_parameters={
            "workflows_core.model_manager": None,
            "workflows_core.api_key": os.environ["ROBOFLOW_API_KEY"],
        },
    )
    frames = make.several(make.detections, 10)
    times = []
    for number in range(_WARM_UP + _CALLS):
        parameters = {"predictions": [frames[number % len(frames)]]}
        began = perf_counter_ns()
        engine.run(runtime_parameters=parameters)
        times.append(perf_counter_ns() - began)
    print(sorted(times[_WARM_UP:])[_CALLS // 2] / 1000)
    sinks.finish()


if __name__ == "__main__":
    main(*sys.argv[1:])
