"""`peakhold bench`."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import xml.etree.ElementTree as ET
from array import array
from pathlib import Path

import pytest

from peakhold.cli.bench.agreement import disagreements
from peakhold.cli.bench.contenders import PlainContender
from peakhold.cli.bench.frames import FrameSource
from peakhold.cli.bench.load import Load
from peakhold.cli.bench.measuring import Measured, Timings, measure
from peakhold.cli.bench.memory import memory_gauge
from peakhold.cli.bench.plain import most_confident
from peakhold.cli.bench.plot import write_plot

HOSTILE = {
    "API_BASE_URL": "http://127.0.0.1:9",
    "ROBOFLOW_API_KEY": "canary-5d41402abc",
    "OFFLINE_MODE": "True",
    "SECURE_GATEWAY": "http://127.0.0.1:9",
    "ROBOFLOW_API_EXTRA_HEADERS": "not JSON",
    "PEAKHOLD_METADATA_REQUESTS_PER_SECOND": "many",
    "PEAKHOLD_MAX_CLASSES": "1",
}
SVG = "{http://www.w3.org/2000/svg}"
QUICK = ("--seconds", "1.3", "--fps", "100", "--detections", "20")

windows_has_no_signals = pytest.mark.skipif(
    sys.platform == "win32", reason="signals cannot be sent to a process on Windows"
)
linux_only = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="elsewhere memory is a high-water mark"
)

TAMPERING = (
    "import sys, peakhold.cli.bench.contenders as contenders\n"
    "from peakhold.cli import main\n"
    "honest = contenders.PeakholdContender.reports.fget\n"
    "def lying(self):\n"
    "    reports = honest(self)\n"
    "    reports[-1][0]['confidence'] *= 0.5\n"
    "    return reports\n"
    "contenders.PeakholdContender.reports = property(lying)\n"
    "sys.exit(main(['bench', '--seconds', '0.3', '--fps', '50']))"
)


def load(**changes):
    usual = {
        "detections": 10,
        "classes": 3,
        "threads": 1,
        "fps": 200,
        "frequency": 1,
        "seconds": 0.2,
    }
    return Load(**{**usual, **changes})


def ignore(_frames):
    pass


def test_both_agree_and_the_tables_fit_a_narrow_terminal(peakhold):
    ended = peakhold("bench", *QUICK, COLUMNS="60", **HOSTILE)

    text = ended.stdout.decode()
    assert ended.returncode == 0, ended.stderr.decode()
    assert ended.stderr == b""
    assert re.search(r"reports +agree +agree", text)
    for label in ("p50", "p95", "p99", "max", "a window's end", "frames a second"):
        assert label in text
    assert "nothing was sent" in text
    assert "canary" not in text
    assert max(map(len, text.splitlines())) <= 60


def test_json_is_one_document_and_nothing_else(peakhold, tmp_path):
    plot, state = tmp_path / "frames.svg", tmp_path / "state"
    state.mkdir()
    surroundings = {**HOSTILE, "PEAKHOLD_STATE_DIR": str(state)}
    ended = peakhold("bench", *QUICK, "--json", "--plot", plot, **surroundings)

    results = json.loads(ended.stdout)
    assert ended.returncode == 0, ended.stderr.decode()
    assert results["agree"] is True
    assert results["load"]["detections"] == 20
    assert results["machine"]["peakhold"].startswith("0.")
    assert set(results["contenders"]) == {"peakhold", "plain-python"}
    for figures in results["contenders"].values():
        frame = figures["frame_us"]
        assert 0 < frame["p50"] <= frame["p95"] <= frame["p99"] <= frame["max"]
        assert figures["window_end_us"]["count"] == 1
        assert figures["window_end_us"]["max"] <= frame["max"]
        assert 1 < figures["frames"] <= 130
        assert figures["reports_agree"] is True
    assert list(state.iterdir()) == []
    drawn = ET.parse(plot).getroot()
    assert len(drawn.findall(f".//{SVG}g/{SVG}circle")) == 4  # two in the legend


def test_a_run_in_which_no_window_ends_is_told(peakhold):
    ended = peakhold("bench", "--seconds", "0.3", "--fps", "50")

    assert ended.returncode == 0
    assert ended.stderr.decode() == (
        "peakhold bench: no window ended within 0.3 s: lower --frequency or raise the "
        "seconds to see what that costs\n"
    )


def test_several_threads_observe_and_agree(peakhold):
    ended = peakhold("bench", *QUICK, "--threads", "3", "--json")

    results = json.loads(ended.stdout)
    assert ended.returncode == 0, ended.stderr.decode()
    for figures in results["contenders"].values():
        assert 130 < figures["frames"] <= 390
        assert figures["reports_agree"] is True


def test_a_report_that_is_not_what_the_frames_say_makes_the_exit_code_1(python):
    ended = python(TAMPERING)

    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.startswith(b"peakhold bench: peakhold: ")
    assert re.search(rb"reports +WRONG +agree", ended.stdout)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "tamper",
    [
        lambda reports: reports[-1][0].update(confidence=0.5),
        lambda reports: reports[-1][0].update(inference_id="frame-0000009999"),
        lambda reports: reports[-1].pop(),
        lambda reports: reports.pop(),
    ],
    ids=["confidence", "inference id", "line", "report"],
)
def test_each_thing_that_disagrees_is_found(threads, tamper):
    source, contender = FrameSource(10, 3), PlainContender()
    measured = measure(contender, source, load(threads=threads), ignore)
    contender.finish()
    assert disagreements(contender.reports, measured, source) == []

    tamper(contender.reports)

    assert disagreements(contender.reports, measured, source)


def test_of_many_disagreements_the_first_are_told():
    source, contender = FrameSource(20, 9), PlainContender()
    measured = measure(contender, source, load(threads=2), ignore)
    contender.finish()

    problems = disagreements([], measured, source)

    assert len(problems) == 4
    assert problems[-1] == "and 6 more"


@linux_only
def test_a_soak_shows_memory_over_time(peakhold):
    ended = peakhold("bench", "--soak", "2", "--fps", "100", COLUMNS="60", **HOSTILE)

    lines = ended.stdout.decode().splitlines()
    samples = [line for line in lines if re.match(r" +[\d.]+ +[\d.]+ +[+-]", line)]
    assert ended.returncode == 0, ended.stderr.decode()
    assert ended.stderr == b""
    assert len(samples) > 5
    assert samples[0].split()[2] == "+0.00"
    for label in ("start, warm", "end", "growth", "masks included"):
        assert any(label in line for line in lines)
    assert max(map(len, lines)) <= 60


def test_a_soak_as_json_is_one_document(peakhold):
    ended = peakhold("bench", "--soak", "1", "--fps", "50", "--json")

    results = json.loads(ended.stdout)
    samples = results["samples"]
    assert ended.returncode == 0, ended.stderr.decode()
    assert samples[0]["bytes"] == results["start_bytes"]
    assert samples[-1]["bytes"] == results["end_bytes"]
    assert results["growth_bytes"] == results["end_bytes"] - results["start_bytes"]
    assert 1 < results["frames"] <= 50
    assert samples[-1]["frames"] == results["frames"]
    # 100 masks of 64 x 64, and their columns.
    assert results["passed_bytes"] > results["frames"] * 409_600


@linux_only
def test_a_soak_sees_peakhold_keep_no_frame_and_another_keep_them(python):
    code = (
        "from peakhold.cli.bench.contenders import PeakholdContender, PlainContender\n"
        "from peakhold.cli.bench.load import Load\n"
        "from peakhold.cli.bench.soak import soak\n"
        "load = Load(100, 20, 1, fps=100, frequency=60, seconds=1.6)\n"
        "for contender in (PeakholdContender(kept=1), PlainContender()):\n"
        "    print(soak(load, live=False, contender=contender)['growth_bytes'])"
    )
    ended = python(code)

    assert ended.returncode == 0, ended.stderr
    growths = [int(line) for line in ended.stdout.split()]
    # From 0.8 s to 1.6 s some 80 frames of 0.4 MB pass, in one window.
    assert growths[0] < 2e6
    assert growths[1] > 8e6


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--detections", "0"], "1 to 10,000"),
        (["--classes", "100000"], "1 to 1,000"),
        (["--threads", "9" * 5000], "1 to 64"),
        (["--fps", "0"], "at least 1"),
        (["--seconds", "-1"], "above 0"),
        (["--soak", "0"], "above 0"),
        (["--seconds", "1", "--soak", "1"], "not allowed with"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(peakhold, told, arguments, part):
    told(peakhold("bench", *arguments), part, "--help")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--plot", "{folder}/none/x.svg"], ["cannot write", "writable"]),
        (["--plot", "{folder}/x.png"], ["ends in .svg"]),
        (["--soak", "1", "--plot", "{folder}/x.svg"], ["omit it"]),
        (["--fps", "1e6", "--detections", "10000"], ["in a window", "lower"]),
        (["--fps", "1e6", "--seconds", "3600"], ["frames", "lower --fps"]),
        (["--seconds", "1e-9"], ["raise --seconds"]),
    ],
)
def test_what_cannot_be_done_is_told_before_anything_is_measured(
    peakhold, told, tmp_path, arguments, parts
):
    filled = [argument.format(folder=tmp_path) for argument in arguments]

    told(peakhold("bench", *filled), *parts)

    assert list(tmp_path.iterdir()) == []


def test_a_plot_path_that_is_a_directory_is_told(peakhold, told, tmp_path):
    folder = tmp_path / "x.svg"
    folder.mkdir()

    told(peakhold("bench", "--plot", folder), "cannot write")


def test_without_rich_the_extra_is_named(python, told):
    ended = python(
        "import sys; sys.modules['rich'] = None\n"
        "from peakhold.cli import main; sys.exit(main(['bench']))"
    )

    told(ended, "rich", 'pip install "peakhold[cli]"')


@windows_has_no_signals
@pytest.mark.parametrize("threads", [1, 3])
def test_ctrl_c_ends_it_quietly_and_leaves_nothing_behind(start, tmp_path, threads):
    command = start("bench", "--soak", "60", "--threads", threads, TMPDIR=str(tmp_path))
    command.line_with("+0.00")

    assert any(tmp_path.iterdir())
    assert command.end(signal.SIGINT) == (130, "")
    assert list(tmp_path.iterdir()) == []


def test_the_plain_aggregator_reports_as_the_window_does():
    import peakhold

    source = FrameSource(50, 7)
    window = peakhold.PeakAggregator()
    frames = [source.make(number) for number in range(40)]
    for frame in frames:
        window.observe(frame, "bench/1")

    assert most_confident(("bench/1", frame) for frame in frames) == window.drain()


def test_among_equal_confidences_the_first_is_kept():
    source = FrameSource(1, 1)
    first, second = source.make(0), source.make(0)
    second.data["inference_id"][:] = "frame-later"

    (line,) = most_confident([("m/1", first), ("m/1", second)])

    assert line["inference_id"] == "frame-0000000000"


def test_frames_are_the_same_in_every_run_and_have_ids_of_their_own():
    one, other = FrameSource(5, 3), FrameSource(5, 3)

    assert (one.make(2).confidence == other.make(2).confidence).all()
    assert set(one.make(2).data["inference_id"]) == {"frame-0000000002"}
    assert one.of_id("frame-0000000002").data["inference_id"][0] == "frame-0000000002"
    assert one.make(2).confidence is not one.make(2).confidence


def test_a_plot_of_many_frames_stays_small_and_keeps_the_longest(tmp_path):
    frames = 100_000
    timings = Timings(frames)
    timings.frames = frames
    timings.begins = array("q", range(0, frames * 50_000, 50_000))
    timings.durations = array("q", [2_000] * frames)
    timings.durations[70_000] = 900_000_000
    timings.window_ends = [70_000]
    quick = Timings(1)
    quick.add(0, 1_000, ended_window=False)
    path = tmp_path / "x.svg"

    write_plot(
        path, load(seconds=5), {"a": Measured([timings]), "b": Measured([quick])}
    )

    assert path.stat().st_size < 60_000
    drawn = ET.parse(path).getroot()
    texts = [element.text for element in drawn.iter(f"{SVG}text")]
    assert {"1 \N{MICRO SIGN}s", "100 ms", "1 s", "5"} <= set(texts)
    tops = [
        float(place)
        for path in drawn.iter(f"{SVG}path")
        for place in re.findall(r"V([\d.]+)", path.get("d"))
    ]
    # 0.9 s is just below the line of 1 s, which is the top of the plot.
    assert 85 < min(tops) < 95


@linux_only
def test_the_gauge_sees_what_is_allocated():
    read, what = memory_gauge()
    before = read()
    kept = os.urandom(32 << 20)

    assert what == "resident memory"
    assert read() - before > len(kept) / 2


def test_where_nothing_tells_the_memory_the_remedy_is_told(monkeypatch):
    from peakhold.cli.bench import memory
    from peakhold.cli.errors import CommandError

    monkeypatch.setattr(memory, "_STATM", Path("/nonexistent"))
    monkeypatch.setitem(sys.modules, "resource", None)

    with pytest.raises(CommandError, match="run it on Linux or macOS"):
        memory_gauge()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no getrusage")
def test_without_proc_it_says_that_it_is_a_high_water_mark(monkeypatch):
    from peakhold.cli.bench import memory

    monkeypatch.setattr(memory, "_STATM", Path("/nonexistent"))
    read, what = memory_gauge()

    assert what == "highest resident memory so far"
    assert 1 << 20 < read() < 1 << 40
