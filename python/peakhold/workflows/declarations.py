"""What the blocks declare beside their properties, in the terms of each host.

Hosts differ in what a manifest can declare; what a host has no word for is left out.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any
from urllib.parse import urlsplit

from peakhold.roboflow import Settings
from peakhold.roboflow.settings import DEFAULT_API_BASE_URL
from peakhold.workflows.clients import settings_of_inference
from peakhold.workflows.descriptions import AGGREGATION_NOTE
from peakhold.workflows.host import Host, inference_is_imported

_AGGREGATION_CODE = "aggregation_buffer_resets_on_stateless_http"
_ROBOFLOW_DOMAINS = ("roboflow.com", "roboflow.one")


def uses_tensors(host: Host) -> bool:
    """Whether this host hands over predictions as tensors."""
    if host.names_by_plugin:
        from importlib import import_module

        environment: Any = import_module("inference.core.env")
    else:
        environment = host.part("environment")
    return bool(getattr(environment, "ENABLE_TENSOR_DATA_REPRESENTATION", False))


def prediction_kinds(host: Host) -> list[Any]:
    """Return the kinds of the predictions that the blocks take."""
    names = (
        "OBJECT_DETECTION_PREDICTION_KIND",
        "INSTANCE_SEGMENTATION_PREDICTION_KIND",
        "KEYPOINT_DETECTION_PREDICTION_KIND",
        "CLASSIFICATION_PREDICTION_KIND",
    )
    if uses_tensors(host):
        native = host.part("execution_engine.entities.tensor_native_types")
        return [getattr(native, f"TENSOR_NATIVE_{name}") for name in names]
    types = host.part("execution_engine.entities.types")
    return [getattr(types, name) for name in names]


def status_outputs(host: Host) -> list[Any]:
    """Return what both blocks put out."""
    types = host.part("execution_engine.entities.types")
    definition = host.part("execution_engine.entities.base").OutputDefinition
    return [
        definition(name="error_status", kind=[types.BOOLEAN_KIND]),
        definition(name="message", kind=[types.STRING_KIND]),
    ]


def air_gapped_availability(host: Host) -> Any:
    """Return whether the blocks work without the internet, as configured now."""
    availability = host.part("prototypes.block").AirGappedAvailability
    if _reports_to_roboflow():
        return availability(available=False, reason="requires_internet")
    return availability(available=True)


def aggregation_restrictions(host: Host, *, any_execution: bool) -> list[Any]:
    """Return where aggregating is of less use than elsewhere.

    Args:
        host: In whose terms.
        any_execution: Whether it matters not where models run; editors are told it
            does.
    """
    block = host.part("prototypes.block")
    arguments: dict[str, Any] = {
        "severity": block.Severity.SOFT,
        "note": AGGREGATION_NOTE,
        "applies_to_runtimes": [
            block.Runtime.HOSTED_SERVERLESS,
            block.Runtime.DEDICATED_DEPLOYMENT,
        ],
        "applies_to_input_modes": [block.RuntimeInputMode.VIDEO],
    }
    if not any_execution:
        remote = block.StepExecutionMode.REMOTE
        arguments["applies_to_step_execution_modes"] = [remote]
    if "code" in {field.name for field in fields(block.RuntimeRestriction)}:
        arguments["code"] = _AGGREGATION_CODE
    return [
        block.RuntimeRestriction(**arguments),
        block.STILL_IMAGE_INPUT_SOFT_RESTRICTION,
    ]


def model_access(host: Host, model_id: str) -> list[Any]:
    """Return the model that reports name: it has to exist, and runs nothing."""
    block = host.part("prototypes.block")
    action = block.ModelRequiredAction.ACCESS
    return [block.roboflow_platform_model(model_id=model_id, required_action=action)]


def _reports_to_roboflow() -> bool:
    try:
        url = (
            settings_of_inference()
            if inference_is_imported()
            else Settings.from_environment()
        ).api_base_url
    except ValueError:
        # The block says so when it is made; listing the blocks must not fail of it.
        url = DEFAULT_API_BASE_URL
    name = (urlsplit(url).hostname or "").rstrip(".")
    return any(
        name == domain or name.endswith(f".{domain}") for domain in _ROBOFLOW_DOMAINS
    )
