"""Clients of a server choose the keys: however many, descriptors stay few."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from peakhold._peakhold import recover_journal

if TYPE_CHECKING:
    from pathlib import Path

PRELUDE = """
import json, os, resource, sys
import peakhold
from peakhold.testing import RecordingClient

keys, most = int(sys.argv[1]), int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
block = peakhold.ModelMonitoringInferenceAggregatorBlockV1(
    api_key="canary-key", platform_client=RecordingClient()
)

def observe(key, class_name):
    block.run(
        fire_and_forget=True,
        predictions={
            "inference_id": "",
            "prediction_type": "classification",
            "predictions": [{"class": class_name, "confidence": 0.5}],
        },
        frequency=10**9,
        unique_aggregator_key=key,
        model_id="m/1",
    )

for number in range(keys):
    observe(str(number), f"of {number}")
"""
END = """
open(sys.executable).close()
warnings = peakhold.health()["warnings"]
warnings.pop("slow_disk", None)  # of a machine that is busy otherwise
print(json.dumps(warnings))
sys.stdout.flush()
os._exit(0)
"""
FORK = """
child = os.fork()
if child:
    assert os.waitpid(child, 0)[1] == 0
    os._exit(0)
for number in range(keys):
    observe(str(number), f"in the child {number}")
"""

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="descriptors are limited by POSIX"
)


def run(script, keys, descriptors):
    ran = subprocess.run(
        [
            # Python 3.12 warns of a fork beside threads, which is what is tested.
            *(sys.executable, "-W", "ignore::DeprecationWarning", "-c"),
            *(PRELUDE + script, str(keys), str(descriptors)),
        ],
        env={**os.environ, "PEAKHOLD_SYSTEM_INFO": "off"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ran.stderr == ""
    assert ran.returncode == 0
    return json.loads(ran.stdout)


def written(directory: Path):
    """Return the classes in the windows of a process, and the size of its segments."""
    segments = [path.read_bytes() for path in directory.iterdir()]
    windows, damaged, unknown = recover_journal(segments)
    assert (damaged, unknown) == (0, 0)
    found = [line["class_name"] for *_, each in windows for line in each.report()]
    return sorted(found), max(map(len, segments))


def test_ten_thousand_keys_need_few_descriptors(state_directory):
    assert run(END, 10_000, 256) == {}
    (journal,) = (state_directory / "journals").iterdir()
    found, longest = written(journal)
    assert found == sorted(f"of {number}" for number in range(10_000))
    assert longest <= 4 * 2**20


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_the_windows_of_a_forked_child_share_a_journal_too(state_directory):
    assert run(FORK + END, 200, 64) == {}
    journals = [written(each)[0] for each in (state_directory / "journals").iterdir()]
    assert sorted(journals) == [
        sorted(f"in the child {number}" for number in range(200)),
        sorted(f"of {number}" for number in range(200)),
    ]
