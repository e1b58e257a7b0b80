"""The check of the user's state directory, which every run of the tests ends with."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def unchanged():
    spec = importlib.util.spec_from_file_location(
        "root_conftest", ROOT / "tests" / "conftest.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.unchanged


def test_a_directory_that_is_left_alone_passes(unchanged, tmp_path):
    (tmp_path / "kept").write_bytes(b"1")
    for directory in (tmp_path, tmp_path / "absent"):
        with unchanged(directory):
            pass


@pytest.mark.parametrize("name", ["kept", "new/file"])
def test_a_file_that_is_written_meanwhile_fails_the_run(unchanged, tmp_path, name):
    (tmp_path / "kept").write_bytes(b"1")
    (tmp_path / name).parent.mkdir(exist_ok=True)
    with pytest.raises(AssertionError, match="was written"), unchanged(tmp_path):
        (tmp_path / name).write_bytes(b"22")
