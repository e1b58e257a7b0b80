"""The plugin as its host loads it, in place of the reference blocks."""

from __future__ import annotations

import json
import sys
import uuid

import pytest
from host import AGGREGATOR, API_KEY, METADATA, PLUGIN, steps_of

OWN_AGGREGATOR = "peakhold/model_monitoring_inference_aggregator@v1"
OWN_METADATA = "peakhold/roboflow_custom_metadata@v1"
AGGREGATORS = (AGGREGATOR, OWN_AGGREGATOR)
METADATA_BLOCKS = (METADATA, "RoboflowCustomMetadata", OWN_METADATA)

DOCUMENTED = {
    "name": "x",
    "type": "roboflow_core/model_monitoring_inference_aggregator@v1",
    "predictions": "$steps.object_detection.predictions",
    "model_id": "my_project/3",
    "frequency": 3,
    "unique_aggregator_key": "session-1v73kdhfse",
    "fire_and_forget": True,
}
"""The example of the block's own documentation."""


@pytest.fixture(scope="session")
def plugin(host):
    host.module("execution_engine.introspection.blocks_loader")
    return __import__(PLUGIN, fromlist=["load_blocks"])


@pytest.fixture(scope="session")
def ours(plugin):
    """The blocks that have a reference."""
    aggregator, metadata, _ = plugin.load_blocks()
    return {"aggregator": aggregator, "metadata": metadata}


@pytest.fixture(scope="session")
def reference(host):
    return {
        "aggregator": host.reference_aggregator.BlockManifest,
        "metadata": host.reference_metadata.BlockManifest,
    }


def workflow(*steps):
    return {
        "version": "1.4.0",
        "inputs": [
            {"type": "WorkflowBatchInput", "name": "predictions", "kind": ["*"]},
            {"type": "WorkflowParameter", "name": "model_id"},
        ],
        "steps": list(steps),
        "outputs": [
            {
                "type": "JsonField",
                "name": step["name"],
                "selector": f"$steps.{step['name']}.*",
            }
            for step in steps
        ],
    }


def aggregator_step(name, kind, **properties):
    return {
        "type": kind,
        "name": name,
        "predictions": "$inputs.predictions",
        "model_id": "gate/1",
        "unique_aggregator_key": uuid.uuid4().hex,
        **properties,
    }


def metadata_step(name, kind, **properties):
    return {
        "type": kind,
        "name": name,
        "predictions": "$inputs.predictions",
        "field_name": "lot",
        "field_value": "7",
        **properties,
    }


def test_every_identifier_runs_our_block(host, ours):
    steps = [
        *(aggregator_step(f"a{at}", kind) for at, kind in enumerate(AGGREGATORS)),
        *(metadata_step(f"m{at}", kind) for at, kind in enumerate(METADATA_BLOCKS)),
    ]
    made = steps_of(host.compile(workflow(*steps)))
    assert len(made) == len(steps)
    for name, step in made.items():
        kind = "aggregator" if name.startswith("a") else "metadata"
        assert type(step) is ours[kind]
        assert type(step).__module__ == "peakhold.workflows.blocks"


def test_the_reference_blocks_are_not_in_the_engine(host, ours):
    classes = {b.block_class for b in host.blocks_loader.load_workflow_blocks()}
    assert set(ours.values()) <= classes
    assert not classes & {
        host.reference_aggregator.ModelMonitoringInferenceAggregatorBlockV1,
        host.reference_metadata.RoboflowCustomMetadataBlockV1,
    }
    # The control: other blocks of the host are.
    assert len(classes) > 50


def test_the_blocks_are_blocks_of_the_host(host, ours):
    prototypes = host.module("prototypes.block")
    for block in ours.values():
        assert issubclass(block, prototypes.WorkflowBlock)
        assert issubclass(block.get_manifest(), prototypes.WorkflowBlockManifest)


def test_the_documented_example_compiles(host, ours):
    step = {**DOCUMENTED, "predictions": "$inputs.predictions"}
    made = steps_of(host.compile(workflow(step)))
    assert type(made["x"]) is ours["aggregator"]
    manifest = ours["aggregator"].get_manifest().model_validate(DOCUMENTED)
    assert manifest.model_dump() == DOCUMENTED


def test_a_selected_model_id_compiles_too(host, ours):
    step = aggregator_step("x", AGGREGATOR, model_id="$inputs.model_id")
    assert type(steps_of(host.compile(workflow(step)))["x"]) is ours["aggregator"]


