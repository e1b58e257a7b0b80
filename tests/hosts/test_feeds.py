"""The aggregator of feeds in a workflow: a window per camera, and crops told apart."""

from __future__ import annotations

import time
import uuid
from types import SimpleNamespace

import numpy as np
import pytest
import supervision as sv
from arrived import Arrived
from frames import random_frames
from host import AGGREGATOR, API_KEY, PLUGIN, steps_of

from peakhold.delivery import current

OF_FEEDS = "peakhold/model_monitoring_inference_aggregator@v2"
CROPS = {
    "static": "roboflow_core/absolute_static_crop@v1",
    "dynamic": "roboflow_core/dynamic_crop@v1",
}


@pytest.fixture(scope="module")
def block(host):
    host.module("execution_engine.introspection.blocks_loader")
    return __import__(PLUGIN, fromlist=["load_blocks"]).load_blocks()[2]


def workflow(*steps, **properties):
    """Steps before the aggregator, and what its properties are."""
    aggregator = {
        "type": OF_FEEDS,
        "name": "monitoring",
        "predictions": "$inputs.predictions",
        "model_id": "gate/1",
        "frequency": 3600,
        "unique_aggregator_key": f"feeds-{uuid.uuid4()}",
        **properties,
    }
    return {
        "version": "1.4.0",
        "inputs": [
            {"type": "WorkflowImage", "name": "image"},
            {"type": "WorkflowBatchInput", "name": "predictions", "kind": ["*"]},
            {"type": "WorkflowParameter", "name": "camera", "default_value": None},
        ],
        "steps": [*steps, aggregator],
        "outputs": [
            {
                "type": "JsonField",
                "name": "monitoring",
                "selector": "$steps.monitoring.*",
            }
        ],
    }


def image_of(video=None, **others):
    """An image as an `InferencePipeline`, or the caller of a server, hands it over."""
    made = {"type": "numpy_object", "value": np.zeros((64, 64, 3), np.uint8), **others}
    if video is not None:
        made["video_metadata"] = {
            "video_identifier": video,
            "frame_number": 1,
            "frame_timestamp": "2026-11-29T00:00:00",
            "fps": 30,
        }
    return made


def detections_of(inference_id, rows=1):
    boxes = [[8 * row, 8, 8 * row + 16, 24] for row in range(rows)]
    columns = {
        "class_name": ["car"] * rows,
        "inference_id": [inference_id] * rows,
        "prediction_type": ["object-detection"] * rows,
        "detection_id": [f"{inference_id} {row}" for row in range(rows)],
        "parent_id": ["image.[0]"] * rows,
    }
    return sv.Detections(
        xyxy=np.array(boxes, dtype=np.float32),
        confidence=np.full(rows, 0.5, dtype=np.float32),
        class_id=np.zeros(rows, dtype=int),
        data={name: np.array(values) for name, values in columns.items()},
    )


@pytest.fixture
def arrived(monitor):
    return Arrived(monitor)


def run(host, definition, images, predictions, **parameters):
    engine = host.compile(definition)
    return engine.run(
        runtime_parameters={
            "image": images,
            "predictions": predictions,
            **parameters,
        }
    )


def test_the_drop_in_identifier_is_the_first_version_and_ours_the_second(host, block):
    made = steps_of(host.compile(workflow(image="$inputs.image")))
    assert type(made["monitoring"]) is block
    assert block.__name__ == "ModelMonitoringInferenceAggregatorBlockV2"
    made = steps_of(host.compile(workflow(type=AGGREGATOR)))
    assert type(made["monitoring"]).__name__.endswith("BlockV1")


def test_its_properties_are_those_of_the_first_version_and_two_more(block):
    first, *_ = __import__(PLUGIN, fromlist=["load_blocks"]).load_blocks()
    before, schema = (
        each.get_manifest().model_json_schema() for each in (first, block)
    )
    added = set(schema["properties"]) - set(before["properties"])
    assert added == {"image", "feed"}
    assert schema["required"] == before["required"]
    assert schema["version"] == "v2"
    for name in added:
        assert schema["properties"][name]["default"] is None
        assert schema["properties"][name]["description"]
    for name in set(before["properties"]) - {"type"}:
        assert schema["properties"][name] == before["properties"][name]
    assert schema["properties"]["type"]["const"] == OF_FEEDS


def test_every_video_has_a_window_under_its_identifier(host, arrived):
    videos = ["0", "1", "rtsp://gate/stream", "0"]
    answers = run(
        host,
        workflow(image="$inputs.image"),
        [image_of(video) for video in videos],
        [detections_of(f"id {at}") for at in range(4)],
    )
    assert {answer["monitoring"]["message"] for answer in answers} == {
        "Not in reporting range, skipping report. (Ok)"
    }
    assert arrived.by_feed() == {
        "0": {"id 0"},  # of equal confidence to the last
        "1": {"id 1"},
        "rtsp://gate/stream": {"id 2"},
    }


def test_an_image_without_a_video_has_the_common_window(host, arrived):
    # Their identifiers would be the places in the batch, or what the caller says.
    images = [image_of(), image_of(), image_of(parent_id="some image")]
    ids = [detections_of(f"id {at}") for at in range(3)]
    run(host, workflow(image="$inputs.image"), images, ids)
    assert arrived.by_feed() == {None: {"id 0"}}


@pytest.mark.parametrize(
    ("feed", "parameters", "expected"),
    [
        ("gate 3", {}, "gate 3"),
        ("$inputs.camera", {"camera": "gate 4"}, "gate 4"),
        ("$inputs.camera", {"camera": ""}, "0"),
        ("$inputs.camera", {}, "0"),
        (None, {}, "0"),  # the control
    ],
)
def test_a_name_that_is_given_wins_over_the_image(
    host, arrived, feed, parameters, expected
):
    definition = workflow(image="$inputs.image", feed=feed)
    run(host, definition, [image_of("0")], [detections_of("id")], **parameters)
    assert arrived.by_feed() == {expected: {"id"}}


