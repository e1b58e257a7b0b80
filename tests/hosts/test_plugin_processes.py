"""Under which identifiers the blocks run, in processes that configure the host anew.

A host fixes its configuration when it is imported, so each has a process; importing
takes many seconds, so that each tells everything there is to tell about it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from host import AGGREGATOR, API_KEY, METADATA, PLUGIN, QUIET

OWN_AGGREGATOR = "peakhold/model_monitoring_inference_aggregator@v1"
OWN_METADATA = "peakhold/roboflow_custom_metadata@v1"
ALL = (AGGREGATOR, OWN_AGGREGATOR, METADATA, OWN_METADATA)
PATTERNS = "WORKFLOW_DISABLED_BLOCK_PATTERNS"

START = """
import importlib, json, logging, os, sys
from host import Host, steps_of

lines, facts = [], {}

class Lines(logging.Handler):
    def emit(self, record):
        lines.append(record.getMessage())

logging.getLogger("peakhold").addHandler(Lines())
host = Host()

def attempt(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "fine"

def configure(*arguments):
    return attempt(importlib.import_module("peakhold.workflows").configure, *arguments)

def reference_patterns(*patterns):
    # Configures the host without peakhold.
    if host.standalone:
        module = importlib.import_module("roboflow_workflows.configuration")
        engine = module.EngineConfiguration(disabled_block_patterns=patterns)
        module.configure_process(module.WorkflowsConfiguration(engine=engine))
    elif patterns:
        os.environ["WORKFLOW_DISABLED_BLOCK_PATTERNS"] = ",".join(patterns)

def who_runs(*kinds):
    common = {"predictions": "$inputs.predictions"}
    properties = {"aggregator": {"model_id": "$inputs.model_id",
                                 "unique_aggregator_key": "k"},
                  "metadata": {"field_name": "lot", "field_value": "7"}}
    steps = [
        {"type": kind, "name": f"s{at}", **common,
         **properties["aggregator" if "aggregator" in kind else "metadata"]}
        for at, kind in enumerate(kinds)
    ]
    definition = {
        "version": "1.4.0",
        "inputs": [{"type": "WorkflowBatchInput", "name": "predictions", "kind": ["*"]},
                   {"type": "WorkflowParameter", "name": "model_id"}],
        "steps": steps,
        "outputs": [{"type": "JsonField", "name": "o", "selector": "$steps.s0.*"}],
    }
    made = steps_of(host.compile(definition))
    return {kind: type(made[f"s{at}"]).__module__.partition(".")[0]
            for at, kind in enumerate(kinds)}
"""

END = "\nprint(json.dumps({**facts, 'lines': lines}))\n"


@pytest.fixture(scope="module")
def told_by():
    """Runs code in a process of its own and returns the facts that it told."""

    def run(source, **environ):
        clean = {
            name: value
            for name, value in os.environ.items()
            if name not in {PATTERNS, "WORKFLOWS_PLUGINS", "PEAKHOLD_IN_PLACE"}
        }
        here = os.path.dirname(__file__)  # noqa: PTH120 - an entry of a path
        path = os.pathsep.join(filter(None, [here, clean.get("PYTHONPATH", "")]))
        output = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", START + source + END],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env={
                **clean,
                **QUIET,
                "ROBOFLOW_API_KEY": API_KEY,
                "API_BASE_URL": "http://127.0.0.1:9",
                "PYTHONPATH": path,
                **environ,
            },
        )
        assert output.returncode == 0, output.stderr[-3000:]
        return json.loads(output.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="module")
def beside(told_by):
    return told_by(
        f"""
reference_patterns()
facts["before"] = host.blocks_loader is not None
plugins = os.environ["WORKFLOWS_PLUGINS"]
facts["too_late"] = configure()
facts["changed"] = os.environ["WORKFLOWS_PLUGINS"] != plugins
plugin = importlib.import_module("{PLUGIN}")
os.environ["PEAKHOLD_IN_PLACE"] = "maybe"
facts["unclear"] = attempt(plugin.load_blocks)
os.environ["PEAKHOLD_IN_PLACE"] = "1"
facts["required"] = attempt(plugin.load_blocks)
facts["compiling"] = attempt(who_runs, "{OWN_AGGREGATOR}")
del os.environ["PEAKHOLD_IN_PLACE"]
facts["runs"] = who_runs(*{ALL!r}, "RoboflowCustomMetadata")
facts["runs_again"] = who_runs(*{ALL!r})
facts["names"] = [
    block.get_manifest().model_json_schema()["name"] for block in plugin.load_blocks()
]
facts["types"] = [
    block.get_manifest().model_json_schema()["properties"]["type"]
    for block in plugin.load_blocks()
]
""",
        WORKFLOWS_PLUGINS=PLUGIN,
    )


def test_beside_the_reference_each_identifier_has_its_block(beside, host):
    reference = "roboflow_workflows" if host.split else "inference"
    assert beside["runs"] == {
        AGGREGATOR: reference,
        METADATA: reference,
        "RoboflowCustomMetadata": reference,
        OWN_AGGREGATOR: "peakhold",
        OWN_METADATA: "peakhold",
    }
    assert [kind["const"] for kind in beside["types"]] == [
        OWN_AGGREGATOR,
        OWN_METADATA,
        "peakhold/model_monitoring_inference_aggregator@v2",
    ]
    # An editor shows both: ours says whose it is.
    assert all(name.endswith("(peakhold)") for name in beside["names"])


def test_one_log_line_says_what_would_put_ours_in_place(beside, host):
    (line,) = beside["lines"]
    for kind in ALL:
        assert kind in line
    if host.standalone:
        assert "peakhold.workflows.configure()" in line
    else:
        assert "before inference is imported" in line
        assert (
            "ModelMonitoringInferenceAggregator,RoboflowCustomMetadata to the "
            f"environment variable {PATTERNS}"
        ) in line


def test_not_in_place_is_an_error_if_it_has_to_be(beside):
    assert beside["required"].startswith("NotInPlaceError: ")
    assert METADATA in beside["required"]
    assert "NotInPlaceError" in beside["compiling"]
    assert beside["unclear"].startswith(
        "ValueError: PEAKHOLD_IN_PLACE must be True or False"
    )


def test_configured_too_late_it_says_so_and_changes_nothing(beside):
    assert beside["too_late"].startswith("TooLateError: ")
    assert "called too late" in beside["too_late"]
    assert beside["changed"] is False


@pytest.fixture(scope="module")
def half(told_by):
    # A pattern that removes both, whatever it looks like, and a plugin that brings one
    # back: from 1.6.1 to 1.7.2 the reference blocks of inference were a plugin's.
    return told_by(
        f"""
another = sys.modules["another_plugin"] = type(sys)("another_plugin")
another.BLOCKS_SOURCE = "workflows_core"
reference_patterns("sinks.roboflow")
another.load_blocks = lambda: [
    host.reference_aggregator.ModelMonitoringInferenceAggregatorBlockV1
]
another.REGISTERED_INITIALIZERS = host.module(
    "core_steps.loader"
).REGISTERED_INITIALIZERS
facts["runs"] = who_runs(*{ALL!r})
""",
        WORKFLOWS_PLUGINS=f"another_plugin,{PLUGIN}",
    )


def test_it_is_decided_per_block(half, host):
    assert half["runs"] == {
        AGGREGATOR: "roboflow_workflows" if host.split else "inference",
        OWN_AGGREGATOR: "peakhold",
        METADATA: "peakhold",
        OWN_METADATA: "peakhold",
    }
    (line,) = half["lines"]
    assert AGGREGATOR in line
    assert METADATA not in line


@pytest.fixture(scope="module")
def configured(told_by):
    return told_by(
        f"""
another = sys.modules["another_plugin"] = type(sys)("another_plugin")
another.load_blocks = list
facts["first"] = configure()
facts["engine_imported"] = "roboflow_workflows.core_steps" in sys.modules
facts["plugins"] = os.environ["WORKFLOWS_PLUGINS"]
facts["second"] = configure()
facts["runs"] = who_runs(*{ALL!r})
facts["third"] = configure()
""",
        WORKFLOWS_PLUGINS="another_plugin",
        PEAKHOLD_IN_PLACE="1",
    )


def test_one_call_puts_ours_in_place(configured):
    assert configured["first"] == "fine"
    assert configured["engine_imported"] is False
    assert configured["runs"] == dict.fromkeys(ALL, "peakhold")
    assert configured["lines"] == []
    assert configured["plugins"] == f"another_plugin,{PLUGIN}"


def test_configuring_again_is_harmless(configured):
    assert configured["second"] == "fine"
    assert configured["third"] == "fine"


def test_it_agrees_with_a_configuration_of_the_host_that_says_the_same(told_by):
    facts = told_by(
        f"""
reference_patterns("modelmonitoringinferenceaggregator", "roboflowcustommetadata")
if not host.standalone:
    importlib.import_module("inference.core")
facts["configured"] = configure()
facts["runs"] = who_runs(*{ALL!r})
"""
    )
    assert facts["configured"] == "fine"
    assert facts["runs"] == dict.fromkeys(ALL, "peakhold")


def test_a_configuration_of_the_programs_own_is_kept(told_by, host):
    if not host.standalone:
        facts = told_by("facts['configured'] = configure(object())")
        assert facts["configured"].startswith("TypeError: inference makes its")
        return
    facts = told_by(
        """
module = importlib.import_module("roboflow_workflows.configuration")
wanted = module.WorkflowsConfiguration(
    engine=module.EngineConfiguration(
        disabled_block_patterns=("barcode",), max_inner_workflow_depth=2
    ),
    tensor=module.TensorConfiguration(representation_enabled=True),
)
facts["configured"] = configure(wanted)
engine = module.get_configuration().engine
facts["patterns"] = engine.disabled_block_patterns
facts["depth"] = engine.max_inner_workflow_depth
facts["other"] = configure(module.WorkflowsConfiguration())
plugin = importlib.import_module("peakhold.workflows")
ours = [block.get_manifest() for block in plugin.load_blocks()[:2]]
folder = "core_steps.sinks.roboflow"
names = ("model_monitoring_inference_aggregator", "custom_metadata")
theirs = [host.module(f"{folder}.{name}.v1_tensor").BlockManifest for name in names]
facts["kinds"], facts["native_kinds"] = (
    [
        manifest.model_json_schema()["properties"]["predictions"]["kind"]
        for manifest in manifests
    ]
    for manifests in (ours, theirs)
)
"""
    )
    # Predictions are tensors then.
    assert facts["kinds"] == facts["native_kinds"]
    assert "inference_models" in json.dumps(facts["kinds"])
    assert facts["configured"] == "fine"
    assert facts["depth"] == 2
    assert facts["patterns"] == [
        "barcode",
        "modelmonitoringinferenceaggregator",
        "roboflowcustommetadata",
    ]
    assert "called too late" in facts["other"]


DESCRIBE = """
names = ("model_monitoring_inference_aggregator@v1", "roboflow_custom_metadata@v1")
blocks = host.blocks_loader.describe_available_blocks(dynamic_blocks=[]).blocks
facts["described"] = {
    block.manifest_type_identifier: json.loads(block.model_dump_json())
    for block in blocks if block.manifest_type_identifier.endswith(names)
}
"""

PROSE = {
    *("description", "examples", "title", "note"),
    *("short_description", "long_description"),
}


def differences(mine, theirs, path=""):
    """Return the paths at which two descriptions differ, prose left out."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        found = [
            differences(mine.get(key), theirs.get(key), f"{path}/{key}")
            for key in sorted((mine.keys() | theirs.keys()) - PROSE)
        ]
        return [difference for each in found for difference in each]
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        found = [
            differences(*pair, f"{path}/{at}")
            for at, pair in enumerate(zip(mine, theirs, strict=True))
        ]
        return [difference for each in found for difference in each]
    return [] if mine == theirs else [path]


@pytest.mark.parametrize("kind", ["aggregator", "metadata"])
def test_the_host_describes_ours_as_the_references(side_by_side_descriptions, kind):
    name = {
        "aggregator": "model_monitoring_inference_aggregator@v1",
        "metadata": "roboflow_custom_metadata@v1",
    }[kind]
    mine = side_by_side_descriptions[f"peakhold/{name}"]
    theirs = side_by_side_descriptions[f"roboflow_core/{name}"]
    found = differences(mine, theirs)
    # Who they are; then the literal model id, the only difference in what they take.
    identity = [
        path
        for path in found
        if path.startswith(
            (
                "/block_source",
                "/fully_qualified",
                "/human_friendly",
                "/manifest_type_identifier",
                "/block_schema/name",
                "/block_schema/properties/type",
            )
        )
    ]
    taken = sorted(set(found) - set(identity))
    print(found)  # noqa: T201 - shown if it is not as expected
    model_id = "/block_schema/properties/model_id/"
    assert all(path.startswith(model_id) for path in taken)
    assert bool(taken) is (kind == "aggregator")


@pytest.fixture(scope="module")
def side_by_side_descriptions(told_by):
    return told_by(DESCRIBE, WORKFLOWS_PLUGINS=PLUGIN)["described"]
