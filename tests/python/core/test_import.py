"""What `import peakhold` costs: numpy and the extension, nothing else."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    "requests",
    "urllib3",
    "http.client",
    "supervision",
    "cv2",
    "torch",
    "inference",
    "roboflow_workflows",
}


def modules_after(statement):
    """Names in sys.modules of a new interpreter that ran the statement."""
    program = f"{statement}\nimport json, sys\nprint(json.dumps(list(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(json.loads(answer.stdout.splitlines()[-1]))


def distributions(modules):
    """Top-level names that are not the standard library's."""
    names = {module.partition(".")[0] for module in modules}
    return {
        name
        for name in names - sys.stdlib_module_names
        # Of the environment, not of any import: editable finders, .pth hooks.
        if not name.startswith(("__", "_virtualenv", "_distutils", "sitecustomize"))
    }


@pytest.fixture(scope="module")
def with_numpy():
    """With what NumPy brings: up to 1.26, the runtime of Cython."""
    return distributions(modules_after("import numpy"))


@pytest.fixture(scope="module")
def imported():
    return modules_after("import peakhold")


def test_import_leaves_the_network_and_the_hosts_alone(imported):
    assert "peakhold" in imported
    assert not imported & HEAVY


def test_import_loads_at_most_numpy_beside_the_extension(imported, with_numpy):
    assert "peakhold._peakhold" in imported
    assert distributions(imported) - with_numpy == {"peakhold"}


@pytest.mark.parametrize("module", ["requests", "supervision", "http.client"])
def test_the_check_sees_a_module_that_is_imported(module):
    seen = modules_after(f"import peakhold, {module}")
    assert module in seen & HEAVY


def test_the_core_is_reachable_without_loading_more():
    seen = modules_after(
        "import peakhold; peakhold.PeakAggregator().drain();"
        " peakhold.unique_inference_ids(None)"
    )
    assert not seen & HEAVY
