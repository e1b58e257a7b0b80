"""Model Monitoring Inference Aggregator: the rows of its contract, one by one."""

from __future__ import annotations

import inspect
import logging
import time
import uuid
from contextlib import suppress
from datetime import datetime, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from stand_ins import StatusError, conserved, eventually, results_of

from peakhold.blocks import ModelMonitoringInferenceAggregatorBlockV1
from peakhold.testing import Answer, Reset

NOT_IN_RANGE = {
    "error_status": False,
    "message": "Not in reporting range, skipping report. (Ok)",
}
SENT = {"error_status": False, "message": "Data sent successfully"}
IN_BACKGROUND = {
    "error_status": False,
    "message": "Reporting happens in the background task",
}
DISABLED = {
    "error_status": False,
    "message": "Sink was disabled by workflow execution policy",
}
LINK = "https://docs.roboflow.com/api-reference/authentication#retrieve-an-api-key"


# Construction -----------------------------------------------------------------------


def test_the_constructor_has_the_contract_s_parameters():
    signature = inspect.signature(ModelMonitoringInferenceAggregatorBlockV1.__init__)
    parameters = list(signature.parameters.values())[1:]
    assert [parameter.name for parameter in parameters] == [
        "cache",
        "api_key",
        "background_tasks",
        "thread_pool_executor",
        "disable_sinks",
        "platform_client",
    ]
    assert all(p.default is not inspect.Parameter.empty for p in parameters)
    assert signature.parameters["disable_sinks"].default is False


def test_get_init_parameters():
    assert ModelMonitoringInferenceAggregatorBlockV1.get_init_parameters() == [
        "api_key",
        "cache",
        "background_tasks",
        "thread_pool_executor",
        "disable_sinks",
        "platform_client",
    ]


def test_no_api_key_raises_in_the_constructor():
    with pytest.raises(ValueError, match="ModelMonitoringInferenceAggregator") as info:
        ModelMonitoringInferenceAggregatorBlockV1()
    assert str(info.value) == (
        "ModelMonitoringInferenceAggregator block cannot run without Roboflow API key. "
        f"If you do not know how to get API key - visit {LINK} to learn how to "
        "retrieve one."
    )


@pytest.mark.parametrize("api_key", [3, b"key", ["key"]])
def test_an_api_key_that_is_no_text_is_told_without_it(api_key):
    with pytest.raises(TypeError, match="must be a str or None, not of type") as info:
        ModelMonitoringInferenceAggregatorBlockV1(api_key=api_key)
    assert str(api_key) not in str(info.value)


def test_a_bad_limit_of_classes_raises_in_the_constructor(aggregator, environment):
    environment.setenv("PEAKHOLD_MAX_CLASSES", "x")
    with pytest.raises(ValueError, match="PEAKHOLD_MAX_CLASSES must be a whole"):
        aggregator()


def test_no_api_key_is_fine_when_sinks_are_disabled(run):
    block = ModelMonitoringInferenceAggregatorBlockV1(disable_sinks=True)
    assert run(block) == DISABLED


@pytest.mark.parametrize("name", ["ROBOFLOW_API_KEY", "API_KEY"])
def test_the_api_key_comes_from_the_environment(environment, api, run, overdue, name):
    environment.setenv(name, "from-environment")
    block = ModelMonitoringInferenceAggregatorBlockV1(cache=overdue)
    assert run(block) == SENT
    assert api.posts()[0].query == {"api_key": ["from-environment"]}


def test_a_key_alone_is_enough(api, run, api_key):
    block = ModelMonitoringInferenceAggregatorBlockV1(api_key=api_key)
    assert run(block, fire_and_forget=True, frequency=1) == NOT_IN_RANGE
    time.sleep(1.01)
    assert run(block, fire_and_forget=True, frequency=1) == IN_BACKGROUND
    assert eventually(lambda: len(api.accepted()) == 1)


# run --------------------------------------------------------------------------------


def test_run_has_the_contract_s_parameters_and_an_optional_feed():
    signature = inspect.signature(ModelMonitoringInferenceAggregatorBlockV1.run)
    _, *required, feed = signature.parameters.values()
    assert [each.name for each in required] == [
        "fire_and_forget",
        "predictions",
        "frequency",
        "unique_aggregator_key",
        "model_id",
    ]
    assert {each.default for each in required} == {inspect.Parameter.empty}
    assert (feed.name, feed.default) == ("feed", None)


def test_sinks_disabled_collects_nothing(aggregator, run, cache):
    block = aggregator(disable_sinks=True)
    assert run(block) == DISABLED
    assert run(block, frequency="nonsense") == DISABLED
    assert (cache.reads, cache.writes) == ([], [])


def test_what_a_window_skipped_is_counted_by_reason(aggregator, run):
    block = aggregator()
    assert block.rejected == {}
    run(block, {"predictions": [{"class": "a", "confidence": float("nan")}]})
    run(block, {"predictions": [{"class": None, "confidence": 0.5}]})
    assert block.rejected == {"confidence_nan": 1, "class_name_not_text": 1}