def test_a_name_needs_no_image(host, arrived):
    definition = workflow(feed="gate 3")
    run(host, definition, [image_of("0")], [detections_of("id")])
    assert arrived.by_feed() == {"gate 3": {"id"}}


def test_static_crops_are_of_the_feed_of_their_image(host, arrived):
    crop = {
        "type": CROPS["static"],
        "name": "crop",
        "images": "$inputs.image",
        "x_center": 32,
        "y_center": 32,
        "width": 16,
        "height": 16,
    }
    run(
        host,
        workflow(crop, image="$steps.crop.crops"),
        [image_of("0"), image_of("1"), image_of()],
        [detections_of(f"id {at}") for at in range(3)],
    )
    assert arrived.by_feed() == {"0": {"id 0"}, "1": {"id 1"}, None: {"id 2"}}


def test_dynamic_crops_have_no_windows_of_their_own(host, arrived):
    crop = {
        "type": CROPS["dynamic"],
        "name": "crop",
        "images": "$inputs.image",
        "predictions": "$inputs.predictions",
    }
    definition = workflow(
        crop, image="$steps.crop.crops", predictions="$steps.crop.predictions"
    )
    answers = run(
        host,
        definition,
        [image_of("0"), image_of("1")],
        [detections_of("id 0", rows=2), detections_of("id 1", rows=3)],
    )
    # The control: there was a frame of each crop.
    assert [len(answer["monitoring"]) for answer in answers] == [2, 3]
    assert arrived.by_feed() == {None: {"id 0"}}


def nested(host):
    """A crop of a crop, each with the video of the whole image."""
    base = host.module("execution_engine.entities.base")
    image = base.WorkflowImageData(
        parent_metadata=base.ImageParentMetadata(parent_id="image.[0]"),
        numpy_image=np.zeros((64, 64, 3), np.uint8),
        video_metadata=base.VideoMetadata(
            video_identifier="0", frame_number=1, frame_timestamp="2026-11-29T00:00:00"
        ),
    )
    for name in ("outer", "inner"):
        image = base.WorkflowImageData.create_crop(
            origin_image_data=image,
            crop_identifier=name,
            cropped_image=image.numpy_image[:32, :32],
            offset_x=0,
            offset_y=0,
            preserve_video_metadata=True,
        )
    return image


def stranger(video="0", image_id="image.[0]", root_id="image.[0]"):
    """An object with what is read of an image."""
    return SimpleNamespace(
        video_metadata=SimpleNamespace(video_identifier=video),
        parent_metadata=SimpleNamespace(parent_id=image_id),
        workflow_root_ancestor_metadata=SimpleNamespace(parent_id=root_id),
    )


@pytest.mark.parametrize(
    ("make", "expected", "warnings"),
    [
        (nested, "0", 0),
        (lambda _: stranger("a | crop: b"), "a | crop: b", 0),  # no crop
        (lambda _: stranger("a | crop: b", "b"), "a", 0),
        (lambda _: stranger(""), None, 0),
        (lambda _: stranger(7), None, 2),
        (lambda _: stranger(None), None, 2),
        (lambda _: object(), None, 2),
        (lambda _: SimpleNamespace(video_metadata=None), None, 2),
    ],
)
def test_an_image_that_cannot_be_read_stops_no_frame(
    host, block, arrived, caplog, make, expected, warnings
):
    made = block(api_key=API_KEY)
    notices = current().notices
    before = notices.counts["feed"]
    notices._shown.clear()
    key = uuid.uuid4().hex
    for _ in range(2):
        answer = made.run(
            fire_and_forget=True,
            predictions=detections_of("id"),
            frequency=3600,
            unique_aggregator_key=key,
            model_id="gate/1",
            image=make(host),
        )
        assert answer["error_status"] is False
    assert notices.counts["feed"] - before == warnings
    warned = [each for each in caplog.messages if "feed of an image" in each]
    assert len(warned) == bool(warnings)
    assert arrived.by_feed() == {expected: {"id"}}


def answers_and_report(host, monitor, kind, frames):
    """Run frames through a version of the block; returns what came of its window."""
    got = Arrived(monitor)
    engine = host.compile(workflow(type=kind, frequency="$inputs.camera"))
    blank = {"type": "numpy_object", "value": np.zeros((8, 8, 3), np.uint8)}
    answers = []
    *opening, closing = frames
    for batch, frequency in ((opening, "3600"), ([closing], "1")):
        answers += engine.run(
            runtime_parameters={
                "image": [blank] * len(batch),
                "predictions": [frame.predictions for frame in batch],
                "camera": frequency,
            }
        )
        time.sleep(1.1)
    assert current().flush(30)
    (report,) = got.bodies("report")
    assert got.bodies("metadata") == []
    return answers, report | {"timestamp": None}


def test_without_image_and_feed_it_does_what_the_first_version_does(host, monitor):
    frames = random_frames(64, np.random.default_rng(5))
    first = answers_and_report(host, monitor, AGGREGATOR, frames)
    assert answers_and_report(host, monitor, OF_FEEDS, frames) == first
    # The control: other frames make another report.
    loud = {"predictions": {"car": {"confidence": 1.5}}, "inference_id": "loud"}
    frames[7] = frames[7]._replace(predictions=loud)
    assert answers_and_report(host, monitor, OF_FEEDS, frames) != first
