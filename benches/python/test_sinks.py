"""Whole `run()` calls of the blocks: between reports, at a close, and metadata."""

from __future__ import annotations

import time

import frames as make
import pytest
import reference
from sinks import CLOSED, NEVER, observer, observing, registering, wait_for_close
from windows import Plain

CONTENDERS = ["peakhold", *(["reference"] if reference.installed() else [])]


def lines(report):
    """Return what a report says, in a form that can be compared."""
    fields = ("class_name", "confidence", "inference_id", "model_id", "model_type")
    return [[line[field] for field in fields] for line in report["inference_results"]]


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("rows", [1, 10, 100, 1000])
def test_run_between_reports(rows, contender, blocks, benchmark, record):
    frames = make.several(make.detections, rows)
    block, key = blocks[contender].aggregator, f"between-{rows}"
    first = observer(block, key, NEVER)(frames[0])
    correct = first["message"] == "Not in reporting range, skipping report. (Ok)"
    scenario = f"{rows:,} detections"
    record("run between reports", scenario, contender, correct=correct, frames=64)
    benchmark(observing(block, key, frames))


@pytest.mark.parametrize("contender", CONTENDERS)
def test_run_that_closes(contender, blocks, server, benchmark, record, rounds):
    """The call at the end of a second in which 15,000 detections came."""
    frames = make.several(make.detections, 100)
    stream = (frames * 3)[:150]
    sinks = blocks[contender]
    run = observer(sinks.aggregator, f"closing-{contender}")
    beside = observing(sinks.beside, f"beside-{contender}", frames)

    def fill():
        run(frames[0])  # ends the window before, if that is due
        sinks.deliver()
        began = time.monotonic()
        for frame in stream[:-1]:
            run(frame)
        wait_for_close(began, beside)

    fill()
    assert run(stream[-1])["message"] == CLOSED
    sinks.deliver()
    posts = [post for post in server.settle() if post.path.endswith("stats")]
    oracle = Plain()
    for frame in [frames[0], *stream]:
        oracle.observe(frame, make.MODEL_ID)
    wanted = [list(line) for line in oracle.drain()]
    right = sorted(lines(posts[-1].body)) == sorted(
        [name, score, inference, model, kind]
        for model, name, score, inference, kind in wanted
    )
    scenario = "15,000 detections"
    record("run that closes a window", scenario, contender, correct=right, frames=1)
    benchmark.pedantic(run, args=(stream[-1],), setup=fill, rounds=rounds(5))
    sinks.deliver()


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("rows", [100, 1000])
def test_custom_metadata_run(
    rows, contender, blocks, server, benchmark, record, rounds
):
    frames = make.several(make.detections, rows)
    sinks = blocks[contender]
    before = len(server.settle())
    registering(sinks.metadata, frames[:1])()
    sinks.deliver()
    arrived = [
        entry["inference_ids"]
        for post in server.settle()[before:]
        for entry in post.body["data"]
    ]
    right = arrived == [[str(frames[0].data["inference_id"][0])]]
    scenario = f"{rows:,} detections"
    record("custom metadata run", scenario, contender, correct=right, frames=64)

    def new_frames():
        # Here, so that no request of the last round takes part of this one.
        sinks.deliver()
        make.renew_ids(frames)

    benchmark.pedantic(
        registering(sinks.metadata, frames), setup=new_frames, rounds=rounds(40)
    )