def test_every_result_is_a_fresh_dict(aggregator, run):
    for block in (aggregator(), aggregator(disable_sinks=True)):
        assert run(block) is not run(block)


@pytest.mark.parametrize("empty", [None, {}, [], "detections"])
def test_collect_only_if_predictions_is_truthy(
    aggregator, run, overdue, client, make_detections, empty
):
    predictions = make_detections([], []) if empty == "detections" else empty
    block = aggregator(platform_client=client)
    assert run(block, predictions) == SENT
    assert client.reports()[0]["inference_results"] == []


def test_interval_absent_is_set_to_now_and_the_first_call_never_reports(
    aggregator, run, cache, cache_key
):
    before = datetime.now()  # noqa: DTZ005 - the contract's times are local
    assert run(aggregator(), frequency=1) == NOT_IN_RANGE
    assert eventually(lambda: list(cache.values) == [cache_key])
    last = datetime.fromisoformat(cache.values[cache_key])
    assert last.tzinfo is None
    assert before <= last <= datetime.now()  # noqa: DTZ005


class Five(str, Enum):
    """A text whose own characters are not what ``str`` returns."""

    SECONDS = "5"


class Index:
    """A whole number for ``int``, and nothing else of a number."""

    def __init__(self, number):
        self.number = number

    def __index__(self):
        return self.number


@pytest.mark.parametrize(
    "frequency",
    [
        *(5, "5", " 5 ", 5.0, Decimal("5.0"), Fraction(5), Five.SECONDS),
        *(np.int64(5), np.float64(5), np.float32(5), np.array(5), Index(5)),
    ],
    ids=lambda frequency: type(frequency).__name__,
)
@pytest.mark.parametrize(
    ("seconds", "expected"), [(4.5, NOT_IN_RANGE), (5.5, SENT), (3600, SENT)]
)
def test_in_range_when_whole_seconds_since_reach_the_frequency(
    aggregator, run, cache, cache_key, client, frequency, seconds, expected
):
    last = datetime.now() - timedelta(seconds=seconds)  # noqa: DTZ005
    cache.values[cache_key] = last.isoformat()
    assert run(aggregator(platform_client=client), frequency=frequency) == expected


def test_in_range_again_after_own_time_reached_the_frequency(aggregator, run, client):
    block = aggregator(platform_client=client)
    started = time.monotonic()
    sent, others = [], set()
    while len(sent) < 2 and time.monotonic() - started < 20:
        answer = run(block, frequency=1)
        if answer == SENT:
            sent.append(time.monotonic())
        else:
            others.add(answer["message"])
        time.sleep(0.01)
    assert len(sent) == len(client.reports()) == 2
    assert sent[0] - started >= 1.0
    assert sent[1] - sent[0] >= 0.99  # the second counts from just before the answer
    assert others == {NOT_IN_RANGE["message"]}


@pytest.mark.parametrize(
    "frequency",
    [
        *(
            0,
            -1,
            2.7,
            np.float32(2.7),
            Decimal("2.7"),
            "2.7",
            "5.0",
            "abc",
            "",
            "0",
            "-3",
            False,
            None,
            float("nan"),
            float("inf"),
            Decimal("NaN"),
            Decimal("1e999999999"),
            5j,
            b"5",
            uuid.uuid4(),
            [5],
            "5_0",
            Index(0),
            "1e3",
            "٣",
        ),
        *(10**9 + 1, 10**400, 10**5_000, -(10**5_000), "9" * 10, "9" * 5_000),
    ],
    ids=lambda frequency: type(frequency).__name__,
)
def test_a_frequency_that_is_not_a_whole_number_raises_before_collecting(
    aggregator, run, overdue, client, frame, frequency
):
    block = aggregator(platform_client=client)
    for _ in range(2):  # the last good value is remembered; a bad one is not
        with pytest.raises(ValueError, match=r"of seconds of at least 1.* not ") as bad:
            run(block, frame("bad"), frequency=frequency)
        assert len(str(bad.value)) < 200
    assert run(block, frame("good")) == SENT
    assert [r["class_name"] for r in client.reports()[0]["inference_results"]] == [
        "good"
    ]


def test_in_range_the_window_is_cleared_and_the_cache_key_set_to_now(
    aggregator, run, overdue, cache_key, client, frame
):
    block = aggregator(platform_client=client)
    before = datetime.now()  # noqa: DTZ005
    assert run(block, frame("first")) == SENT
    assert datetime.fromisoformat(overdue.values[cache_key]) >= before
    assert run(block, frame("second")) == NOT_IN_RANGE
    overdue.values[cache_key] = "2001-01-01"
    block._windows.popitem()[1].interval.last_report = float("-inf")
    assert run(block, frame("third")) == SENT
    classes = [
        [result["class_name"] for result in report["inference_results"]]
        for report in client.reports()
    ]
    assert classes == [["first"], ["second", "third"]]


