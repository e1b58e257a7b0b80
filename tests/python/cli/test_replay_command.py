"""`peakhold replay`."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone

import pytest

from peakhold.cli.readback import get_statistics

FAST = ("--fps", "0")


def replayed(ended):
    assert ended.returncode == 0, ended.stderr.decode()
    return json.loads(ended.stdout)


def stored_classes(monitor):
    now = datetime.now(timezone.utc)
    statistics = get_statistics(
        monitor.url, "local", "any", now - timedelta(minutes=5), now
    )
    return {
        (row["model_name"], row["predicted_class"]): row["max_confidence"]
        for row in statistics["inference_stats"]
    }


def test_both_sinks_get_every_frame(peakhold, monitor, boxes):
    recording = boxes([("cat", 0.5), ("dog", 0.9)], [("cat", 0.75)], [])

    summary = replayed(
        peakhold("replay", recording, *FAST, "--json", API_BASE_URL=monitor.url)
    )

    assert (summary["frames"], summary["detections"]) == (3, 3)
    assert summary["reports_sent"] == 1
    # The frame without detections has an inference, hence metadata, as well.
    # The first id may be on its way before the others come.
    assert summary["metadata_requests"] in (1, 2)
    assert summary["metadata_ids"] == 3
    assert summary["rejected"] == {}
    assert summary["complete"] is True
    assert stored_classes(monitor) == {
        ("replay", "cat"): 0.75,
        ("replay", "dog"): 0.9,
    }
    (row,) = monitor.store.overview("local").metadata
    assert (row.field_name, row.field_value) == ("source", "peakhold replay")
    assert row.inferences == 3
    for sink in ("model_monitoring", "custom_metadata"):
        latency = summary["run_us"][sink]
        assert latency["calls"] == 3
        assert 0 < latency["p50"] <= latency["p99"] <= latency["maximum"]


def test_options_reach_the_sinks_and_win_over_the_environment(peakhold, monitor, boxes):
    ended = peakhold(
        *("replay", boxes([("cat", 0.5)]), *FAST, "--json", "--api-url", monitor.url),
        *("--metadata", "shift=night=2", "--model-id", "gate/7"),
        API_BASE_URL="http://127.0.0.1:9",
        # No proxy comes between a command and its own machine.
        HTTP_PROXY="http://127.0.0.1:9",
        http_proxy="http://127.0.0.1:9",
    )

    assert replayed(ended)["reports_sent"] == 1
    (row,) = monitor.store.overview("local").metadata
    assert (row.field_name, row.field_value) == ("shift", "night=2")
    assert stored_classes(monitor) == {("gate", "cat"): 0.5}


def test_recordings_are_read_gzipped_from_a_pipe_and_together(
    peakhold, monitor, boxes, tmp_path
):
    plain = boxes([("cat", 0.5)], [("dog", 0.5)])
    zipped = tmp_path / "recording.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    options = (*FAST, "--json", "--api-url", monitor.url)

    both = replayed(peakhold("replay", plain, zipped, *options))
    piped = peakhold("replay", "-", *options, stdin=zipped.read_bytes())

    assert both["frames"] == 4
    assert replayed(piped)["frames"] == 2


def test_bad_rows_are_counted_and_the_rest_is_reported(peakhold, monitor, boxes):
    recording = boxes([("cat", None), ("cat", 0.5), (None, 0.5), ("dog", "high")])

    summary = replayed(
        peakhold("replay", recording, *FAST, "--json", "--api-url", monitor.url)
    )

    assert sum(summary["rejected"].values()) == 3
    assert stored_classes(monitor) == {("replay", "cat"): 0.5}


def test_a_real_recording_goes_through(peakhold, monitor, shared_data):
    names = ("roboflow_responses.jsonl", "voc_detections.jsonl")
    files = [shared_data / name for name in names]

    summary = replayed(
        peakhold("replay", *files, *FAST, "--json", "--api-url", monitor.url)
    )

    assert summary["frames"] == 95
    # 494 boxes, and the rows of the ten responses.
    rows = [
        json.loads(line)["response"]["predictions"]
        for line in files[0].read_text().splitlines()
    ]
    assert summary["detections"] == 494 + sum(map(len, rows))
    assert summary["metadata_ids"] == 95
    assert summary["rejected"] == {}
    # A window has the peak of each model, where a report has that of the surest one.
    assert [model for model, name in stored_classes(monitor) if name == "dog"] == [
        "vit",
        "yolo26",
        "yolov8",
    ]


def test_frames_come_at_the_asked_rate(peakhold, monitor, boxes):
    recording = boxes(*[[("cat", 0.5)]] * 400)
    options = ("--json", "--api-url", monitor.url)

    paced = replayed(peakhold("replay", recording, "--fps", "400", *options))
    unpaced = replayed(peakhold("replay", recording, "--fps", "0", *options))

    # The last frame is due after 399 periods.
    assert paced["seconds"] >= 399 / 400
    assert unpaced["seconds"] < paced["seconds"]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to a process there")
def test_a_loop_ends_by_ctrl_c_with_its_summary(start, monitor, boxes):
    recording = boxes([("cat", 0.5)], [("cat", 0.6)])
    command = start(
        *("replay", recording, "--fps", "200", "--loop", "--frequency", "1"),
        *("--json", "--api-url", monitor.url),
    )
    wait_until(lambda: stored_classes(monitor))

    code, error = command.end(signal.SIGINT)

    assert (code, error) == (130, "")
    frames = int(command.line_with('"frames"').strip(",").split()[-1])
    assert frames > 2
    # Every pass over the recording is of new inferences.
    ids = int(command.line_with('"metadata_ids"').strip(",").split()[-1])
    assert ids == frames
    (row,) = monitor.store.overview("local").metadata
    assert row.inferences == frames


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_tables_are_plain_where_there_is_no_terminal(peakhold, monitor, boxes):
    recording = boxes([("[red]cat[/red]\x1b[31m", 0.5)])
    options = (*FAST, "--api-url", monitor.url)

    ended = peakhold("replay", recording, *options, COLUMNS="50")
    ascii_only = peakhold("replay", recording, *options, PYTHONIOENCODING="ascii")

    text = ended.stdout.decode()
    assert ended.returncode == ascii_only.returncode == 0, ascii_only.stderr
    assert ended.stderr == b""
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 50
    for figure in ("frames per second", "detections per second", "reports sent", "p99"):
        assert figure in text
    ascii_only.stdout.decode("ascii")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no ptys on Windows")
def test_a_terminal_gets_a_progress_bar(monitor, boxes):
    import pty

    recording = boxes(*[[("cat", 0.5)]] * 30)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "peakhold.cli", "replay", recording, "--json"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={"API_BASE_URL": monitor.url, "TERM": "xterm-256color"},
    ) as command:
        os.close(theirs)
        shown = b""
        # Linux ends a terminal that nobody writes to any more by an error.
        with contextlib.suppress(OSError):
            while chunk := os.read(ours, 65536):
                shown += chunk
        os.close(ours)
        summary = json.loads(command.stdout.read())

    assert command.returncode == 0
    assert b"Replaying" in shown
    assert b"frames" in shown
    # Standard output is left to the summary.
    assert summary["frames"] == 30


def test_no_color_is_respected(peakhold, monitor, boxes):
    recording = boxes([("cat", 0.5)])

    def print_by(**variables):
        ended = peakhold(
            "replay", recording, *FAST, "--api-url", monitor.url, **variables
        )
        assert ended.returncode == 0
        return ended.stdout.decode()

    # Without colours a table is still in italics and bold, if terminals have them.
    assert "\x1b[" in print_by(FORCE_COLOR="1", TERM="xterm-256color")
    assert not re.search(
        r"\x1b\[[\d;]*(3[0-8]|4[0-8]|9\d|10\d)[;m]",
        print_by(FORCE_COLOR="1", TERM="xterm-256color", NO_COLOR="1"),
    )


def test_a_backlog_that_shrinks_is_waited_for(peakhold, monitor, boxes):
    # Five requests of 1,000 ids, which take longer than nothing may take.
    recording = boxes(*[[("cat", 0.5)]] * 4_500)
    summary = replayed(
        peakhold(
            *("replay", recording, *FAST, "--json"),
            API_BASE_URL=monitor.url,
            PEAKHOLD_METADATA_REQUESTS_PER_SECOND="0.6",
        )
    )
    assert summary["complete"] is True
    assert summary["metadata_requests"] >= 5
    assert summary["metadata_ids"] == 4_500
    (row,) = monitor.store.overview("local").metadata
    assert row.inferences == 4_500


def test_an_undelivered_report_makes_the_exit_code_1(peakhold, refusing_api, boxes):
    recording = boxes([("cat", 0.5)])

    ended = peakhold(
        "replay", recording, *FAST, "--json", "--api-url", refusing_api(400)
    )

    assert ended.returncode == 1
    summary = json.loads(ended.stdout)
    assert summary["complete"] is False
    assert summary["reports_sent"] == 0
    assert (summary["dead"], summary["dropped"]) == (2, {})
    assert any("no such thing" in why for why in summary["failed_attempts"])
    # The same API in good health: the exit code is 0 for another reason.
    assert (
        peakhold("replay", recording, *FAST, "--api-url", refusing_api(200)).returncode
        == 0
    )


def test_an_api_that_goes_away_costs_seconds_and_the_exit_code_1(start, boxes):
    from peakhold.monitor.server import MonitorServer

    with MonitorServer() as monitor:
        command = start(
            *("replay", "-", "--frequency", "1", "--json", "--api-url", monitor.url),
        )
        line = boxes([("cat", 0.5)]).read_text()
        # One arrives: the sinks are at work when the monitor goes.
        command.process.stdin.write(line * 2)
        command.process.stdin.flush()
        wait_until(lambda: monitor.store.overview("local").metadata)
    command.process.stdin.write(line * 100)
    command.process.stdin.close()
    begin = time.monotonic()

    code, error = command.wait()

    assert code == 1
    assert "Traceback" not in error
    # 100 frames take 3.3 s, waiting for the API 5 s, leaving 2 s.
    assert time.monotonic() - begin < 25
    command.line_with('"complete": false')


def test_a_missing_file_is_told(peakhold, told, tmp_path):
    told(peakhold("replay", tmp_path / "absent.jsonl"), "absent.jsonl", "No such file")


def test_a_folder_is_told(peakhold, told, tmp_path):
    told(peakhold("replay", tmp_path), str(tmp_path))


def test_an_empty_file_is_told(peakhold, told, tmp_path):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n\n")

    told(peakhold("replay", empty), "empty.jsonl", "no predictions")


def test_a_bad_line_is_told_with_its_number_before_anything_is_sent(
    peakhold, told, monitor, boxes
):
    recording = boxes([("cat", 0.5)], [("dog", 0.5)])
    recording.write_text(recording.read_text() + "\n{'image': 1}\n")

    ended = peakhold("replay", recording, *FAST, "--api-url", monitor.url)

    told(ended, "boxes.jsonl, line 4", "not JSON")
    assert monitor.store.overview("local").reports == 0


def test_what_comes_before_a_bad_line_in_a_pipe_is_delivered(
    peakhold, told, monitor, boxes
):
    good = boxes([("cat", 0.5)], [("dog", 0.9)]).read_bytes()
    ended = peakhold(
        "replay", "-", *FAST, stdin=good + b"{\n", API_BASE_URL=monitor.url
    )
    told(ended, "standard input, line 3: not JSON")
    assert stored_classes(monitor) == {("replay", "cat"): 0.5, ("replay", "dog"): 0.9}
    assert b"everything delivered" in ended.stdout


def test_a_bad_line_in_a_pipe_is_told(peakhold, told, monitor):
    ended = peakhold("replay", "-", "--api-url", monitor.url, stdin=b"[1, 2]\n")

    told(ended, "standard input, line 1", "JSON object")


def test_a_pipe_cannot_be_looped_or_joined(peakhold, told):
    told(peakhold("replay", "-", "--loop"), "--loop")
    told(peakhold("replay", "-", "other.jsonl"), "other files")


def test_a_missing_key_is_told(peakhold, told, boxes):
    ended = peakhold("replay", boxes([("a", 0.5)]), "--api-url", "http://api.invalid")

    told(ended, "ROBOFLOW_API_KEY")


@pytest.mark.parametrize("url", ["nonsense", "ftp://host", "http://", "http://h:99999"])
def test_a_bad_url_is_told(peakhold, told, boxes, url):
    told(peakhold("replay", boxes([("a", 0.5)]), "--api-url", url), "--api-url")


def test_a_bad_variable_is_told(peakhold, told, boxes, monitor):
    recording = boxes([("a", 0.5)])

    told(peakhold("replay", recording, API_BASE_URL="nonsense"), "API_BASE_URL")
    told(peakhold("replay", recording, OFFLINE_MODE="True"), "OFFLINE_MODE")
    told(
        peakhold(
            *("replay", recording, "--api-url", "http://127.0.0.1:9"),
            PEAKHOLD_METADATA_REQUESTS_PER_SECOND="many",
        ),
        "PEAKHOLD_METADATA_REQUESTS_PER_SECOND",
    )
    told(
        peakhold(
            *("replay", recording, "--api-url", monitor.url),
            PEAKHOLD_MAX_CLASSES="x",
        ),
        "PEAKHOLD_MAX_CLASSES must be a whole number",
    )


def test_an_unreachable_api_is_told(peakhold, told, boxes):
    # Port 9, discard: nothing listens there.
    ended = peakhold("replay", boxes([("a", 0.5)]), "--api-url", "http://127.0.0.1:9")

    told(ended, "127.0.0.1:9", "API_BASE_URL")


def test_a_refused_key_is_told_without_showing_it(peakhold, told, refusing_api, boxes):
    url = refusing_api(200, lookup=401)

    ended = peakhold(
        *("replay", boxes([("a", 0.5)]), "--api-url", url),
        ROBOFLOW_API_KEY="canary-5d41402abc",
    )

    told(ended, "401", "ROBOFLOW_API_KEY")
    assert b"canary-5d41402abc" not in ended.stdout + ended.stderr
