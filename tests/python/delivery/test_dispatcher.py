"""Who delivers when: the worker's turns, pace, backoff, host tasks and timers."""

from __future__ import annotations

import gc
import json
import logging
import threading

import pytest
from stand_ins import (
    PlainSnapshot,
    RaisingCache,
    RecordingClient,
    StatusError,
    conserved,
    eventually,
)

from peakhold.delivery import Dispatcher, MetadataEntry, Sender
from peakhold.delivery.dispatcher import HOST_GRACE
from peakhold.delivery.outbox import MemoryOutbox
from peakhold.delivery.record import seal_metadata, seal_report


def report(sender, window="w", on_first_success=None, **best):
    snapshot = PlainSnapshot(best or {"a": 0.5})
    return seal_report(sender.destination, window, snapshot, on_first_success)


def metadata(sender, *values):
    entries = tuple(MetadataEntry(("id",), "f", value) for value in values)
    return seal_metadata(sender.destination, entries)


def sent(client):
    return len(client.reports())


def test_the_worker_delivers_in_order(working, sender, client):
    for name in ("a", "b", "c"):
        working.deliver(report(sender, **{name: 0.5}), sender)
    assert working.flush(5)
    order = [r["inference_results"][0]["class_name"] for r in client.reports()]
    assert order == ["a", "b", "c"]
    assert {thread.name for thread in client.threads} == {"peakhold"}
    assert working.counts().delivered == 3


def test_injected_operations_get_exactly_their_arguments(
    stepped, sender, client, api_key
):
    stepped.deliver(report(sender), sender)
    stepped.step()
    (((key, workspace, data), keywords),) = client.named(
        "send_inference_results_to_model_monitoring"
    )
    assert (key, workspace, keywords) == (api_key, "spaceship", {})
    assert data["device_id"] == "device-7"
    assert data["inference_server_version"] == "1.2.3"
    assert data["hostname"] == "camera"
    assert client.named("get_roboflow_workspace") == [((api_key,), {})]
    stepped.add_metadata(["i", "j"], "f", "v", sender)
    stepped.step()
    assert client.named("add_custom_metadata") == [
        (
            (),
            {
                "api_key": api_key,
                "workspace_id": "spaceship",
                "inference_ids": ["i", "j"],
                "field_name": "f",
                "field_value": "v",
            },
        )
    ]


def test_only_the_head_is_attempted_while_a_destination_fails(
    stepped, sender, client, clock
):
    client.failures = [StatusError(503)] * 3
    for name in ("a", "b", "c"):
        stepped.deliver(report(sender, name, **{name: 0.5}), sender)
    waits = []
    for _ in range(3):
        waits.append(stepped.step())
        clock.now += waits[-1]
    assert waits == [3.0, 9.0, 27.0]
    heads = [r["inference_results"][0]["class_name"] for r in client.reports()]
    assert heads == ["a", "a", "a"]
    while stepped.step() is not None:
        pass
    heads = [r["inference_results"][0]["class_name"] for r in client.reports()]
    assert heads[3:] == ["a", "b", "c"]


def test_a_failing_destination_does_not_hold_up_another(stepped, sender, client, cache):
    other = RecordingClient()
    other_sender = Sender(other, "key", cache, injected=True)
    client.failures = [StatusError(503)]
    stepped.deliver(report(sender), sender)
    stepped.deliver(report(other_sender), other_sender)
    stepped.step()
    assert (sent(client), sent(other)) == (1, 1)
    assert stepped.counts().delivered == 1


def test_retry_after_is_waited_for(stepped, sender, client, clock):
    client.failures = [StatusError(429, retry_after=50.0)]
    stepped.deliver(report(sender), sender)
    assert stepped.step() == 50.0
    clock.now += 49.9
    stepped.step()
    assert sent(client) == 1
    clock.now += 0.2
    stepped.step()
    assert stepped.counts().delivered == 1


@pytest.mark.parametrize("status", [401, 402, 403, 423])
def test_parked_records_stay_pending_and_are_tried_every_15_minutes(
    stepped, sender, client, clock, status
):
    client.failures = [StatusError(status)]
    stepped.deliver(report(sender), sender)
    assert stepped.step() == 900.0
    assert stepped.counts().pending == 1
    clock.now += 900.0
    stepped.step()
    assert stepped.counts().delivered == 1