def test_the_cache_key_is_set_at_closing_and_again_after_the_successful_send(
    aggregator, run, overdue, cache_key, client
):
    order = []
    original = client.send_inference_results_to_model_monitoring

    def send(*args):
        order.append(overdue.values[cache_key])
        original(*args)

    client.send_inference_results_to_model_monitoring = send
    assert run(aggregator(platform_client=client)) == SENT
    writes = [value for key, value in overdue.writes if key == cache_key]
    assert len(writes) == 2
    assert order == writes[:1]
    assert writes[0] < writes[1] == overdue.values[cache_key]


def test_a_failed_send_does_not_set_the_cache_key_again(
    aggregator, run, overdue, cache_key, client
):
    client.failures = [StatusError(503)]
    assert run(aggregator(platform_client=client))["error_status"] is True
    assert len([key for key, _ in overdue.writes if key == cache_key]) == 1


def test_success(aggregator, run, overdue, api):
    assert run(aggregator()) == SENT
    assert len(api.accepted()) == 1


def test_failure_of_the_send(aggregator, run, overdue, client, caplog):
    client.failures = [StatusError(503, text="it is closed")]
    with caplog.at_level(logging.WARNING, "peakhold"):
        answer = run(aggregator(platform_client=client))
    assert answer == {
        "error_status": True,
        "message": "Error while uploading inference data. "
        f"Error type: {StatusError}. Details: it is closed",
    }
    assert "it is closed" in caplog.text


def test_failure_of_the_workspace_lookup_is_answered_not_raised(
    aggregator, run, overdue, api, dispatcher
):
    api.lookups = [Answer(401)]
    answer = run(aggregator())
    assert answer["error_status"] is True
    assert answer["message"].startswith(
        "Error while uploading inference data. Error type: "
        "<class 'peakhold.roboflow.errors.NotAuthorizedError'>. Details: "
    )
    assert dispatcher.counts().parked == 1


@pytest.mark.parametrize("fault", [Answer(503), Answer(429), Reset()])
def test_a_synchronous_failure_stays_pending_and_is_delivered_when_the_server_heals(
    aggregator, run, overdue, api, dispatcher, frame, fault
):
    api.always = fault
    assert run(aggregator(), frame("kept"))["error_status"] is True
    assert dispatcher.counts().pending == 1
    assert api.accepted() == []
    api.always = None
    assert dispatcher.flush(5)
    (request,) = api.accepted()
    assert [result["class_name"] for result in results_of(request)] == ["kept"]
    assert len({(p.body, p.headers["Idempotency-Key"]) for p in api.posts()}) == 1
    assert conserved(dispatcher.counts())


def test_a_window_without_any_prediction_is_still_reported(
    aggregator, run, overdue, api
):
    assert run(aggregator(), None) == SENT
    assert results_of(api.accepted()[0]) == []


@pytest.mark.parametrize("fire_and_forget", [True, False])
def test_offline_mode_says_that_nothing_was_sent(
    environment, aggregator, run, overdue, api, dispatcher, fire_and_forget
):
    environment.setenv("OFFLINE_MODE", "True")
    tasks = []
    pool = SimpleNamespace(submit=tasks.append)
    block = aggregator(thread_pool_executor=pool)
    answer = run(block, fire_and_forget=fire_and_forget)
    assert answer["error_status"] is False
    assert answer["message"].startswith("OFFLINE_MODE is on: nothing was sent")
    assert dispatcher.counts().pending == 1
    assert not dispatcher.flush(0.2)
    assert (api.requests, tasks) == ([], [])
    # The control: online, the same block's record goes out.
    environment.setenv("OFFLINE_MODE", "False")
    overdue.values.update(dict.fromkeys(overdue.values, "2001-01-01"))
    block._windows.popitem()[1].interval.last_report = float("-inf")
    assert run(aggregator()) == SENT
    assert dispatcher.flush(5)
    assert len(api.accepted()) == 2


class InterruptedCache:
    """The test's cache, in which the time limit of a job queue strikes once."""

    def __init__(self, cache, write):
        self._cache = cache
        self._write = write
        self.writes = 0

    def get(self, key):
        return self._cache.get(key)

    def set(self, key, value, expire=None):
        self.writes += "last_report_time" in key
        if self.writes == self._write:
            self._write = None
            raise KeyboardInterrupt
        self._cache.set(key, value, expire)


@pytest.mark.parametrize("fire_and_forget", [True, False])
@pytest.mark.parametrize("write", [1, 2])
def test_an_interrupted_report_arrives_once(
    aggregator, run, client, overdue, dispatcher, write, fire_and_forget
):
    # The first write is at the closing, the second one after the report arrived.
    cache = InterruptedCache(overdue, write)
    block = aggregator(platform_client=client, cache=cache)
    with suppress(KeyboardInterrupt):
        run(block, fire_and_forget=fire_and_forget)
    assert dispatcher.flush(5)
    assert [len(each["inference_results"]) for each in client.reports()] == [1]
    assert eventually(lambda: cache.writes >= write)
