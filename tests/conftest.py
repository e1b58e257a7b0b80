"""What holds for every test: nothing is written to the user's own state directory."""

from __future__ import annotations

from contextlib import contextmanager

import platformdirs
import pytest


@contextmanager
def unchanged(directory):
    """Fail if a file below a directory was made, changed or removed meanwhile."""
    before = listing(directory)
    yield
    assert listing(directory) == before, f"something was written below {directory}"


def listing(directory):
    """Return size and time of change of every file below a directory."""
    files = (path for path in directory.rglob("*") if path.is_file())
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="session", autouse=True)
def users_state_directory():
    """The user's own state directory, which must be as it was when the tests end."""
    directory = platformdirs.user_state_path("peakhold", appauthor=False)
    with unchanged(directory):
        yield directory


@pytest.fixture(autouse=True)
def state_directory(tmp_path_factory, monkeypatch):
    """A state directory of the test's own, for its processes as well."""
    path = tmp_path_factory.mktemp("state") / "peakhold"
    monkeypatch.setenv("PEAKHOLD_STATE_DIR", str(path))
    return path
