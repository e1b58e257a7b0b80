"""Both sinks behind motion detection in an `InferencePipeline` over a video file."""

from __future__ import annotations

import json
import time
import uuid
from collections import defaultdict
from datetime import datetime
from importlib.util import find_spec
from itertools import pairwise

import pytest
from arrived import Arrived
from host import AGGREGATOR, API_KEY, METADATA, PLUGIN

from peakhold.blocks.windows import REGISTRY
from peakhold.delivery import current

pytestmark = pytest.mark.skipif(
    find_spec("inference") is None,
    reason="this host has no InferencePipeline, it comes with inference",
)

FRAMES = 150
PACE = 0.03
"""Seconds a frame takes, so that the file lasts for several windows."""

# Motion detection gives no inference ids, which the metadata sink needs.
IDENTIFY = f"""
def run(self, detections):
    time.sleep({PACE})
    made = sv.Detections(
        xyxy=detections.xyxy,
        confidence=detections.confidence,
        data={{
            **detections.data,
            "inference_id": np.array([str(uuid.uuid4())] * len(detections)),
            "prediction_type": np.array(["motion"] * len(detections)),
        }},
    )
    return {{"detections": made}}
"""

IDENTIFY_BLOCK = {
    "type": "DynamicBlockDefinition",
    "manifest": {
        "type": "ManifestDescription",
        "block_type": "Identify",
        "inputs": {
            "detections": {
                "type": "DynamicInputDefinition",
                "selector_types": ["step_output"],
            }
        },
        "outputs": {
            "detections": {
                "type": "DynamicOutputDefinition",
                "kind": ["object_detection_prediction"],
            }
        },
    },
    "code": {
        "type": "PythonCode",
        "run_function_code": IDENTIFY,
        "imports": ["import uuid"],
    },
}


def definition(key, frequency, **aggregator):
    return {
        "version": "1.4.0",
        "inputs": [
            {"type": "WorkflowImage", "name": "image"},
            {"type": "WorkflowParameter", "name": "model", "default_value": "motion/1"},
        ],
        "dynamic_blocks_definitions": [IDENTIFY_BLOCK],
        "steps": [
            {
                "type": "roboflow_core/motion_detection@v1",
                "name": "motion",
                "image": "$inputs.image",
                "history": 5,
            },
            {
                "type": "Identify",
                "name": "identify",
                "detections": "$steps.motion.detections",
            },
            {
                "type": AGGREGATOR,
                "name": "monitoring",
                "predictions": "$steps.identify.detections",
                "model_id": "$inputs.model",
                "frequency": frequency,
                "unique_aggregator_key": key,
                **aggregator,
            },
            {
                "type": METADATA,
                "name": "metadata",
                "predictions": "$steps.identify.detections",
                "field_name": "key",
                "field_value": key,
            },
        ],
        "outputs": [
            {
                "type": "JsonField",
                "name": "detections",
                "selector": "$steps.identify.detections",
            },
            {
                "type": "JsonField",
                "name": "message",
                "selector": "$steps.monitoring.message",
            },
        ],
    }


class Run:
    """What went through a pipeline and what the monitor got of it."""

    def __init__(self, monitor):
        self._monitor = monitor
        self._before = len(monitor.store.requests("report"))
        self.key = f"pipeline-{uuid.uuid4()}"
        self.ids = []
        self.messages = []
        self.times = []
        self.ids_of = defaultdict(list)

    def take_batch(self, answers, frames):
        for answer, frame in zip(answers, frames, strict=True):
            if frame is not None:  # its source has ended
                self.take(answer, frame)
                self.ids_of[str(frame.source_id)].append(self.ids[-1])

    def take(self, answer, frame):
        self.times.append(time.monotonic())
        ids = answer["detections"].data["inference_id"]
        self.ids.append(str(ids[0]) if len(ids) else None)
        self.messages.append(answer["message"])

    @property
    def seconds(self):
        """Time from the first frame to the last: a busy machine takes longer."""
        return self.times[-1] - self.times[0]

    def handed_over(self):
        """Return how many windows a frame closed, the monitor may not have all yet."""
        return self.messages.count("Reporting happens in the background task")

    @property
    def reports(self):
        requests = self._monitor.store.requests("report")[self._before :]
        return [json.loads(request.body) for request in requests]

    @property
    def metadata_ids(self):
        bodies = [
            json.loads(request.body)
            for request in self._monitor.store.requests("metadata")
        ]
        return {
            inference_id
            for body in bodies
            for entry in body["data"]
            if entry["field_value"] == self.key
            for inference_id in entry["inference_ids"]
        }

    def first_frames(self):
        """Return the number of the frame that each window's peak came from."""
        return [
            self.ids.index(result["inference_id"])
            for report in self.reports
            for result in report["inference_results"]
        ]


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    from video import make_video

    return make_video(tmp_path_factory.mktemp("video") / "moving.mp4", FRAMES)


