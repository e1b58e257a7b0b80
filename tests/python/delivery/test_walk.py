"""The way of a closed window is the one that the documentation has as a table."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

TABLE = Path(__file__).parents[3] / "docs" / "frame.md"
WALK = """
import json, os, sys, threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import peakhold
from peakhold.delivery import current
from peakhold.testing import MisbehavingApi

ROOT = Path(peakhold.__file__).parent
met, following = [], False

def follow(frame, event, _):
    code = frame.f_code
    if following and event == "call" and code.co_filename.startswith(str(ROOT)):
        path = Path(code.co_filename).relative_to(ROOT).as_posix()
        thread = threading.current_thread()
        name = "caller" if thread is threading.main_thread() else thread.name
        met.append((name, path, code.co_name))

threading.setprofile(follow)
with MisbehavingApi() as api:
    os.environ.update(API_BASE_URL=api.url, ROBOFLOW_API_KEY="key")
    block = peakhold.ModelMonitoringInferenceAggregatorBlockV1()
    predictions = SimpleNamespace(
        confidence=np.array([0.5]), class_id=np.array([1]),
        data={name: np.array(["x"]) for name in
              ("class_name", "inference_id", "prediction_type")},
    )
    run = lambda: block.run(True, predictions, 1, "key", "m/1")
    run()
    (window,) = block._windows.values()
    for last in (False, True):
        assert current().flush(10)
        window.interval.last_report -= 60
        following = last
        sys.setprofile(follow if last else None)
        run()
        sys.setprofile(None)
    assert current().flush(10)
    assert len(api.accepted()) == 2
print(json.dumps(met))
"""


def documented():
    """The rows of the table: thread, file and name of the function."""
    rows = re.findall(
        r"^\| \d+ \| (\S+) \| `(\S+)` \| `(?:\S+\.)?(\w+)` \|$",
        TABLE.read_text("utf-8"),
        re.MULTILINE,
    )
    assert len(rows) > 20
    return rows


@pytest.fixture(scope="module")
def met(tmp_path_factory):
    ended = subprocess.run(
        [sys.executable, "-c", WALK],
        env={
            "PATH": "",
            "PEAKHOLD_STATE_DIR": str(tmp_path_factory.mktemp("state")),
            "PEAKHOLD_SYSTEM_INFO": "off",
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return [tuple(each) for each in json.loads(ended.stdout)]


def test_a_window_passes_what_the_table_says_in_that_order(met):
    place = 0
    for row in documented():
        assert row in met[place:], f"{row} is not met any more, or not there"
        place = met.index(row, place)


def test_the_threads_of_the_way_are_those_of_the_table(met):
    """Beside them the clock has threads do what is due."""
    files = {path for _, path, _ in documented()}
    threads = {thread for thread, path, _ in met if path in files}
    assert threads == {"caller", "peakhold-clock", "peakhold"}


def test_a_window_that_is_sent_at_once_takes_two_transactions(met):
    transactions = [
        thread
        for thread, path, name in met
        if (path, name) == ("outbox/ledger.py", "committed")
    ]
    assert transactions == ["peakhold", "peakhold"]
