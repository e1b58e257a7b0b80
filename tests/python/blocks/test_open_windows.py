"""Windows that were open when their process was killed are reported by the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest
from stand_ins import results_of

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
posix_only = pytest.mark.skipif(os.name != "posix", reason="kills with SIGKILL")

PRELUDE = """
import os, signal, sys, time
import peakhold

block = peakhold.ModelMonitoringInferenceAggregatorBlockV1(api_key="canary-key")

def observe(class_name, confidence=0.5):
    block.run(
        fire_and_forget=True,
        predictions={
            "inference_id": f"of {confidence}",
            "prediction_type": "classification",
            "predictions": [{"class": class_name, "confidence": confidence}],
        },
        frequency=60,
        unique_aggregator_key="k",
        model_id="m/1",
    )

def die():
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture
def run_script(api):
    """Runs a script after the prelude; returns its exit code."""

    def run_child(script, **environment):
        completed = subprocess.run(
            # Python 3.12 warns of a fork beside threads, which is what is tested.
            [
                *(sys.executable, "-W", "ignore::DeprecationWarning", "-c"),
                PRELUDE + textwrap.dedent(script),
            ],
            env={
                **os.environ,
                "API_BASE_URL": api.url,
                "PEAKHOLD_SYSTEM_INFO": "off",
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert completed.stderr == ""
        return completed.returncode

    return run_child


def reported(api):
    return [
        {result["class_name"]: result["inference_id"] for result in results_of(request)}
        for request in api.accepted(kind="report")
    ]


@posix_only
@pytest.mark.parametrize("durability", ["process", "power", "memory"])
def test_a_kill_loses_no_maximum_that_run_has_taken(api, run_script, durability):
    script = """
    for step in range(1, 100):
        observe("rising", step / 100)
    observe("rising", 0.01)
    observe("once", 0.75)
    die()
    """
    assert run_script(script, PEAKHOLD_DURABILITY=durability) == -signal.SIGKILL
    assert run_script('observe("next")') == 0
    found = [{"rising": "of 0.99", "once": "of 0.75"}, {"next": "of 0.5"}]
    if durability == "memory":  # the control
        del found[0]
    assert sorted(reported(api), key=len) == sorted(found, key=len)


@posix_only
def test_a_window_whose_stream_stopped_keeps_no_journal(run_script, state_directory):
    script = """
    observe("a")
    (window,) = block._windows.values()
    window.interval.last_report = -1e9
    window.check(time.monotonic())
    from peakhold.delivery import current
    assert current().flush(10)
    assert window.aggregator.peaks == 0
    die()
    """
    assert run_script(script) == -signal.SIGKILL
    assert list((state_directory / "journals").iterdir()) == []


def test_a_good_end_leaves_no_journal(api, run_script, state_directory):
    assert run_script('observe("a")') == 0
    assert reported(api) == [{"a": "of 0.5"}]
    assert list((state_directory / "journals").iterdir()) == []


@needs_fork
def test_a_forked_child_writes_to_a_journal_of_its_own(
    api, run_script, state_directory
):
    """The parent is killed, too, so both windows are only in their journals."""
    script = """
    observe("parent")
    child = os.fork()
    if child == 0:
        observe("child", 0.75)
        die()
    os.waitpid(child, 0)
    observe("parent", 0.625)
    die()
    """
    assert run_script(script) == -signal.SIGKILL
    names = {
        path.name.partition("-")[0] for path in (state_directory / "journals").iterdir()
    }
    assert len(names) == 2
    assert run_script('observe("next")') == 0
    windows = [{"parent": "of 0.625"}, {"child": "of 0.75"}, {"next": "of 0.5"}]
    assert sorted(reported(api), key=repr) == sorted(windows, key=repr)


@needs_fork
def test_a_child_that_ends_leaves_its_parent_s_journal(
    api, run_script, state_directory
):
    script = """
    observe("parent")
    child = os.fork()
    if child == 0:
        sys.exit(0)
    os.waitpid(child, 0)
    die()
    """
    assert run_script(script) == -signal.SIGKILL
    assert len(list((state_directory / "journals").iterdir())) == 1
    assert run_script('observe("next")') == 0
    assert {"parent": "of 0.5"} in reported(api)


@posix_only
def test_a_file_size_limit_costs_the_journal_and_raises_nothing(api, run_script):
    script = """
    import resource
    from peakhold.blocks.windows import REGISTRY

    observe("a", 0.5)
    (window,) = REGISTRY._windows.values()
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    for step in range(100):
        observe("a", 0.5 + step / 1000)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    snapshot = window.aggregator.snapshot()
    assert snapshot.journal.error, "the control"
    assert snapshot.report()[0]["inference_id"] == "of 0.599"
    observe("b", 0.5)
    assert window.aggregator.snapshot().journal.error is None
    """
    assert run_script(script) == 0
