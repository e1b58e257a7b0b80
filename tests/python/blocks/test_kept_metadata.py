"""Metadata that waits when its process ends without a word is sent by the next one."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections import Counter

import pytest

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

PRELUDE = """
import os
import peakhold

block = peakhold.RoboflowCustomMetadataBlockV1(api_key="canary-key")

def register(name, count=1):
    for number in range(count):
        answer = block.run(
            fire_and_forget=True,
            field_name="field",
            field_value=name,
            predictions={"inference_id": f"{name}-{number}"},
        )
        assert not answer["error_status"]
"""


@pytest.fixture
def run_script(api):
    """Runs a script after the prelude."""

    def run_child(script, **environment):
        subprocess.run(
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
            check=True,
            timeout=60,
        )

    return run_child


def registered(api):
    """Return how often each id arrived, by the part before its number."""
    ids = [each for entry in api.entries() for each in entry["inference_ids"]]
    assert max(Counter(ids).values(), default=1) == 1
    return Counter(each.rpartition("-")[0] for each in ids)


@pytest.mark.parametrize("durability", ["process", "power", "memory"])
def test_a_process_that_leaves_at_once_loses_no_metadata(
    api, run_script, state_directory, durability
):
    script = 'register("a", 300); os._exit(0)'
    run_script(script, PEAKHOLD_DURABILITY=durability, OFFLINE_MODE="1")
    run_script('register("b")', PEAKHOLD_DURABILITY=durability)
    found = registered(api)
    assert found["b"] == 1
    if durability == "memory":  # the control
        assert found["a"] == 0
        return
    assert found["a"] == 300
    assert list((state_directory / "journals").iterdir()) == []


@needs_fork
def test_the_metadata_of_a_parent_is_not_sent_by_its_child_too(
    api, run_script, state_directory
):
    script = """
    register("parent", 10)
    if os.fork():
        os.wait()
    else:
        register("child", 10)
    os._exit(0)
    """
    run_script(script, OFFLINE_MODE="1")
    assert len(list((state_directory / "journals").iterdir())) == 2  # the control
    run_script('register("next")')
    assert registered(api) == {"parent": 10, "child": 10, "next": 1}
    assert list((state_directory / "journals").iterdir()) == []


def test_no_secret_is_written(run_script, state_directory):
    run_script('register("a"); os._exit(0)', OFFLINE_MODE="1")
    segments = list(state_directory.glob("journals/*/*"))
    assert segments  # the control
    assert not any(b"canary" in path.read_bytes() for path in segments)
