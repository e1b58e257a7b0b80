"""The harness itself: that it runs, judges, notices what is wrong, and writes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHES = ROOT / "benches" / "python"


@pytest.fixture
def scripts(monkeypatch):
    """Imports a script of the project."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))

    def load(name):
        return __import__(name)

    yield load
    for name in (
        "bench",
        "bench_check",
        "write_benchmarks",
        "environments",
        "test_hosts",
    ):
        sys.modules.pop(name, None)


def speed(scratch, *arguments, cwd=BENCHES):
    file = scratch / "targets.json"
    done = subprocess.run(
        [sys.executable, "speed.py", "--quick", "--json", file, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text(encoding="utf-8")), done


def test_a_target_is_measured_judged_and_written(tmp_path):
    result, done = speed(tmp_path, "--only", "import", "--only", "between")
    imported, between = result["targets"]
    assert imported["figure"] > 0
    assert imported["verdict"] in done.stdout
    assert set(result["run"]) >= {"date", "commit", "CPU", "compiler", "versions"}
    if "roboflow-workflows" not in result["run"]["versions"]:
        assert between["verdict"] == "not judged"
        assert "no column for the reference" in done.stderr


def test_without_a_host_the_wheel_is_timed_alone(scripts, monkeypatch, capsys):
    pytest.importorskip("uv")
    module = scripts("bench")

    def refuse(*_, **__):
        raise subprocess.CalledProcessError(1, "uv")

    monkeypatch.setattr(module.Host, "is_ready", lambda _: False)
    monkeypatch.setattr(module.Host, "build", refuse)
    monkeypatch.setattr(module, "missing_space", lambda _: None)
    monkeypatch.setattr(module, "alone", lambda wheel, _: wheel)
    assert module.prepare(Path("the.whl")) == Path("the.whl")
    assert "no environment with the reference" in capsys.readouterr().err


def test_without_the_floor_the_harness_says_so(tmp_path):
    # Nobody's clone, so that there is no directory `shared` beside it.
    copy = tmp_path / "clone" / "benches" / "python"
    shutil.copytree(BENCHES, copy, ignore=shutil.ignore_patterns("__pycache__"))
    result, done = speed(tmp_path, "--only", "floor", cwd=copy)
    assert "no ../shared/bench" in done.stderr
    assert {line["verdict"] for line in result["targets"]} == {"not judged"}


def test_a_contender_that_is_wrong_is_marked(scripts, tmp_path):
    """Runs a few tables with a window that forgets, beside the right ones."""
    copy = tmp_path / "python"
    shutil.copytree(BENCHES, copy, ignore=shutil.ignore_patterns("__pycache__"))
    windows = (copy / "windows.py").read_text(encoding="utf-8")
    forgetful = windows.replace("score > held.confidence", "score < held.confidence")
    assert forgetful != windows
    (copy / "windows.py").write_text(forgetful, encoding="utf-8")
    file = tmp_path / "tables.json"
    environment = {
        name: value for name, value in os.environ.items() if "PYTEST" not in name
    }
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", copy, "--quick"),
            *("-k", "test_observe and detections and 100", "-p", "no:cacheprovider"),
            *("--benchmark-max-time=0.001", "--benchmark-min-rounds=2"),
            *("--benchmark-save-data", f"--benchmark-json={file}"),
        ],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    rows = scripts("bench").condense(json.loads(file.read_text("utf-8")))["rows"]
    assert all(0 < row["p50"] <= row["p95"] <= row["max"] for row in rows)
    correct = {row["contender"]: row["correct"] for row in rows}
    assert correct == {"peakhold": True, "NumPy": False, "plain Python": True}
    write = scripts("write_benchmarks")
    (wrong,) = (row for row in rows[:3] if row["contender"] == "NumPy")
    assert "**wrong**" in write.cell(wrong, rows[0])


@pytest.fixture
def check(scripts, monkeypatch, tmp_path):
    """Runs the check of instructions with made-up counts, against files of its own."""
    module = scripts("bench_check")
    counted = dict.fromkeys(module.HOT_PATHS, 1000)
    monkeypatch.setattr(module, "build", Path)
    monkeypatch.setattr(module, "count", lambda _, name: counted[name])
    monkeypatch.setattr(module, "toolchain", lambda: "rustc-1-test")
    monkeypatch.setattr(module.shutil, "which", lambda name: name)

    def run(recorded=None, **now):
        counted.update(now)
        file = tmp_path / "rustc-1-test.json"
        if recorded:
            file.write_text(json.dumps(dict.fromkeys(module.HOT_PATHS, recorded)))
        return module.main(["--counts", str(tmp_path)]), file

    return run


def test_an_unknown_compiler_is_recorded_with_a_warning(check, capsys):
    code, file = check()
    assert code == 0
    assert json.loads(file.read_text())["observe_10"] == 1000
    assert "WARNING: rustc-1-test is new" in capsys.readouterr().out


def test_a_hot_path_may_grow_by_a_twentieth_and_no_more(check, capsys):
    assert check(recorded=1000, observe_10=1049)[0] == 0
    assert check(recorded=1000, observe_10=1051)[0] == 1
    assert "observe_10 takes 5.1% more instructions" in capsys.readouterr().out


@pytest.mark.skipif(
    not (shutil.which("valgrind") and shutil.which("cargo")),
    reason="counting takes valgrind and cargo",
)
def test_a_baseline_ten_percent_lower_makes_the_check_fail(scripts, tmp_path, capsys):
    """The real counts, of the sources as they stand, against a made-up baseline."""
    module = scripts("bench_check")
    executable = module.build()
    counted = {name: module.count(executable, name) for name in module.HOT_PATHS[:2]}
    module.HOT_PATHS = tuple(counted)
    file = tmp_path / f"{module.toolchain()}.json"
    file.write_text(json.dumps(counted))
    assert module.main(["--counts", str(tmp_path)]) == 0
    lower = {name: int(count * 0.9) for name, count in counted.items()}
    file.write_text(json.dumps(lower))
    assert module.main(["--counts", str(tmp_path)]) == 1
    assert capsys.readouterr().out.count("more instructions than recorded") == 2


def test_the_pages_say_what_the_results_say(scripts, monkeypatch, capsys):
    module = scripts("write_benchmarks")
    monkeypatch.setattr(sys, "argv", ["write_benchmarks.py", "--check"])
    assert module.main() == 0, capsys.readouterr().out


def test_a_page_that_is_not_what_the_results_say_is_noticed(
    scripts, monkeypatch, tmp_path, capsys
):
    module = scripts("write_benchmarks")
    shutil.copytree(ROOT / "benches", tmp_path / "benches")
    for name in ("README.md", "BENCHMARKS.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    file = tmp_path / "benches" / "results" / "targets.json"
    text = file.read_text("utf-8")
    ours = json.loads(text)["targets"][0]["ours"]
    file.write_text(text.replace(f'"{ours}"', '"1 ns"'))
    monkeypatch.setattr(module, "_ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["write_benchmarks.py", "--check"])
    assert module.main() == 1
    assert "BENCHMARKS.md is not what" in capsys.readouterr().out
