"""The script behind `make test-hosts`: when it installs, and when it refuses to."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GIB = 1 << 30

pytest.importorskip("uv")


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    spec = importlib.util.spec_from_file_location(
        "host_environments", ROOT / "scripts" / "test_hosts.py"
    )
    module = importlib.util.module_from_spec(spec)
    # Where dataclasses look up the names in their annotations.
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def free(script, monkeypatch, tmp_path):
    def pretend(gib):
        usage = shutil.disk_usage(tmp_path)._replace(free=int(gib * GIB))
        monkeypatch.setattr(script.shutil, "disk_usage", lambda _: usage)

    return pretend


def test_a_disk_without_room_is_told_with_what_it_lacks(
    script, free, tmp_path, monkeypatch
):
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    free(3)
    message = script.missing_space(tmp_path / "not" / "there" / "yet")
    assert "need about 16 GiB" in message
    assert "3.0 GiB are free" in message
    assert "--environments" in message
    free(17)
    assert script.missing_space(tmp_path) is None


def test_an_environment_is_used_again_until_its_requirements_change(script, tmp_path):
    def host(*extra):
        return script.Host("workflows", tmp_path, list(extra))

    assert not host().is_ready()
    host().python.parent.mkdir()
    host().python.touch()
    assert not host().is_ready()
    host().stamp.write_text(host().wanted())
    assert host().is_ready()
    assert not host("roboflow-workflows==0.2.13").is_ready()


def test_a_download_that_breaks_off_is_tried_again(script, tmp_path, monkeypatch):
    outcomes = [False, False, True]

    def install(*_):
        if not outcomes.pop(0):
            raise script.CalledProcessError(1, "uv")

    monkeypatch.setattr(script, "_PAUSE", 0)
    monkeypatch.setattr(script, "install", install)
    monkeypatch.setattr(script, "create", lambda *_: None)
    host = script.Host("workflows", tmp_path, [])
    host.build(Path("python3"), upgrade=False)
    assert host.stamp.exists()
    assert not outcomes
    outcomes += [False] * 3
    with pytest.raises(script.CalledProcessError):
        host.build(Path("python3"), upgrade=False)


def test_every_host_has_its_requirements(script):
    names = {path.stem for path in script._REQUIREMENTS.glob("*.txt")}
    assert names == {"inference", "inference-1.3", "workflows"}


@pytest.fixture
def tested(script, monkeypatch, tmp_path):
    """Runs the script on hosts that are ready; returns which tests each was given."""
    (tmp_path / "peakhold-1-py3-none-any.whl").touch()
    ran = {}

    def test(host, _arguments):
        ran[host.name] = [path.name for path in host.tests]

    monkeypatch.setattr(script.Host, "test", test)
    monkeypatch.setattr(script.Host, "install_wheel", lambda *_: None)
    monkeypatch.setattr(script.Host, "is_ready", lambda _: True)
    monkeypatch.setattr(script, "prepare_environment", lambda _: None)

    def run(*arguments):
        ran.clear()
        monkeypatch.setattr(sys, "argv", ["test_hosts.py", str(tmp_path), *arguments])
        assert script.main() == 0
        return dict(ran)

    return run


def test_older_hosts_run_the_essential_tests_unless_all_are_wanted(script, tested):
    essential, everything = list(script.ESSENTIAL), ["hosts"]
    names = {path.stem for path in (ROOT / "tests/hosts/requirements").iterdir()}
    assert tested() == {
        name: everything if name == script.NEWEST else essential for name in names
    }
    assert tested("--full") == dict.fromkeys(names, everything)
    assert tested("--only", "workflows") == {"workflows": everything}


def test_the_essential_tests_are_there(script):
    for name in script.ESSENTIAL:
        assert (ROOT / "tests" / "hosts" / name).exists()
