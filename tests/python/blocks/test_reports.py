"""Model Monitoring Inference Aggregator: consolidation and the request."""

from __future__ import annotations

import json
import logging
from datetime import datetime

import pytest
from stand_ins import results_of

from peakhold.testing import Answer

NOT_IN_RANGE = {
    "error_status": False,
    "message": "Not in reporting range, skipping report. (Ok)",
}
SENT = {"error_status": False, "message": "Data sent successfully"}


def test_one_representative_per_class_across_models_in_the_contract_s_order(
    aggregator, run, cache, cache_key, client, make_detections
):
    cache.values[cache_key] = datetime.now().isoformat()  # noqa: DTZ005
    block = aggregator(platform_client=client)
    kind = "object-detection"
    frames = [
        ("m1", ["a", "b"], [0.5, 0.9], ["id1", "id2"]),
        ("m2", ["b", "a"], [0.5, 0.9], ["id3", "id4"]),
        ("m1", ["a", "c"], [0.9, 0.9], ["id5", "id6"]),
    ]
    for model, names, confidences, ids in frames:
        detections = make_detections(names, confidences, ids, kind)
        assert run(block, detections, model_id=model) == NOT_IN_RANGE
    (window,) = block._windows.values()
    window.interval.last_report = float("-inf")
    cache.values[cache_key] = "2001-01-01"
    assert run(block, None) == SENT
    point_nine = 0.8999999761581421
    expected = [("a", "id5"), ("b", "id2"), ("c", "id6")]
    assert client.reports()[0]["inference_results"] == [
        {
            "model_id": "m1",
            "class_name": class_name,
            "confidence": point_nine,
            "inference_id": inference_id,
            "model_type": kind,
        }
        for class_name, inference_id in expected
    ]


def test_the_request(environment, aggregator, run, overdue, api, api_key, frame):
    environment.setenv("DEVICE_ID", "camera 4")
    assert run(aggregator(), frame("dog", 0.75, "id9")) == SENT
    (post,) = api.posts()
    assert post.method == "POST"
    assert post.path == "/spaceship/inference-stats"
    assert post.query == {"api_key": [api_key]}
    body = post.json()
    assert datetime.fromisoformat(body.pop("timestamp")).tzinfo is None
    assert body.pop("inference_server_version").startswith("peakhold-")
    info = ["platform", "platform_release", "platform_version", "architecture"]
    info += ["hostname", "ip_address", "mac_address", "processor"]
    assert all(isinstance(body.pop(name), str) for name in info)
    assert body == {
        "source": "workflow",
        "source_info": "ModelMonitoringInferenceAggregatorBlockV1",
        "device_id": "camera 4",
        "inference_results": [
            {
                "model_id": "project/3",
                "class_name": "dog",
                "confidence": 0.75,
                "inference_id": "id9",
                "model_type": "classification",
            }
        ],
    }


def test_a_bad_row_never_costs_the_window(aggregator, run, overdue, client, frame):
    poison = frame()
    poison["predictions"] = [
        {"class": "nan", "confidence": float("nan")},
        {"class": None, "confidence": 0.5},
        {"class": "good", "confidence": 0.25},
    ]
    with pytest.MonkeyPatch.context() as quiet:
        quiet.setattr(logging.getLogger("peakhold"), "disabled", True)
        assert run(aggregator(platform_client=client), poison) == SENT
    (report,) = client.reports()
    assert [r["class_name"] for r in report["inference_results"]] == ["good"]
    json.dumps(report, allow_nan=False)


def test_a_window_of_9000_classes_arrives_as_several_requests(
    aggregator, run, overdue, api
):
    names = [f"a rather long name of a class, number {n:06d}" for n in range(9_000)]
    frame = {
        "inference_id": "i",
        "predictions": {n: {"confidence": 0.5} for n in names},
    }
    assert run(aggregator(), frame) == SENT
    requests = api.accepted()
    assert len(requests) > 1
    assert all(len(request.body) <= 512 * 1024 for request in requests)
    assert len({r.headers["Idempotency-Key"] for r in requests}) == len(requests)
    assert [r["class_name"] for q in requests for r in results_of(q)] == names


def test_no_api_key_in_messages_results_or_logs(
    aggregator, run, overdue, api, api_key, caplog
):
    api.failures = [Answer(403, f"no: {api_key}".encode())]
    with caplog.at_level(logging.DEBUG):
        answer = run(aggregator())
    assert answer["error_status"] is True
    assert api_key not in str(answer)
    shown = "\n".join(f"{record.__dict__}" for record in caplog.records)
    assert "urllib3" in shown  # the control: requests were logged at all
    assert api_key not in shown
