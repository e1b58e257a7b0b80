"""The examples declare what they import; the one that needs no host runs here.

The others run in the environments of `make test-hosts`.
"""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("cv2")
pytest.importorskip("uvicorn")

from peakhold.monitor import MonitorServer

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.py"))
HEADER = re.compile(r"^# /// script\n((?:#.*\n)+?)# ///$", re.MULTILINE)
DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "inference": "inference-core",
    "roboflow_workflows": "roboflow-workflows",
}


def declared_by(code):
    """Return the names of the dependencies in a script's metadata."""
    (header,) = HEADER.findall(code)
    (listed,) = re.findall(
        r"^dependencies = \[(.*?)\]$",
        re.sub(r"^# ?", "", header, flags=re.MULTILINE),
        re.MULTILINE | re.DOTALL,
    )
    return {re.match(r"[\w-]+", text)[0] for text in re.findall(r'"(.+?)"', listed)}


def imported_by(code):
    """Return the distributions of everything that is imported, at any level."""
    modules = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            modules.add(node.module)
    tops = {module.partition(".")[0] for module in modules}
    return {DISTRIBUTIONS.get(top, top) for top in tops - sys.stdlib_module_names}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_declares_what_it_imports(example):
    code = example.read_text(encoding="utf-8")
    needed = imported_by(code)
    assert "peakhold" in needed
    assert needed <= declared_by(code)


def test_an_undeclared_import_is_noticed():
    code = EXAMPLES[0].read_text(encoding="utf-8") + "\nimport pandas\n"
    assert imported_by(code) - declared_by(code) == {"pandas"}


def test_there_are_four_examples():
    assert len(EXAMPLES) == 4


def test_the_plain_loop_reports_what_moved(tmp_path):
    (example,) = [path for path in EXAMPLES if path.name == "opencv_loop.py"]
    own = {"ROBOFLOW_API_KEY": "any", "PEAKHOLD_WINDOWS": "off"}
    with MonitorServer() as monitor:
        done = subprocess.run(
            [sys.executable, example],
            cwd=tmp_path,
            env=os.environ | own | {"API_BASE_URL": monitor.url},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        reports = [json.loads(r.body) for r in monitor.store.requests("report")]
        metadata = [json.loads(r.body) for r in monitor.store.requests("metadata")]
    # Three seconds of frames at one report a second, and the last one at exit.
    assert len(reports) >= 3
    rows = [row for report in reports for row in report["inference_results"]]
    assert {(row["model_id"], row["class_name"]) for row in rows} == {
        ("motion/1", "motion")
    }
    ids = {i for body in metadata for e in body["data"] for i in e["inference_ids"]}
    assert {row["inference_id"] for row in rows} <= ids
    assert len(ids) > 50
