"""The plugin in its host: in place by the README's means, side by side without."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from host import AGGREGATOR, IN_PLACE, METADATA, PLUGIN, steps_of

SIDE_BY_SIDE = {
    AGGREGATOR: "peakhold/model_monitoring_inference_aggregator@v1",
    METADATA: "peakhold/roboflow_custom_metadata@v1",
}
DOCUMENTED = {
    "name": "x",
    "type": "roboflow_core/model_monitoring_inference_aggregator@v1",
    "predictions": "$steps.object_detection.predictions",
    "model_id": "my_project/3",
    "frequency": 3,
    "unique_aggregator_key": "session-1v73kdhfse",
    "fire_and_forget": True,
}


def workflow(*steps, inputs=()):
    return {
        "version": "1.4.0",
        "inputs": [
            {
                "type": "WorkflowBatchInput",
                "name": "predictions",
                "kind": ["object_detection_prediction"],
            },
            {"type": "WorkflowParameter", "name": "model"},
            *inputs,
        ],
        "steps": list(steps),
        "outputs": [
            {
                "type": "JsonField",
                "name": "answer",
                "selector": f"$steps.{steps[-1]['name']}.message",
            }
        ],
    }


def both_sinks(names=None):
    """Return both steps, under other type identifiers if `names` says so."""
    names = names or {}
    return (
        {
            "type": names.get(AGGREGATOR, AGGREGATOR),
            "name": f"monitoring_{len(names)}",
            "predictions": "$inputs.predictions",
            "model_id": "$inputs.model",
            "unique_aggregator_key": f"loading-{len(names)}",
        },
        {
            "type": names.get(METADATA, METADATA),
            "name": f"metadata_{len(names)}",
            "predictions": "$inputs.predictions",
            "field_name": "line",
            "field_value": "7",
        },
    )


def sources(engine):
    return {
        name: type(step).__module__.partition(".")[0]
        for name, step in steps_of(engine).items()
    }


def test_both_blocks_of_a_workflow_are_ours(host):
    assert set(sources(host.compile(workflow(*both_sinks()))).values()) == {"peakhold"}


def test_the_identifiers_of_our_own_work_in_place_too(host):
    engine = host.compile(workflow(*both_sinks(SIDE_BY_SIDE)))
    assert set(sources(engine).values()) == {"peakhold"}


def test_the_reference_classes_are_not_in_the_engine(host):
    known = [block.block_class for block in host.blocks_loader.load_workflow_blocks()]
    references = {
        host.reference_aggregator.ModelMonitoringInferenceAggregatorBlockV1,
        host.reference_metadata.RoboflowCustomMetadataBlockV1,
    }
    assert not references & set(known)
    # The control: the comparison would find a class of the host's own.
    others = [block for block in known if block.__module__.startswith(host.workflows)]
    assert len(others) > 50


def test_the_documented_example_compiles(host):
    # A step of that name gives the predictions; motion detection needs no weights.
    motion = {
        "type": "roboflow_core/motion_detection@v1",
        "name": "object_detection",
        "image": "$inputs.image",
    }
    documented = DOCUMENTED | {"predictions": "$steps.object_detection.detections"}
    image = {"type": "WorkflowImage", "name": "image"}
    engine = host.compile(workflow(motion, documented, inputs=[image]))
    assert sources(engine)["x"] == "peakhold"


def test_the_documented_example_is_a_valid_manifest_as_it_stands(host):
    manifests = manifests_by_type(host)
    manifest = manifests[AGGREGATOR].model_validate(DOCUMENTED)
    assert manifest.model_id == "my_project/3"
    with pytest.raises(ValueError, match="cannot be empty"):
        manifests[AGGREGATOR].model_validate(DOCUMENTED | {"model_id": ""})
    # The control, and the reason for the literal: the reference rejects it.
    with pytest.raises(ValueError, match="model_id"):
        host.reference_aggregator.BlockManifest.model_validate(DOCUMENTED)


def manifests_by_type(host):
    described = host.blocks_loader.describe_available_blocks(dynamic_blocks=[])
    return {
        identifier: block.manifest_class
        for block in described.blocks
        if block.block_class.__module__.startswith("peakhold")
        for identifier in (
            block.manifest_type_identifier,
            *block.manifest_type_identifier_aliases,
        )
    }


WORDS = {"description", "long_description", "short_description", "examples", "title"}


def shape(schema):
    """Return a schema without what is said in words."""
    if isinstance(schema, dict):
        return {
            key: shape(value)
            for key, value in schema.items()
            if key not in WORDS or not isinstance(value, str | list)
        }
    return [shape(item) for item in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize(
    ("identifier", "module"),
    [(AGGREGATOR, "reference_aggregator"), (METADATA, "reference_metadata")],
)
def test_ours_is_described_as_the_reference_is(host, identifier, module):
    ours = manifests_by_type(host)[identifier]
    theirs = getattr(host, module).BlockManifest
    our_schema, their_schema = (
        shape(manifest.model_json_schema()) for manifest in (ours, theirs)
    )
    our_properties, their_properties = (
        schema.pop("properties") for schema in (our_schema, their_schema)
    )
    assert list(our_properties) == list(their_properties)
    different = {
        name
        for name in our_properties
        if our_properties[name] != their_properties[name]
    }
    for name in different:
        # Shown where the test fails.
        print(name, our_properties[name], their_properties[name])  # noqa: T201
    if identifier == AGGREGATOR:
        # The literal model id, and our side-by-side name of the type.
        assert different == {"model_id", "type"}
        literal = {"type": "string"}
        alternatives = our_properties["model_id"]["anyOf"]
        assert literal in alternatives
        alternatives.remove(literal)
        assert their_properties["model_id"] in (
            {**our_properties["model_id"], "anyOf": alternatives},
            *alternatives,
        )
    else:
        assert different == {"type"}
    assert our_schema == their_schema
    assert ours.describe_outputs() == theirs.describe_outputs()
    assert (
        ours.get_execution_engine_compatibility()
        == theirs.get_execution_engine_compatibility()
    )


CHILD = f"""
import json, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import host as hosting
import test_loading as loading