@pytest.mark.parametrize("status", [400, 409, 415, 422, 418])
def test_a_refused_record_is_dropped_and_the_next_one_sent(
    stepped, sender, client, status, caplog
):
    client.failures = [StatusError(status)]
    stepped.deliver(report(sender, "x", a=0.1), sender)
    stepped.deliver(report(sender, "y", b=0.1), sender)
    with caplog.at_level(logging.WARNING, "peakhold.delivery"):
        stepped.step()
        stepped.step()
    counts = stepped.counts()
    assert (counts.delivered, counts.pending) == (1, 0)
    assert counts.dropped == {"refused": 1}
    assert conserved(counts)
    assert "dropped" in caplog.text


def test_a_record_that_cannot_be_encoded_does_not_stop_the_others(
    stepped, sender, client
):
    stepped.deliver(report(sender, "x", a=float("nan")), sender)
    stepped.deliver(report(sender, "y", b=0.5), sender)
    stepped.step()
    stepped.step()
    assert stepped.counts().dropped == {"refused": 1}
    assert stepped.counts().delivered == 1


def test_413_splits_until_it_fits_or_drops(stepped, sender, client):
    limit = 2

    def refuse_large(api_key, workspace, data):
        if len(data["inference_results"]) > limit:
            raise StatusError(413)
        taken.extend(result["class_name"] for result in data["inference_results"])

    taken = []
    client.send_inference_results_to_model_monitoring = refuse_large
    names = [f"c{index}" for index in range(7)]
    stepped.deliver(report(sender, **dict.fromkeys(names, 0.5)), sender)
    for _ in range(12):
        stepped.step()
    assert taken == names
    counts = stepped.counts()
    assert (counts.sealed, counts.delivered, counts.pending) == (4, 4, 0)
    limit = 0
    stepped.deliver(report(sender), sender)
    stepped.step()
    assert stepped.counts().dropped == {"too_large": 1}
    assert conserved(stepped.counts())


def test_404_looks_the_workspace_up_once_and_sends_there(
    stepped, sender, client, cache
):
    cache.values[sender.workspace_cache_key] = "old"
    client.failures = [StatusError(404)]
    stepped.deliver(report(sender), sender)
    stepped.step()
    spaces = [
        args[1]
        for args, _ in client.named("send_inference_results_to_model_monitoring")
    ]
    assert spaces == ["old", "spaceship"]
    assert len(client.named("get_roboflow_workspace")) == 1
    assert cache.values[sender.workspace_cache_key] == "spaceship"
    assert stepped.counts().delivered == 1


def test_404_again_is_parked(stepped, sender, client):
    client.failures = [StatusError(404), StatusError(404)]
    stepped.deliver(report(sender), sender)
    assert stepped.step() == 900.0
    assert sent(client) == 2
    assert stepped.counts().pending == 1


def test_a_body_and_its_id_stay_the_same_for_every_attempt(stepped, sender, client):
    client.failures = [StatusError(503)] * 2
    bodies = []
    original = sender.send

    def send(record, workspace):
        bodies.append((record.id, record.body))
        original(record, workspace)

    sender.send = send
    record = report(sender)
    stepped.deliver(record, sender)
    for _ in range(3):
        wait = stepped.step()
        stepped._clock.now += wait or 0
    assert len(bodies) == 3
    assert len(set(bodies)) == 1
    assert bodies[0][0] == record.id


def test_reports_go_out_at_10_a_second_at_most(stepped, sender, client, clock):
    for index in range(35):
        stepped.deliver(report(sender, f"w{index}"), sender)
    times = []
    for _ in range(2_000):
        before = sent(client)
        stepped.step()
        times.extend([clock.now] * (sent(client) - before))
        clock.now += 0.002
    assert len(times) == 35
    assert all(times[at + 10] - times[at] >= 1.0 for at in range(25))
    # The control: as fast as the limit allows, 35 take 3 seconds.
    assert times[-1] - times[0] < 3.2


def test_metadata_goes_out_at_4_requests_a_second_at_most(
    stepped, sender, client, clock
):
    times, ids = [], []
    for index in range(1_000):  # 500 frames a second for 2 seconds
        ids.append(f"id{index}")
        stepped.add_metadata([ids[-1]], "f", "v", sender)
        before = len(client.named("add_custom_metadata"))
        stepped.step()
        times.extend([clock.now] * (len(client.named("add_custom_metadata")) - before))
        clock.now += 0.002
    clock.now += 0.25
    stepped.step()
    calls = client.named("add_custom_metadata")
    assert [i for _, call in calls for i in call["inference_ids"]] == ids
    assert 8 <= len(calls) <= 9
    assert all(after - before >= 0.25 for before, after in zip(times, times[1:]))  # noqa: B905, RUF007 - of Python 3.10