@pytest.mark.parametrize(
    ("properties", "complaint"),
    [
        ({"frequency": 0}, "`frequency` cannot be lower than 1."),
        ({"frequency": -3}, "`frequency` cannot be lower than 1."),
        ({"model_id": ""}, "`model_id` cannot be empty."),
    ],
)
def test_a_property_that_cannot_be_is_refused(ours, properties, complaint):
    manifest = ours["aggregator"].get_manifest()
    with pytest.raises(ValueError, match=complaint):
        manifest.model_validate({**DOCUMENTED, **properties})
    # The control: it is that property.
    manifest.model_validate({**DOCUMENTED, "frequency": 1, "model_id": "a/1"})


def test_the_plugin_gives_the_same_blocks_every_time(plugin, ours):
    first, second = plugin.load_blocks(), plugin.load_blocks()
    assert first == second
    assert first[:2] == list(ours.values())
    assert len(first) == 3
    first.clear()  # a host may do what it likes with its list
    assert plugin.load_blocks() == second


def test_the_namespace_is_the_hosts(host, plugin):
    assert plugin.BLOCKS_SOURCE == "workflows_core"
    ours = [
        block
        for block in host.blocks_loader.load_workflow_blocks()
        if block.block_class in plugin.load_blocks()
    ]
    assert [block.block_source for block in ours] == [
        "workflows_core" if host.split else PLUGIN
    ] * 3
    initial = host.module("core_steps.loader").REGISTERED_INITIALIZERS
    if host.split:
        assert plugin.REGISTERED_INITIALIZERS == {}
    else:
        assert len(plugin.REGISTERED_INITIALIZERS) == 5
        for name, value in plugin.REGISTERED_INITIALIZERS.items():
            assert value() is initial[name], name
        assert plugin.REGISTERED_INITIALIZERS["api_key"]() == API_KEY


def named(block):
    return block.model_json_schema()["properties"]


def stripped(value):
    """Return a schema without its prose."""
    if isinstance(value, dict):
        prose = {"description", "examples", "docs", "long_description"}
        prose |= {"short_description", "title"}
        return {k: stripped(v) for k, v in value.items() if k not in prose}
    if isinstance(value, list):
        return [stripped(item) for item in value]
    return value


@pytest.mark.parametrize("kind", ["aggregator", "metadata"])
def test_the_manifest_is_the_references_but_for_the_literal_model_id(
    ours, reference, kind
):
    mine = stripped(ours[kind].get_manifest().model_json_schema())
    theirs = stripped(reference[kind].model_json_schema())
    own = mine["properties"].pop("type")["enum"]
    their_type = theirs["properties"].pop("type")
    assert own[:-1] == (their_type.get("enum") or [their_type["const"]])
    assert own[-1].startswith("peakhold/")
    if kind == "aggregator":
        choices = mine["properties"]["model_id"].pop("anyOf")
        assert choices == [theirs["properties"].pop("model_id"), {"type": "string"}]
        assert mine["properties"].pop("model_id") == {}
    assert json.dumps(mine, indent=1) == json.dumps(theirs, indent=1)


@pytest.mark.parametrize("kind", ["aggregator", "metadata"])
def test_the_descriptions_are_our_own(ours, reference, kind):
    mine = ours[kind].get_manifest().model_json_schema()
    theirs = reference[kind].model_json_schema()
    for name, described in mine["properties"].items():
        if name not in {"name", "type"}:
            assert described["description"], name
            assert described["description"] != theirs["properties"][name]["description"]
    for name in ("short_description", "long_description"):
        assert mine[name]
        assert mine[name] != theirs[name]


@pytest.mark.parametrize("kind", ["aggregator", "metadata"])
def test_outputs_and_compatibility_are_the_references(ours, reference, kind):
    mine, theirs = ours[kind].get_manifest(), reference[kind]
    assert mine.describe_outputs() == theirs.describe_outputs()
    assert [output.name for output in mine.describe_outputs()] == [
        "error_status",
        "message",
    ]
    assert (
        mine.get_execution_engine_compatibility()
        == theirs.get_execution_engine_compatibility()
        == ">=1.3.0,<2.0.0"
    )


def noteless(restrictions):
    """Return restrictions without their prose, their codes included if they have."""
    return [
        {**item.to_dict(), "note": None, "code": getattr(item, "code", None)}
        for item in restrictions
    ]


