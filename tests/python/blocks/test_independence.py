"""The blocks know no host."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import peakhold.blocks
import peakhold.delivery
import peakhold.notices
import peakhold.outbox
import peakhold.records

HOSTS = {
    "fastapi",
    "inference",
    "inference_cli",
    "inference_models",
    "inference_sdk",
    "pydantic",
    "roboflow",
    "roboflow_workflows",
    "starlette",
}
CLIENTS = {"redis_url.py": {"redis", "urllib"}, "redis_parts.py": {"redis"}}
"""Make the client of the server on which windows are shared, if one is named."""
PACKAGES = [
    Path(package.__file__).parent
    for package in (
        peakhold.blocks,
        peakhold.delivery,
        peakhold.outbox,
        peakhold.records,
    )
]


def imported(source):
    """Top-level names that a source imports anywhere."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            names.add((node.module or "").partition(".")[0])
    return names


def test_no_module_imports_a_host_or_the_network():
    files = [path for package in PACKAGES for path in package.glob("*.py")]
    files.append(Path(peakhold.notices.__file__))
    assert len(files) > 15
    allowed = {"peakhold", "platformdirs", *sys.stdlib_module_names}
    allowed -= {"socket", "http", "urllib"}
    for path in files:
        own = CLIENTS.get(path.name, set())
        assert imported(path.read_text(encoding="utf-8")) <= allowed | own, path
    # The control: a host would be found.
    assert imported("def f():\n    from inference.core import x") == {"inference"}


def test_no_host_is_loaded_with_the_blocks():
    source = (
        "import sys, peakhold\n"
        "peakhold.ModelMonitoringInferenceAggregatorBlockV1(api_key='k')\n"
        "peakhold.RoboflowCustomMetadataBlockV1(api_key='k')\n"
        "print(*{name.partition('.')[0] for name in sys.modules})\n"
    )
    output = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "peakhold" in output
    assert not HOSTS & set(output)
    assert not {"supervision", "cv2", "torch"} & set(output)