def test_a_failing_destination_keeps_metadata_bounded(sender, client, clock):
    outbox = MemoryOutbox(max_records=3)
    dispatcher = Dispatcher(outbox, clock=clock, worker=False)
    client.lookup_failures = [StatusError(503)] * 10
    for index in range(8_000):
        dispatcher.add_metadata([f"id{index}"], "f", "v", sender)
    dispatcher.step()
    counts = dispatcher.counts()
    assert counts.pending == 3
    assert counts.dropped == {"overflow": 4}
    assert conserved(counts)


def test_what_an_injected_client_took_is_not_sent_again(stepped, sender, client, clock):
    client.failures = [None, None, StatusError(503)]
    stepped.deliver(metadata(sender, "u", "v", "w", "x"), sender)
    clock.now += stepped.step()
    stepped.step()
    values = [call["field_value"] for _, call in client.named("add_custom_metadata")]
    assert values == ["u", "v", "w", "w", "x"]
    counts = stepped.counts()
    assert (counts.sealed, counts.delivered, counts.pending) == (2, 2, 0)


# Synchronous ------------------------------------------------------------------------


def test_a_synchronous_failure_is_returned_and_stays_pending(
    stepped, sender, client, clock
):
    client.failures = [StatusError(503)]
    error = stepped.deliver_now(report(sender), sender)
    assert isinstance(error, StatusError)
    assert stepped.counts().pending == 1
    clock.now += stepped.step()
    stepped.step()
    assert stepped.counts().delivered == 1


def test_a_failing_workspace_lookup_is_returned_and_stays_pending(
    stepped, sender, client
):
    client.lookup_failures = [StatusError(401)]
    assert isinstance(stepped.deliver_now(report(sender), sender), StatusError)
    assert stepped.counts().pending == 1
    assert sent(client) == 0


@pytest.mark.parametrize("workspace", ["", None, 7])
def test_a_workspace_that_is_none_is_an_error(stepped, sender, client, workspace):
    client.workspace = workspace
    error = stepped.deliver_now(report(sender), sender)
    assert "without a workspace" in str(error)
    assert sent(client) == 0


def test_a_synchronous_caller_is_not_held_up_by_backoff_or_pace(
    stepped, sender, client
):
    client.failures = [StatusError(503)]
    stepped.deliver(report(sender), sender)
    stepped.step()
    for _ in range(12):
        assert stepped.deliver_now(report(sender), sender) is None
    assert stepped.counts().delivered == 12
    stepped.step()  # a success ends the backoff: the first one is sent as well
    assert stepped.counts().delivered == 13


def test_a_synchronous_report_over_512_kb_goes_out_whole(stepped, sender, client):
    best = {f"class {index:06d}": 0.5 for index in range(9_000)}
    assert stepped.deliver_now(report(sender, **best), sender) is None
    names = [x["class_name"] for r in client.reports() for x in r["inference_results"]]
    assert names == list(best)
    assert sent(client) > 1


def test_the_rest_of_a_large_report_stays_pending_when_a_part_fails(
    stepped, sender, client, clock
):
    best = {f"class {index:06d}": 0.5 for index in range(12_000)}
    client.failures = [None, StatusError(503)]
    assert stepped.deliver_now(report(sender, **best), sender) is not None
    assert stepped.counts().delivered == 1
    clock.now += stepped.step()
    for _ in range(5):
        stepped.step()
    names = [x["class_name"] for r in client.reports() for x in r["inference_results"]]
    assert sorted(set(names)) == list(best)
    assert stepped.counts().pending == 0
    assert conserved(stepped.counts())


def test_first_success_is_told_and_a_later_one_is_not(stepped, sender, client, clock):
    told = []
    stepped.deliver(report(sender, "w", lambda: told.append("first")), sender)
    stepped.step()
    client.failures = [StatusError(503)]
    stepped.deliver(report(sender, "w", lambda: told.append("second")), sender)
    clock.now += stepped.step()
    stepped.step()
    assert stepped.counts().delivered == 2
    assert told == ["first"]


# Host tasks -------------------------------------------------------------------------


def test_a_host_task_delivers_on_the_host_s_thread(working, sender, client):
    tasks = []
    working.deliver(report(sender), sender, tasks.append)
    assert sent(client) == 0
    tasks[0]()
    assert working.counts().delivered == 1
    assert set(client.threads) == {threading.current_thread()}


