"""The host of this environment: where its parts are, under one name each."""

from __future__ import annotations

import importlib
import os
from functools import cached_property
from importlib.util import find_spec
from typing import Any

API_KEY = "host-test-key"
AGGREGATOR = "roboflow_core/model_monitoring_inference_aggregator@v1"
METADATA = "roboflow_core/roboflow_custom_metadata@v1"
PLUGIN = "peakhold.workflows"

QUIET = {
    "TELEMETRY_OPT_OUT": "True",
    "METRICS_ENABLED": "False",
    "DISABLE_VERSION_CHECK": "True",
    # Nothing may leave this machine: what tries meets a closed port at once.
    "HTTP_PROXY": "http://127.0.0.1:9",
    "HTTPS_PROXY": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "NO_PROXY": "127.0.0.1,localhost",
    "no_proxy": "127.0.0.1,localhost",
}

IN_PLACE = {
    "WORKFLOWS_PLUGINS": PLUGIN,
    "WORKFLOW_DISABLED_BLOCK_PATTERNS": (
        "ModelMonitoringInferenceAggregator,RoboflowCustomMetadata"
    ),
}
"""The two variables of the README, spelt out rather than taken from the package."""


def is_installed() -> bool:
    """Whether there is any host here."""
    return find_spec("inference") is not None or is_standalone()


def is_standalone() -> bool:
    """Whether the host is `roboflow-workflows` without `inference`."""
    return (
        find_spec("inference") is None and find_spec("roboflow_workflows") is not None
    )


def prepare(api_base_url: str) -> None:
    """Put the plugin in place, as the README says, before the host is imported."""
    os.environ.update(QUIET)
    os.environ["API_BASE_URL"] = api_base_url
    os.environ["ROBOFLOW_API_KEY"] = API_KEY
    if is_standalone():
        importlib.import_module(PLUGIN).configure()
    else:
        os.environ.update(IN_PLACE)


class Host:
    """Modules and classes of the host, imported when they are first asked for."""

    def __init__(self) -> None:
        self.standalone = is_standalone()
        self.split = find_spec("roboflow_workflows") is not None
        self.package = "roboflow_workflows" if self.split else "inference"
        self.workflows = (
            "roboflow_workflows" if self.split else "inference.core.workflows"
        )

    def module(self, name: str) -> Any:
        """Import a module of the workflows package."""
        if not self.standalone:
            importlib.import_module("inference.core")
        return importlib.import_module(f"{self.workflows}.{name}")

    @cached_property
    def engine(self) -> Any:
        """The class `ExecutionEngine`."""
        return self.module("execution_engine.core").ExecutionEngine

    @cached_property
    def blocks_loader(self) -> Any:
        """The module that knows the blocks."""
        return self.module("execution_engine.introspection.blocks_loader")

    @cached_property
    def reference_aggregator(self) -> Any:
        """The module of the reference aggregator."""
        return self.module(
            "core_steps.sinks.roboflow.model_monitoring_inference_aggregator.v1"
        )

    @cached_property
    def reference_metadata(self) -> Any:
        """The module of the reference custom metadata block."""
        return self.module("core_steps.sinks.roboflow.custom_metadata.v1")

    def compile(self, definition: dict[str, Any], **parameters: Any) -> Any:
        """Compile a workflow; `parameters` are init parameters of both namespaces."""
        values = {"api_key": API_KEY, "background_tasks": None, **parameters}
        # Up to inference 1.5 a plugin's blocks have its own name as namespace.
        named = {
            f"{space}.{name}": value
            for space in ("workflows_core", PLUGIN)
            for name, value in values.items()
        }
        if not self.standalone and self.split:
            bindings = importlib.import_module(
                "inference.core.interfaces.roboflow_platform_client"
            )
            bindings.install_workflows_platform_bindings(named)
        return self.engine.init(
            workflow_definition=definition,
            init_parameters={"workflows_core.model_manager": None, **named},
        )


def steps_of(engine: Any) -> dict[str, Any]:
    """Return the block of each step of a compiled workflow by its name."""
    compiled = engine._engine._compiled_workflow
    return {name: made.step for name, made in compiled.steps.items()}
