"""`peakhold demo`."""

from __future__ import annotations

import gzip
import json
import re
import signal
import sys
import urllib.request
from copy import deepcopy
from importlib.resources import files

import pytest

from peakhold.cli.metering import ClassTotal, Ledger
from peakhold.cli.readback import Stored, disagreements

HOSTILE = {
    "API_BASE_URL": "http://127.0.0.1:9",
    "ROBOFLOW_API_KEY": "canary-5d41402abc",
    "OFFLINE_MODE": "True",
    "SECURE_GATEWAY": "http://127.0.0.1:9",
    "ROBOFLOW_API_EXTRA_HEADERS": "not JSON",
    "PEAKHOLD_METADATA_REQUESTS_PER_SECOND": "many",
    "HTTP_PROXY": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
}

windows_has_no_signals = pytest.mark.skipif(
    sys.platform == "win32", reason="signals cannot be sent to a process on Windows"
)


def recorded_lines():
    recording = files("peakhold.cli").joinpath("recordings/cascades.jsonl.gz")
    text = gzip.decompress(recording.read_bytes()).decode()
    return [json.loads(line) for line in text.splitlines()]


def figure(text, name):
    return int(re.search(rf"{name} +([\d,]+)", text)[1].replace(",", ""))


@pytest.mark.skipif(
    sys.platform == "win32", reason="no variable names the user's directories there"
)
def test_the_demo_writes_nothing_outside_temporary_directories(
    peakhold, leave, tmp_path, monkeypatch
):
    monkeypatch.delenv("PEAKHOLD_STATE_DIR")
    user = {"HOME": str(tmp_path), "XDG_STATE_HOME": ""}

    assert peakhold("demo", "--seconds", "1", **user).returncode == 0
    assert [*tmp_path.rglob("*")] == []

    # The control: a sink in the same environment does write there.
    leave("a", API_BASE_URL="http://127.0.0.1:9", **user)
    assert [*tmp_path.rglob("outbox*")]


def test_the_demo_reads_back_what_it_sent_whatever_the_environment(peakhold):
    ended = peakhold("demo", "--seconds", "2", "--fps", "500", **HOSTILE)

    text = ended.stdout.decode()
    assert ended.returncode == 0, ended.stderr.decode()
    assert ended.stderr == b""
    # As many as a machine under load manages in two seconds; two models look at each.
    assert 2 < figure(text, "frames") <= 1000
    assert figure(text, "inference ids in them") == 2 * figure(text, "frames")
    assert figure(text, "reports sent") >= 1
    for name in ("haar-faces", "haar-figures", "face", "cat face", "upper body"):
        assert name in text
    assert "What was read back is what was sent" in text
    assert "/dashboard" in text
    assert "peakhold demo --keep" in text
    assert "canary" not in text


def test_a_statistic_that_is_not_what_was_sent_makes_the_exit_code_1(python):
    ended = python(
        "import sys, peakhold.cli.readback as readback\n"
        "from peakhold.cli import main\n"
        "honest = readback.get_statistics\n"
        "def lying(*arguments):\n"
        "    statistics = honest(*arguments)\n"
        "    statistics['inference_stats'].pop()\n"
        "    return statistics\n"
        "readback.get_statistics = lying\n"
        "sys.exit(main(['demo', '--seconds', '0.2']))"
    )

    assert ended.returncode == 1, ended.stderr
    assert b"only replayed and sent" in ended.stderr
    assert b"What was read back is" not in ended.stdout


@windows_has_no_signals
def test_kept_it_shows_the_dashboard_until_ctrl_c(start):
    command = start("demo", "--keep", "--seconds", "0.3")
    address = re.search(r"http\S+", command.line_with("Dashboard:"))[0]
    command.line_with("stays until Ctrl-C")

    with urllib.request.urlopen(address, timeout=10) as answer:
        page = answer.read().decode()

    assert "haar-faces" in page
    assert command.end() == (130, "")


@windows_has_no_signals
def test_ctrl_c_ends_it_quietly(start):
    command = start("demo", "--seconds", "60")
    command.line_with("frames per second")

    assert command.end(signal.SIGINT) == (130, "")


def test_the_recording_is_what_its_description_says():
    lines = recorded_lines()
    found = [row for line in lines for row in line["detections"]]
    size = len(
        files("peakhold.cli").joinpath("recordings/cascades.jsonl.gz").read_bytes()
    )

    assert len(lines) == 2400
    assert len({line["image"] for line in lines}) == 1200
    assert {line["model"] for line in lines} == {"haar-faces/1", "haar-figures/1"}
    assert all(0.25 <= row["confidence"] <= 1 for row in found)
    assert all(x1 < x2 and y1 < y2 for x1, y1, x2, y2 in (row["xyxy"] for row in found))
    # A detector's, not a constant: many values, and frames in which nothing is found.
    assert len({row["confidence"] for row in found}) > 1000
    assert any(not line["detections"] for line in lines)
    assert size < 300_000


STORED = Stored(
    statistics={
        "inference_stats": [
            {
                "model_name": "m",
                "predicted_class": "cat",
                "num_inferences": 2,
                "avg_confidence": 0.5,
                "max_confidence": 0.75,
            }
        ]
    },
    reports=2,
    metadata_ids=3,
)
PEAKS = {("m", "cat"): 0.75}


def ledger(**changes):
    cat = ClassTotal(count=2, total=1.0, maximum=0.75)
    figures = {"reports": 2, "classes": {("m", "cat"): cat}, "metadata_ids": 3}
    return Ledger(**{**figures, **changes})


def test_what_agrees_is_not_complained_about():
    assert disagreements(STORED, ledger(), PEAKS, 3) == []


@pytest.mark.parametrize(
    ("sent", "peaks", "inferences"),
    [
        (ledger(reports=3), PEAKS, 3),
        (ledger(metadata_ids=2), PEAKS, 3),
        (ledger(), PEAKS, 4),
        (ledger(classes={}), PEAKS, 3),
        (ledger(), {}, 3),
        (ledger(), {**PEAKS, ("m", "dog"): 0.5}, 3),
        (ledger(), {("m", "cat"): 0.76}, 3),
        (ledger(classes={("m", "cat"): ClassTotal(3, 1.5, 0.75)}), PEAKS, 3),
        (ledger(classes={("m", "cat"): ClassTotal(2, 1.1, 0.75)}), PEAKS, 3),
        (ledger(classes={("m", "cat"): ClassTotal(2, 1.0, 0.7)}), PEAKS, 3),
    ],
)
def test_each_thing_that_disagrees_is_found(sent, peaks, inferences):
    assert len(disagreements(STORED, sent, peaks, inferences)) == 1


@pytest.mark.parametrize("name", ["num_inferences", "avg_confidence", "max_confidence"])
def test_each_stored_figure_is_looked_at(name):
    stored = deepcopy(STORED)
    stored.statistics["inference_stats"][0][name] = 0.25

    assert len(disagreements(stored, ledger(), PEAKS, 3)) == 1