@pytest.fixture
def run_pipeline(monitor):
    from inference import InferencePipeline

    def run(video, frequency, **aggregator):
        made = Run(monitor)
        several = isinstance(video, list)
        pipeline = InferencePipeline.init_with_workflow(
            video_reference=list(map(str, video)) if several else str(video),
            workflow_specification=definition(made.key, frequency, **aggregator),
            api_key=API_KEY,
            on_prediction=made.take_batch if several else made.take,
            workflow_init_parameters={f"{PLUGIN}.api_key": API_KEY},
        )
        pipeline.start(use_main_thread=False)
        pipeline.join()
        return made

    yield run
    # What a test that failed left behind would arrive during the next one.
    REGISTRY.flush_all()
    assert current().flush(20)


def gaps(reports):
    times = [datetime.fromisoformat(report["timestamp"]) for report in reports]
    return [(later - earlier).total_seconds() for earlier, later in pairwise(times)]


def test_windows_arrive_at_the_interval_and_the_last_one_after_the_end(
    run_pipeline, video, eventually
):
    done = run_pipeline(video, 1)
    during = done.handed_over()
    assert len(done.ids) == FRAMES
    assert 3 <= during <= done.seconds + 1
    assert eventually(lambda: len(done.reports) == during + 1)
    *_, last = done.first_frames()
    assert set(done.messages) == {
        "Not in reporting range, skipping report. (Ok)",
        "Reporting happens in the background task",
    }
    for report in done.reports:
        (result,) = report["inference_results"]
        assert result.pop("inference_id") in done.ids
        assert result == {
            "model_id": "motion/1",
            "class_name": "motion",
            "confidence": 1.0,
            "model_type": "motion",
        }
    assert done.first_frames() == sorted(set(done.first_frames()))
    # The last report is of the frames that no interval's end came after.
    assert last > len(done.messages) - 1 - done.messages[::-1].index(
        "Reporting happens in the background task"
    )
    assert all(gap >= 0.95 for gap in gaps(done.reports)[:-1])

    assert current().flush(20)
    assert done.metadata_ids == {found for found in done.ids if found}


def test_a_longer_interval_has_fewer_windows(run_pipeline, video, eventually):
    done = run_pipeline(video, 3)
    during = done.handed_over()
    assert 1 <= during <= done.seconds / 3 + 1
    assert eventually(lambda: len(done.reports) == during + 1)
    assert all(gap >= 2.95 for gap in gaps(done.reports)[:-1])


def test_what_does_not_move_is_not_reported(run_pipeline, tmp_path, eventually):
    from video import make_video

    still = make_video(tmp_path / "still.mp4", 60, moving=False)
    done = run_pipeline(still, 1)
    assert len(done.ids) == 60
    assert eventually(lambda: done.reports)
    assert all(report["inference_results"] == [] for report in done.reports)
    assert current().flush(20)
    assert done.metadata_ids == set()


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Of three cameras; the middle one is the first to end."""
    from video import make_video

    folder = tmp_path_factory.mktemp("videos")
    return [
        make_video(folder / f"{at}.mp4", frames, ahead=12 * at)
        for at, frames in enumerate((90, 30, 90))
    ]


OF_FEEDS = {
    "type": "peakhold/model_monitoring_inference_aggregator@v2",
    "image": "$inputs.image",
}


def test_each_of_three_videos_has_its_windows_also_after_the_middle_one_ended(
    run_pipeline, videos, monitor
):
    arrived = Arrived(monitor)
    done = run_pipeline(videos, 1, **OF_FEEDS)
    found = arrived.by_feed()
    assert set(found) == set(done.ids_of) == {"0", "1", "2"}
    for feed, ids in found.items():
        assert ids <= set(done.ids_of[feed])
    # Whatever place in the batch they had then.
    ended = len(done.ids_of["1"])
    assert ended < 40
    for feed in ("0", "2"):
        assert found[feed] & set(done.ids_of[feed][:ended])
        assert found[feed] & set(done.ids_of[feed][ended + 10 :])


def test_the_control_without_feeds_has_windows_of_all_videos_together(
    run_pipeline, videos, monitor
):
    arrived = Arrived(monitor)
    done = run_pipeline(videos, 1)
    assert set(arrived.by_feed()) == {None}
    assert len(done.ids_of) == 3
