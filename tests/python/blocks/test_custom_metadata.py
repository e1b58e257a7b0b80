"""Roboflow Custom Metadata: the rows of its contract, one by one."""

from __future__ import annotations

import copy
import inspect
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from enum import Enum

import numpy as np
import pytest
from stand_ins import StatusError, conserved

from peakhold.blocks import (
    ModelMonitoringInferenceAggregatorBlockV1,
    RoboflowCustomMetadataBlockV1,
)
from peakhold.delivery.health import health
from peakhold.testing import Answer, Reset

SENT = {"error_status": False, "message": "Custom metadata upload was successful"}
IN_BACKGROUND = {
    "error_status": False,
    "message": "Registration happens in the background task",
}
DISABLED = {
    "error_status": False,
    "message": "Sink was disabled by workflow execution policy",
}
NO_IDS = {
    "error_status": True,
    "message": "Custom metadata upload failed because no inference_ids were received. "
    "This is known bug (https://github.com/roboflow/inference/issues/567). "
    "Please provide a report for the problem under mentioned issue.",
}
LINK = "https://docs.roboflow.com/api-reference/authentication#retrieve-an-api-key"


def run(block, predictions=None, **arguments):
    arguments = {
        "fire_and_forget": False,
        "field_name": "line",
        "field_value": "3",
        "predictions": {"inference_id": "id"} if predictions is None else predictions,
        **arguments,
    }
    return block.run(**arguments)


def test_constructor_and_init_parameters_are_those_of_the_other_block():
    one = inspect.signature(RoboflowCustomMetadataBlockV1.__init__)
    other = inspect.signature(ModelMonitoringInferenceAggregatorBlockV1.__init__)
    assert list(one.parameters) == list(other.parameters)
    assert RoboflowCustomMetadataBlockV1.get_init_parameters() == [
        "api_key",
        "cache",
        "background_tasks",
        "thread_pool_executor",
        "disable_sinks",
        "platform_client",
    ]


def test_run_has_the_contract_s_parameters():
    signature = inspect.signature(RoboflowCustomMetadataBlockV1.run)
    assert list(signature.parameters)[1:] == [
        "fire_and_forget",
        "field_name",
        "field_value",
        "predictions",
    ]


def test_no_api_key_raises_in_run():
    block = RoboflowCustomMetadataBlockV1()
    with pytest.raises(ValueError, match="RoboflowCustomMetadata") as info:
        run(block)
    assert str(info.value) == (
        "RoboflowCustomMetadata block cannot run without Roboflow API key. "
        f"If you do not know how to get API key - visit {LINK} to learn how to "
        "retrieve one."
    )


class Unreadable:
    """A prediction whose metadata raises."""

    @property
    def metadata(self):
        raise RuntimeError


def test_a_frame_whose_ids_cannot_be_read_is_counted_in_the_health_figures(
    metadata_block, dispatcher
):
    unread = health(dispatcher)["rejected"].get("prediction_unreadable", {"count": 0})
    for _ in range(2):
        assert run(metadata_block(), Unreadable()) == NO_IDS
    found = health(dispatcher)["rejected"]["prediction_unreadable"]
    assert found["count"] == unread["count"] + 2


def test_sinks_disabled(metadata_block):
    assert run(metadata_block(disable_sinks=True)) == DISABLED
    assert run(RoboflowCustomMetadataBlockV1(disable_sinks=True)) == DISABLED


def test_ids_of_detections_are_unique_values(metadata_block, api, make_detections):
    detections = make_detections(
        ["a", "b", "c", "d"], [0.5] * 4, ["y", "x", "y", "z"], "object-detection"
    )
    assert run(metadata_block(), detections) == SENT
    (entry,) = api.entries()
    assert entry == {
        "inference_ids": ["y", "x", "z"],
        "field_name": "line",
        "field_value": "3",
    }


def test_id_of_a_dict(metadata_block, api):
    assert run(metadata_block(), {"inference_id": "one"}) == SENT
    assert api.entries()[0]["inference_ids"] == ["one"]


@pytest.mark.parametrize(
    "predictions", [{}, {"inference_id": None}, {"inference_id": ""}, [], "text", 7]
)
def test_no_id(metadata_block, api, predictions):
    for fire_and_forget in (True, False):
        answer = run(metadata_block(), predictions, fire_and_forget=fire_and_forget)
        assert answer == NO_IDS
    assert api.requests == []


def test_a_frame_without_detections_and_without_id(metadata_block, make_detections):
    assert run(metadata_block(), make_detections([], [])) == NO_IDS


def test_a_frame_without_detections_names_its_inference_in_metadata(
    metadata_block, api, make_detections
):
    detections = make_detections([], [])
    detections.metadata["inference_id"] = "of the frame"
    assert run(metadata_block(), detections) == SENT
    assert api.entries()[0]["inference_ids"] == ["of the frame"]


@pytest.mark.parametrize("bad", ["", None, 5, np.array(["x"])])
def test_metadata_that_is_no_id_is_none(metadata_block, make_detections, bad):
    detections = make_detections([], [])
    detections.metadata["inference_id"] = bad
    assert run(metadata_block(), detections) == NO_IDS


def test_ids_of_rows_win_over_the_frame_s(metadata_block, api, make_detections):
    detections = make_detections(["a"], [0.5], ["row"])
    detections.metadata["inference_id"] = "frame"
    assert run(metadata_block(), detections) == SENT
    assert api.entries()[0]["inference_ids"] == ["row"]


