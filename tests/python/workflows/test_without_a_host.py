"""The plugin where no host is installed, and which host it picks where one is."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import peakhold

PACKAGE = Path(peakhold.__file__).parent
HOSTS = {"inference", "inference_models", "inference_sdk", "roboflow_workflows"}

pytestmark = pytest.mark.skipif(
    bool(find_spec("inference") or find_spec("roboflow_workflows")),
    reason="there is a host here",
)


def python(source, *folders):
    """Run source with packages of these folders, return what it printed."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    return subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        check=True,
        env=environ,
    ).stdout.strip()


def install(folder, *modules):
    """Make modules of packages that tell when they are imported."""
    for module in modules:
        path = folder / module
        path.parent.mkdir(parents=True, exist_ok=True)
        for parent in (path.parent, *path.parent.parents):
            if parent == folder:
                break
            (parent / "__init__.py").write_text("raise SystemExit('imported')")
        path.write_text("raise SystemExit('imported')")
    return folder


IMPORT = """
import sys
try:
    from peakhold.workflows.host import find_host
except ImportError as error:
    print(error)
else:
    print(find_host().root, {'inference', 'roboflow_workflows'} & set(sys.modules))
"""


def test_without_a_host_the_import_fails_and_says_what_to_install():
    with pytest.raises(ImportError, match="pip install inference") as caught:
        __import__("peakhold.workflows")
    assert "pip install roboflow-workflows" in str(caught.value)
    assert "peakhold.blocks" in str(caught.value)


def test_the_newer_host_is_picked_and_nothing_of_it_imported(tmp_path):
    newer = install(tmp_path / "newer", "roboflow_workflows/prototypes/block.py")
    older = install(tmp_path / "older", "inference/core/workflows/prototypes/block.py")
    assert python(IMPORT, newer) == "roboflow_workflows set()"
    assert python(IMPORT, older) == "inference.core.workflows set()"
    assert python(IMPORT, older, newer) == "roboflow_workflows set()"


def test_an_inference_that_runs_no_workflows_is_no_host(tmp_path):
    other = install(tmp_path, "inference/models/utils.py")
    assert "pip install roboflow-workflows" in python(IMPORT, other)


def test_only_the_workflows_package_imports_a_host():
    def imports(path):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module or ""
            elif isinstance(node, ast.Call) and "import_module" in ast.dump(node.func):
                yield from (a.value for a in node.args if isinstance(a, ast.Constant))

    def hosts_of(path):
        return HOSTS & {str(name).partition(".")[0] for name in imports(path)}

    files = set(PACKAGE.rglob("*.py"))
    own = {path for path in files if path.parent == PACKAGE / "workflows"}
    assert len(files - own) > 40
    assert [path for path in files - own if hosts_of(path)] == []
    # The control: they are found where they are.
    assert hosts_of(PACKAGE / "workflows" / "clients.py") == {"inference"}