def test_a_host_task_delivers_all_that_is_pending(working, sender, client):
    tasks = []
    for index in range(4):
        working.deliver(report(sender, f"w{index}"), sender, tasks.append)
    tasks[0]()
    assert working.counts().delivered == 4
    assert set(client.threads) == {threading.current_thread()}


def test_at_most_one_host_task_is_outstanding_per_destination(stepped, sender, cache):
    tasks, others = [], []
    other = Sender(RecordingClient(), "key", cache, injected=True)
    for _ in range(3):
        stepped.deliver(report(sender), sender, tasks.append)
    stepped.deliver(report(other), other, others.append)
    assert (len(tasks), len(others)) == (1, 1)
    tasks[0]()
    stepped.deliver(report(sender), sender, tasks.append)
    assert len(tasks) == 2


def test_the_worker_delivers_when_the_host_s_task_never_runs(
    stepped, sender, client, clock
):
    tasks = []
    stepped.deliver(report(sender), sender, tasks.append)
    assert stepped.step() == HOST_GRACE
    clock.now += HOST_GRACE - 0.1
    stepped.step()
    assert sent(client) == 0
    clock.now += 0.2
    stepped.step()
    assert stepped.counts().delivered == 1
    tasks[0]()  # late: there is nothing left to do
    assert sent(client) == 1


def test_a_task_that_the_host_threw_away_makes_room_for_the_next(stepped, sender):
    tasks = []
    stepped.deliver(report(sender), sender, tasks.append)
    tasks.clear()
    gc.collect()
    stepped.deliver(report(sender), sender, tasks.append)
    assert len(tasks) == 1


def test_the_worker_delivers_when_the_host_takes_no_task(working, sender, client):
    def full(task):
        raise RuntimeError("cannot schedule new futures after shutdown")

    working.deliver(report(sender), sender, full)
    assert working.flush(5)
    assert client.threads[-1].name == "peakhold"


def test_a_host_that_runs_tasks_at_once_is_fine(stepped, sender, client):
    for _ in range(3):
        stepped.deliver(report(sender), sender, lambda task: task())
    assert stepped.counts().delivered == 3


def test_the_pace_of_metadata_holds_for_host_tasks(stepped, sender, client, clock):
    for index in range(500):
        stepped.add_metadata([f"{index}"], "f", "v", sender, lambda task: task())
        clock.now += 0.002
    assert 4 <= len(client.named("add_custom_metadata")) <= 5
    clock.now += 0.25
    stepped.step()  # the rest is the worker's
    calls = client.named("add_custom_metadata")
    assert sum(len(call["inference_ids"]) for _, call in calls) == 500


def test_a_host_task_stops_at_a_failure(stepped, sender, client):
    client.failures = [StatusError(503)]
    tasks = []
    for index in range(3):
        stepped.deliver(report(sender, f"w{index}"), sender, tasks.append)
    tasks[0]()
    assert sent(client) == 1
    assert stepped.counts().pending == 3


# Timers, caches, notices ------------------------------------------------------------


def test_a_timer_is_called_until_it_returns_none(stepped, clock):
    calls = []

    def timer(now):
        calls.append(now)
        return now + 5 if len(calls) < 3 else None

    stepped.watch(timer, clock.now + 2)
    while (wait := stepped.step()) is not None:
        clock.now += wait
    assert calls == [1_002.0, 1_007.0, 1_012.0]


def test_a_timer_that_raises_does_not_stop_the_worker(stepped, sender, clock):
    def broken(now):
        raise RuntimeError("broken")

    stepped.watch(broken, clock.now)
    stepped.deliver(report(sender), sender)
    stepped.step()
    assert stepped.counts().delivered == 1
    assert stepped.notices.counts["timer"] == 1


def test_the_workspace_is_cached_for_900_seconds_under_the_contract_s_key(
    stepped, client, cache
):
    sender = Sender(client, "abc", cache, injected=True)
    for _ in range(3):
        assert stepped.deliver_now(report(sender), sender) is None
    key = "workflows:api_key_to_workspace:900150983cd24fb0d6963f7d28e17f72"
    assert cache.values == {key: "spaceship"}
    assert cache.expiries == {key: 900}
    assert len(client.named("get_roboflow_workspace")) == 1


class GarbageCache(RaisingCache):
    def get(self, key):
        return {"not": "a workspace"}


@pytest.mark.parametrize("bad", [RaisingCache, GarbageCache])
def test_a_useless_cache_is_counted_and_worked_around(stepped, client, bad):
    sender = Sender(client, "key", bad(), injected=True)
    for _ in range(3):
        assert stepped.deliver_now(report(sender), sender) is None
    assert stepped.notices.counts["cache"] >= 3
    assert len(client.named("get_roboflow_workspace")) == 1


