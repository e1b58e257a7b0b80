"""What is shipped: the wheel's checker finds faults, the metadata and docs agree."""

import importlib.util
import os
import re
import shutil
import subprocess
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

import peakhold
from peakhold.metrics.figures import FIGURES
from peakhold.roboflow.settings import ENVIRONMENT

ROOT = Path(__file__).resolve().parents[2]
GOOD = {
    "peakhold/__init__.py": b"",
    "peakhold/_peakhold.abi3.so": b"\0GLIBC_2.2.5\0GLIBC_2.17\0GLIBC_PRIVATE\0",
    "peakhold/_peakhold.pyi": b"",
    "peakhold/py.typed": b"",
    "peakhold/cli/recordings/cascades.jsonl.gz": b"",
    "peakhold/monitor/dashboard.py": b"",
    "peakhold/testing/localhost.pem": b"",
    "peakhold-0.1.0.dist-info/METADATA": b"",
}
TAG = "cp310-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64"

KINDS = {"counter": "counter", "sum": "up-down counter", "gauge": "gauge"}
TARGETS = {
    *("install", "dev", "build", "wheel", "lint", "typecheck", "test", "bench"),
    *("bench-rust", "bench-check", "benchmarks"),
    *("docs", "clean", "demo", "test-rust", "test-matrix", "test-hosts", "test-faults"),
    *("test-endings", "test-long"),
}


@pytest.fixture(scope="module")
def check_wheel():
    spec = importlib.util.spec_from_file_location(
        "check_wheel", ROOT / "scripts" / "check_wheel.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def faults(check_wheel, tmp_path):
    def find(files, tag=TAG):
        wheel = tmp_path / f"peakhold-0.1.0-{tag}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return check_wheel.find_faults(wheel)

    return find


def test_a_good_wheel_has_no_faults(faults):
    assert faults(GOOD) == []


@pytest.mark.parametrize("name", [name for name in GOOD if "dist-info" not in name])
def test_a_missing_file_is_a_fault(faults, name):
    assert faults({key: value for key, value in GOOD.items() if key != name})


@pytest.mark.parametrize(
    "name",
    [
        "peakhold/tests/test_window.py",
        "tests/conftest.py",
        "peakhold/lib.rs",
        "peakhold/__pycache__/errors.cpython-311.pyc",
        "peakhold/_peakhold.cpython-311-x86_64-linux-gnu.so",
    ],
)
def test_a_file_that_does_not_belong_is_a_fault(faults, name):
    assert faults(GOOD | {name: b""})


@pytest.mark.parametrize(
    ("tag", "part"),
    [
        ("cp311-cp311-manylinux_2_17_x86_64", "cp310-abi3"),
        ("cp310-abi3-linux_x86_64", "manylinux only"),
        ("cp310-abi3-manylinux_2_34_x86_64", "manylinux_2_28"),
    ],
)
def test_a_wrong_tag_is_a_fault(faults, tag, part):
    assert any(part in fault for fault in faults(GOOD, tag))


def test_a_symbol_newer_than_the_tag_is_a_fault(faults):
    newer = GOOD | {"peakhold/_peakhold.abi3.so": b"\0GLIBC_2.17\0GLIBC_2.34\0"}
    assert faults(newer) == [f"needs glibc 2.34, tagged {TAG.partition('abi3-')[2]}"]


def test_other_platforms_have_no_glibc_to_check(faults):
    assert faults(GOOD, "cp310-abi3-macosx_11_0_arm64") == []


def test_one_version_everywhere():
    manifest = (ROOT / "Cargo.toml").read_text(encoding="utf-8")
    (written,) = re.findall(r'^version = "(.+)"$', manifest, re.MULTILINE)
    assert version("peakhold") == peakhold.__version__ == written


def test_every_environment_variable_is_documented():
    page = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE))
    sources = {*(ROOT / "python").rglob("*.py"), *(ROOT / "rust").rglob("*.rs")}
    sources.discard(ROOT / "rust" / "mutants.rs")  # in no build that users have
    read = {
        name
        for source in sources
        for name in re.findall(
            r'"(PEAKHOLD_[A-Z_]+)"', source.read_text(encoding="utf-8")
        )
    }
    assert read
    assert documented == read | set(ENVIRONMENT)


def test_every_metric_is_documented():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    documented = []
    for row in re.findall(r"^\| (`peakhold\..*) \|$", page, re.MULTILINE):
        name, unit, kind, labels = (cell.strip() for cell in row.split("|"))
        names = re.findall(r"`(\w+)`", labels.partition(":")[0])
        documented.append((name, unit, kind.partition(",")[0], names))
    assert documented == [
        (f"`{each.name}`", f"`{each.unit}`", KINDS[each.kind], list(each.labels))
        for each in FIGURES
    ]


def relative_links(text):
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target for target in targets if not target.startswith("https://")]


def test_no_link_of_the_readme_breaks_where_only_the_readme_is_shown():
    # As on the page of a package index.
    assert relative_links((ROOT / "README.md").read_text(encoding="utf-8")) == []


def test_a_relative_link_is_noticed():
    assert relative_links("[a](docs/a.md), [b](https://b)") == ["docs/a.md"]


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
def test_make_help_lists_the_targets():
    # The variables of a make that runs this test would change what it prints.
    environment = {
        name: value for name, value in os.environ.items() if "MAKE" not in name
    }
    help_text = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    targets = set(re.findall(r"^ +make ([a-z-]+) +\S", help_text, re.MULTILINE))
    assert targets >= TARGETS