def test_what_else_the_reference_declares_ours_does(ours, reference):
    steps = {
        "aggregator": {"model_id": "$inputs.model_id", "unique_aggregator_key": "k"},
        "metadata": {"field_name": "lot", "field_value": "7"},
    }
    declared = []
    for kind, properties in steps.items():
        step = {"name": "x", "predictions": "$steps.m.predictions", **properties}
        step["type"] = AGGREGATOR if kind == "aggregator" else METADATA
        manifests = (ours[kind].get_manifest(), reference[kind])
        mine, theirs = (manifest.model_validate(step) for manifest in manifests)
        restrictions = noteless(mine.get_restrictions())
        assert restrictions == noteless(theirs.get_restrictions())
        declared += restrictions
        resources = mine.discover_dependent_resources()
        assert resources == theirs.discover_dependent_resources()
        declared += resources or []
        if hasattr(theirs, "discover_work_operations"):
            operations = mine.discover_work_operations()
            assert operations == theirs.discover_work_operations()
            declared += operations
        if hasattr(theirs, "get_actual_restrictions"):
            actual = mine.get_actual_restrictions()
            expected = theirs.get_actual_restrictions()
            assert noteless(actual.items) == noteless(expected.items)
            assert actual.complete is expected.complete is True
            declared += actual.items
    # The control: there was something to compare.
    assert len(declared) > 2


def test_a_literal_model_id_is_the_model_that_is_declared(ours):
    manifest = ours["aggregator"].get_manifest().model_validate(DOCUMENTED)
    (resource,) = manifest.discover_dependent_resources()
    assert resource.metadata.model_id == "my_project/3"
    assert resource.metadata.required_action.value == "access"


@pytest.mark.parametrize(
    ("url", "available"),
    [
        ("https://api.roboflow.com", False),
        ("https://api.roboflow.one", False),
        ("https://staging.roboflow.com/api", False),
        ("http://127.0.0.1:9001", True),
        ("https://monitor.example/roboflow.com", True),
        ("https://notroboflow.com", True),
    ],
)
def test_air_gapped_availability_follows_the_endpoint(
    host, ours, monkeypatch, url, available
):
    if host.standalone:
        monkeypatch.setenv("API_BASE_URL", url)
    else:
        api = sys.modules["inference.core.roboflow_api"]
        monkeypatch.setattr(api, "API_BASE_URL", url)
    for block in ours.values():
        declared = block.get_manifest().get_air_gapped_availability()
        assert declared.available is available
        assert declared.reason == (None if available else "requires_internet")


def test_without_an_api_key_the_aggregator_cannot_be_made(ours, monkeypatch, host):
    if host.standalone:
        # It reads no environment, so ours does.
        assert ours["aggregator"](api_key=None) is not None
        monkeypatch.delenv("ROBOFLOW_API_KEY")
    message = "ModelMonitoringInferenceAggregator block cannot run without Roboflow API"
    with pytest.raises(ValueError, match=message):
        ours["aggregator"](api_key=None)
    metadata = ours["metadata"](api_key=None)
    with pytest.raises(ValueError, match="RoboflowCustomMetadata block cannot run"):
        metadata.run(True, "lot", "7", {"inference_id": "i"})


def test_the_init_parameters_of_the_hosts_own_blocks_reach_ours(host, ours):
    parameters = {
        "workflows_core.model_manager": None,
        "workflows_core.api_key": "key-of-the-request",
        "workflows_core.disable_sinks": True,
    }
    step = aggregator_step("x", AGGREGATOR)

    def made(parameters):
        engine = host.engine.init(
            workflow_definition=workflow(step), init_parameters=parameters
        )
        return engine, steps_of(engine)["x"]

    engine, block = made(parameters)
    assert type(block) is ours["aggregator"]
    (answer,) = engine.run(runtime_parameters={"predictions": [{}], "model_id": "m"})
    assert "disabled" in answer["x"]["message"]
    # The control: with sinks it is the key of the request that sends.
    parameters["workflows_core.disable_sinks"] = False
    _, block = made(parameters)
    assert block._sender._api_key == "key-of-the-request"
    if not host.split:
        parameters[f"{PLUGIN}.api_key"] = "key-of-the-plugin"
        _, block = made(parameters)
        assert block._sender._api_key == "key-of-the-plugin"


def test_the_hosts_cache_and_tasks_are_used(host, ours, eventually):
    cache = {}

    class Cache:
        def get(self, key):
            return cache.get(key)

        def set(self, key, value, expire=None):
            cache[key] = value

    class Tasks:
        def __init__(self):
            self.tasks = []

        def add_task(self, task):
            self.tasks.append(task)

        def __bool__(self):
            return True

    tasks = Tasks()
    step = metadata_step("x", METADATA)
    engine = host.compile(workflow(step), cache=Cache(), background_tasks=tasks)
    assert type(steps_of(engine)["x"]) is ours["metadata"]
    frame = {"inference_id": uuid.uuid4().hex, "predictions": []}
    engine.run(runtime_parameters={"predictions": [frame], "model_id": "m"})
    for task in tasks.tasks:
        task()
    assert len(tasks.tasks) == 1
    # The workspace that the monitor names. The task leaves metadata to a later request
    # if a test before this one has made one within the last second.
    assert eventually(lambda: "local" in cache.values())
