"""Reading recordings: every layout, and what is wrong with a line."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from peakhold.cli.errors import CommandError
from peakhold.cli.predictions import parse_line, supervision
from peakhold.cli.recording import load_frames, read_frames

BOX = {"x": 100.0, "y": 50.0, "width": 40.0, "height": 20.0}
DOG = {**BOX, "confidence": 0.9, "class": "dog", "class_id": 16, "detection_id": "d"}
IMAGE = {"width": 640, "height": 427}
POINTS = [{"x": 90.0, "y": 45.0}, {"x": 110.0, "y": 45.0}, {"x": 100.0, "y": 60.0}]
KEYPOINTS = [{"x": 1.0, "y": 2.0, "confidence": 0.5, "class_id": 0, "class": "nose"}]


def wrapped(kind, response, layout="list"):
    return {
        "model": "yolo/3",
        "prediction_type": kind,
        "layout": layout,
        "response": {"image": IMAGE, "inference_id": None, **response},
    }


def write(path, *lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        ("object-detection", {}),
        ("instance-segmentation", {"points": POINTS}),
        ("keypoint-detection", {"keypoints": KEYPOINTS}),
    ],
)
def test_a_response_with_boxes_becomes_detections(kind, extra):
    response = {"predictions": [{**DOG, **extra}, {**DOG, "class": "cat"}]}
    response["predictions"][1]["confidence"] = 0.25

    for line in (wrapped(kind, response), {"image": IMAGE, **response}):
        prediction = parse_line(line, "plain/1")
        made = prediction.make("id-1")

        assert isinstance(made, supervision().Detections)
        assert made.xyxy.tolist() == [[80, 40, 120, 60]] * 2
        assert made.confidence.tolist() == [0.9, 0.25]
        assert made.class_id.tolist() == [16, 16]
        assert made.data["class_name"].tolist() == ["dog", "cat"]
        assert made.data["inference_id"].tolist() == ["id-1"] * 2
        # A server does not say the type; it shows in the rows.
        assert made.data["prediction_type"].tolist() == [kind] * 2
        assert made.metadata["inference_id"] == "id-1"
        assert prediction.rows == 2
        assert prediction.inference_id is None

    assert parse_line(wrapped(kind, response), "plain/1").model_id == "yolo/3"
    assert parse_line(response, "plain/1").model_id == "plain/1"


def test_a_single_label_classification_stays_a_dict():
    rows = [{"class": "dog", "class_id": 1, "confidence": 0.75}]
    response = {"predictions": rows, "top": "dog", "confidence": 0.75}

    for line in (wrapped("classification", response), {"image": IMAGE, **response}):
        prediction = parse_line(line, "plain/1")
        made = prediction.make("id-1")

        assert made["predictions"] == rows
        assert made["top"] == "dog"
        assert made["inference_id"] == "id-1"
        assert made["prediction_type"] == "classification"
        assert prediction.rows == 1


def test_a_multi_label_classification_stays_a_dict():
    classes = {"dog": {"confidence": 0.75, "class_id": 0}, "cat": {"confidence": 0.5}}
    response = {"predictions": classes, "predicted_classes": ["dog"]}

    for line in (wrapped("classification", response, "dict"), response):
        prediction = parse_line(line, "plain/1")

        assert prediction.make("id-1")["predictions"] == classes
        assert prediction.make("id-1")["prediction_type"] == "classification"
        assert prediction.rows == 2


def test_boxes_of_an_image_become_detections():
    row = {"class": "tvmonitor", "confidence": 0.47, "xyxy": [0.0, 13, 174, 244]}

    made = parse_line({"image": "2007_000027", "detections": [row]}, "voc/1").make("i")

    assert made.xyxy.tolist() == [[0, 13, 174, 244]]
    assert made.data["class_name"].tolist() == ["tvmonitor"]
    assert made.data["prediction_type"].tolist() == ["object-detection"]
    assert made.class_id is None


def test_a_frame_without_rows_keeps_its_inference_id():
    made = parse_line({"detections": []}, "voc/1").make("id-1")

    assert len(made) == 0
    assert made.xyxy.shape == (0, 4)
    assert made.metadata["inference_id"] == "id-1"


def test_a_recorded_inference_id_is_kept_until_it_is_taken_off():
    line = wrapped("object-detection", {"predictions": [DOG], "inference_id": "rec-1"})

    prediction = parse_line(line, "plain/1")

    assert prediction.inference_id == "rec-1"
    assert prediction.without_id().inference_id is None
    assert prediction.without_id().make("x").confidence.tolist() == [0.9]


@pytest.mark.parametrize("confidence", [None, "0.5", True, 10**400])
def test_a_strange_confidence_is_left_to_the_sinks(confidence):
    rows = [{**DOG, "confidence": confidence}, DOG]

    made = parse_line({"predictions": rows}, "plain/1").make("i")

    assert made.confidence.dtype == np.dtype(object)
    assert made.confidence.tolist() == [confidence, 0.9]


@pytest.mark.parametrize("name", [None, 7, "x" * 100_000])
def test_a_strange_class_name_is_left_to_the_sinks(name):
    rows = [{**DOG, "class": name}, DOG]

    made = parse_line({"predictions": rows}, "plain/1").make("i")

    assert made.data["class_name"].dtype == np.dtype(object)
    assert made.data["class_name"].tolist() == [name, "dog"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ([1, 2], "JSON object"),
        (None, "JSON object"),
        ({"image": "x"}, "neither"),
        ({"response": [1]}, "neither"),
        ({"response": {"image": IMAGE}}, "neither"),
        ({"predictions": 7}, "list"),
        ({"predictions": ["dog"]}, "list"),
        ({"predictions": {"dog": 0.5}}, "each class"),
        ({"detections": {"dog": 0.5}}, "list"),
        ({"detections": [{"class": "dog"}]}, '"x"'),
        ({"detections": [{"xyxy": [1, 2, 3]}]}, "four numbers"),
        ({"detections": [{"xyxy": [1, 2, 3, "4"]}]}, "xyxy"),
        ({"detections": [{"xyxy": [1, 2, 3, True]}]}, "xyxy"),
        ({"detections": [{"xyxy": [1, 2, 3, 10**400]}]}, "xyxy"),
        ({"predictions": [{**DOG, "width": None}]}, "width"),
        ({"predictions": [{**DOG, "height": float("nan")}]}, "height"),
        ({"model": 7, "detections": []}, "model"),
        ({"predictions": [], "inference_id": 7}, "inference_id"),
    ],
)
def test_a_line_of_another_shape_is_told(tmp_path, line, words):
    recording = write(tmp_path / "bad.jsonl", {"detections": []}, line)

    with pytest.raises(CommandError, match="line 2") as told:
        load_frames([recording], "plain/1")

    assert words in str(told.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"detections": [}', "not JSON"),
        (b'{"detections": []} {"detections": []}', "not JSON"),
        (b'{"detections": [], "image": "\xff"}', "not UTF-8"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"x": ' + b"9" * 10_000 + b"}", "digits"),
    ],
)
def test_a_line_that_cannot_be_read_is_told(tmp_path, content, words):
    recording = tmp_path / "bad.jsonl"
    recording.write_bytes(b"\n" + content + b"\n")

    with pytest.raises(CommandError, match="line 2") as told:
        load_frames([str(recording)], "plain/1")

    assert words in str(told.value)


def test_a_gzip_cut_short_is_told(tmp_path):
    recording = tmp_path / "cut.jsonl.gz"
    whole = gzip.compress(b'{"detections": []}\n' * 1000)
    recording.write_bytes(whole[:-20])

    with pytest.raises(CommandError, match=r"cut\.jsonl\.gz"):
        load_frames([str(recording)], "plain/1")

    recording.write_bytes(whole)
    assert len(load_frames([str(recording)], "plain/1")) == 1000


def test_gzip_is_known_by_its_content_and_a_byte_order_mark_is_skipped(tmp_path):
    zipped, marked = tmp_path / "zipped.jsonl", tmp_path / "marked.jsonl.gz"
    zipped.write_bytes(gzip.compress(b'{"detections": []}'))
    marked.write_bytes(b'\xef\xbb\xbf{"detections": []}\r\n')

    assert len(load_frames([str(zipped), str(marked)], "plain/1")) == 2


def test_models_of_one_image_are_one_frame(tmp_path):
    def line(image, model):
        return {"image": image, "model": model, "detections": []}

    recording = write(
        tmp_path / "frames.jsonl",
        line("1", "a"),
        line("1", "b"),
        line("2", "a"),
        line("2", "a"),  # the same model again: another frame
        line("1", "b"),
        {"model": "a", "predictions": []},
        {"model": "b", "predictions": []},  # no image to share
        {"model": "a", "image": IMAGE, "predictions": []},
        {"model": "b", "image": IMAGE, "predictions": []},  # a size is no name
    )

    frames = read_frames(recording, "plain/1")

    models = [[p.model_id for p in frame.predictions] for frame in frames]
    assert models == [["a", "b"], ["a"], ["a"], ["b"], ["a"], ["b"], ["a"], ["b"]]


def test_every_line_of_the_real_responses_is_read(shared_data):
    kinds = set()
    for name in ("roboflow_responses.jsonl", "voc_detections.jsonl"):
        lines = (shared_data / name).read_text().splitlines()
        frames = load_frames([str(shared_data / name)], "plain/1")
        assert len(frames) == len(lines)
        for frame, line in zip(frames, map(json.loads, lines), strict=True):
            (prediction,) = frame.predictions
            made = prediction.make("id-1")
            kind = line.get("prediction_type", "object-detection")
            if kind == "classification":
                assert made["predictions"] == line["response"]["predictions"]
                kinds.add(kind)
            else:
                rows = line.get("response", line)
                rows = rows.get("detections", rows.get("predictions"))
                assert made.data["class_name"].tolist() == [r["class"] for r in rows]
                assert made.data["prediction_type"].tolist() == [kind] * len(rows)
                kinds.add(kind)
    assert kinds == {
        "object-detection",
        "instance-segmentation",
        "keypoint-detection",
        "classification",
    }