def test_a_cache_without_expiry_is_used_without(stepped, client):
    class Plain(dict):
        def set(self, key, value):
            self[key] = value

    cache = Plain()
    sender = Sender(client, "key", cache, injected=True)
    stepped.deliver_now(report(sender), sender)
    assert list(cache.values()) == ["spaceship"]


def test_deliverers_that_need_the_workspace_at_once_share_a_lookup(working, cache):
    class Slow(RecordingClient):
        def get_roboflow_workspace(self, api_key):
            released.wait(0.3)
            return super().get_roboflow_workspace(api_key)

    released = threading.Event()
    client = Slow()
    sender = Sender(client, "key", cache, injected=True)
    threads = [
        threading.Thread(target=working.deliver_now, args=(report(sender), sender))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(client.named("get_roboflow_workspace")) == 1
    assert sent(client) == 8


def test_warnings_are_one_a_minute_and_cause_and_recovery_is_told_once(
    stepped, sender, client, clock, caplog
):
    client.failures = [StatusError(503)] * 70
    stepped.deliver(report(sender), sender)
    with caplog.at_level(logging.INFO, "peakhold.delivery"):
        started = clock.now
        while (wait := stepped.step()) is not None:
            clock.now += wait
    minutes = (clock.now - started) / 60
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert minutes >= 60  # the control: an hour passed, with 70 failures
    assert len(warnings) <= minutes + 1
    infos = [r.getMessage() for r in caplog.records if r.levelno == logging.INFO]
    assert len(infos) == 1
    assert "works again after 70 failed attempts" in infos[0]


def test_a_key_in_an_injected_client_s_exception_is_not_shown(
    stepped, sender, client, api_key, caplog
):
    client.failures = [StatusError(503, text=f"GET /?api_key={api_key} and {api_key}")]
    with caplog.at_level(logging.DEBUG):
        error = stepped.deliver_now(report(sender), sender)
    assert api_key in str(error)  # the control: the key was there to be shown
    assert api_key not in sender.describe(error)
    assert "StatusError" in caplog.text
    assert api_key not in caplog.text
    assert api_key not in repr(sender)
    assert api_key not in json.dumps(stepped.counts().__dict__)
    with pytest.raises(TypeError, match="cannot be pickled"):
        sender.__reduce__()


def test_a_destination_that_has_nothing_to_send_is_forgotten(stepped, sender, clock):
    stepped.deliver(report(sender), sender)
    stepped.step()
    assert len(stepped._lanes) == 1
    clock.now += 601
    stepped.step()
    assert stepped._lanes == {}


def test_destinations_that_cannot_be_reached_stay_bounded(clock, cache):
    dispatcher = Dispatcher(MemoryOutbox(max_records=5), clock=clock, worker=False)
    for _ in range(20):  # as a host may do that makes a client per request
        client = RecordingClient()
        client.lookup_failures = [StatusError(503, retry_after=3_600)] * 5
        each = Sender(client, "key", cache, injected=True)
        dispatcher.add_metadata(["id"], "f", "v", each)
        cache.values.clear()
        dispatcher.step()
        dispatcher.add_metadata(["id2"], "f", "v", each)
    assert len(dispatcher._lanes) == 20
    clock.now += 601
    dispatcher.step()
    dispatcher.step()
    assert len(dispatcher._lanes) <= 5
    counts = dispatcher.counts()
    assert (counts.sealed, counts.pending) == (40, 5)
    assert conserved(counts)


def test_eight_threads_lose_nothing(working, sender, client):
    client.failures = [None, StatusError(503), None, StatusError(500)] * 3

    def seal(number):
        for index in range(12):
            name = f"{number}-{index}"
            if index % 4 == 0:
                working.deliver_now(report(sender, name, **{name: 0.5}), sender)
            else:
                working.deliver(report(sender, name, **{name: 0.5}), sender)

    working._lanes.clear()
    threads = [threading.Thread(target=seal, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The pace of reports would take seconds: the worker's lanes may go faster here.
    for lane in working._lanes.values():
        lane.paces["report"]._seconds = 0.0
    working._signal()
    assert eventually(lambda: working.counts().pending == 0)
    assert working.counts().delivered == working.counts().sealed == 48
    names = {x["class_name"] for r in client.reports() for x in r["inference_results"]}
    assert len(names) == 48