host = hosting.Host()
engine = host.compile(
    loading.workflow(
        *loading.both_sinks(), *loading.both_sinks(loading.SIDE_BY_SIDE)
    )
)
print("ANSWER", json.dumps(loading.sources(engine)))
import peakhold.workflows
try:
    peakhold.workflows.configure()
except Exception as error:
    print("ANSWER", json.dumps(str(error)))
"""


def run_without_removal(monitor, **settings):
    """Run CHILD with the plugin only: nothing removes the reference blocks."""
    environment = {
        key: value for key, value in os.environ.items() if key not in IN_PLACE
    }
    return subprocess.run(
        [sys.executable, "-c", CHILD],
        env=environment
        | {"WORKFLOWS_PLUGINS": PLUGIN, "API_BASE_URL": monitor.url}
        | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_without_removal_both_stand_side_by_side_and_it_is_said(host, monitor):
    done = run_without_removal(monitor)
    assert done.returncode == 0, done.stderr
    found, error = (
        json.loads(line.removeprefix("ANSWER "))
        for line in done.stdout.splitlines()
        if line.startswith("ANSWER ")
    )
    assert found == {
        "monitoring_0": host.package,
        "metadata_0": host.package,
        "monitoring_2": "peakhold",
        "metadata_2": "peakhold",
    }
    # Too late to remove anything: the engine is there.
    assert "too late" in error
    assert "peakhold" in done.stderr + done.stdout


def test_in_place_can_be_demanded(host, monitor):
    done = run_without_removal(monitor, PEAKHOLD_IN_PLACE="1")
    assert done.returncode != 0
    assert "NotInPlaceError" in done.stderr