def test_success_and_request(metadata_block, api, api_key):
    assert run(metadata_block()) == SENT
    (post,) = api.posts()
    assert post.path == "/spaceship/inference-stats/metadata"
    assert post.query == {"api_key": [api_key], "nocache": ["true"]}
    assert post.json() == {
        "data": [{"inference_ids": ["id"], "field_name": "line", "field_value": "3"}]
    }


def test_failure(metadata_block, client, caplog):
    client.failures = [StatusError(503, text="closed")]
    with caplog.at_level(logging.WARNING, "peakhold"):
        answer = run(metadata_block(platform_client=client))
    assert answer == {
        "error_status": True,
        "message": "Error while custom metadata registration. "
        f"Error type: {StatusError}. Details: closed",
    }
    assert "closed" in caplog.text


@pytest.mark.parametrize("fault", [Answer(503), Reset()])
def test_a_synchronous_failure_stays_pending_and_is_delivered_when_the_server_heals(
    metadata_block, api, dispatcher, fault
):
    api.always = fault
    assert run(metadata_block())["error_status"] is True
    assert dispatcher.counts().pending == 1
    api.always = None
    assert dispatcher.flush(5)
    assert len(api.entries()) == 1
    assert len({(p.body, p.headers["Idempotency-Key"]) for p in api.posts()}) == 1


def test_a_value_that_is_no_string_is_sent_as_one(metadata_block, api, dispatcher):
    run(metadata_block(), field_value=7)
    run(metadata_block(), field_value=["a"], fire_and_forget=True)
    assert dispatcher.flush(5)
    assert [entry["field_value"] for entry in api.entries()] == ["7", "['a']"]


class Status(str, Enum):
    """Texts that ``str`` and ``format`` show as something else."""

    FIELD = "state"
    PASS = "pass"
    FRAME = "frame-1"


class Loud(str):
    """A text whose ``__str__`` shouts."""

    __slots__ = ()

    def __str__(self):
        return self.upper()


@pytest.mark.parametrize("fire_and_forget", [True, False])
def test_a_subclass_of_str_counts_as_its_own_characters(
    metadata_block, api, dispatcher, make_detections, fire_and_forget
):
    empty = make_detections([], [])
    empty.metadata["inference_id"] = Status.FRAME
    listed = make_detections(["a"], [0.5])
    listed.data["inference_id"] = [Status.FRAME]
    for predictions in (empty, listed, {"inference_id": Status.FRAME}):
        run(
            metadata_block(),
            predictions,
            field_name=Status.FIELD,
            field_value=Status.PASS,
            fire_and_forget=fire_and_forget,
        )
    run(
        metadata_block(),
        field_name="state",
        field_value=Loud("pass"),
        fire_and_forget=fire_and_forget,
    )
    assert dispatcher.flush(5)
    entries = api.entries()
    assert {(e["field_name"], e["field_value"]) for e in entries} == {("state", "pass")}
    assert {i for e in entries for i in e["inference_ids"]} == {"frame-1", "id"}


def test_500_frames_a_second_go_out_in_4_requests_a_second_each_id_once(
    metadata_block, api, dispatcher
):
    block = metadata_block()
    sent = set()
    started = time.monotonic()
    for index in range(1_000):
        inference_id, value = f"id{index}", str(index % 5)
        sent.add((inference_id, value))
        predictions = {"inference_id": inference_id}
        answer = run(block, predictions, field_value=value, fire_and_forget=True)
        assert answer == IN_BACKGROUND
        pause = started + (index + 1) * 0.002 - time.monotonic()
        if pause > 0:
            time.sleep(pause)
    assert dispatcher.flush(5)
    seconds = time.monotonic() - started
    posts = api.posts(kind="metadata")
    assert len(posts) <= seconds * 4 + 1
    assert len({post.connection for post in posts}) == 1
    arrived = [
        (inference_id, entry["field_value"])
        for entry in api.entries()
        for inference_id in entry["inference_ids"]
    ]
    assert len(arrived) == len(set(arrived)) == 1_000
    assert set(arrived) == sent
    assert conserved(dispatcher.counts())


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_of_a_block_sends_with_the_same_sender(metadata_block, client, copied):
    pool = ThreadPoolExecutor(1)  # which cannot be copied
    block = metadata_block(platform_client=client, thread_pool_executor=pool)
    assert run(copied(block)) == SENT
    assert len(client.entries()) == 1
    pool.shutdown()


def test_offline_mode_says_that_nothing_was_sent(
    environment, metadata_block, api, dispatcher
):
    environment.setenv("OFFLINE_MODE", "True")
    for fire_and_forget in (True, False):
        answer = run(metadata_block(), fire_and_forget=fire_and_forget)
        assert answer["error_status"] is False
        assert answer["message"].startswith("OFFLINE_MODE is on: nothing was sent")
    assert not dispatcher.flush(0.2)
    assert api.requests == []


def test_no_api_key_in_messages_results_or_logs(metadata_block, api, api_key, caplog):
    api.failures = [Answer(403, f"no: {api_key}".encode())]
    with caplog.at_level(logging.DEBUG):
        answer = run(metadata_block())
    assert answer["error_status"] is True
    shown = str(answer) + "\n".join(f"{record.__dict__}" for record in caplog.records)
    assert "urllib3" in shown  # the control: requests were logged at all
    assert api_key not in shown
