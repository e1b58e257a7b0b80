"""What becomes of a record whose attempt failed, and what is said about it."""

from __future__ import annotations

import json
import logging
import time

import pytest
from stand_ins import (
    PlainWindow,
    StatusError,
    conserved,
    eventually,
    metadata,
    report,
    sent,
)

from peakhold.delivery import Dispatcher
from peakhold.delivery.settings import DeliverySettings
from peakhold.outbox import StateDirectory
from peakhold.testing import Answer, LostAcknowledgement, refuse


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


def test_retry_after_is_waited_for_by_the_next_process(
    own_sender, api, clock, state_directory, monkeypatch
):
    monkeypatch.setattr(time, "time", clock.time)

    def start():
        return Dispatcher(StateDirectory(state_directory), clock=clock, worker=False)

    api.failures = [refuse(503, retry_after=600)]
    dead = start()
    dead.deliver(report(own_sender, a=0.5), own_sender)
    dead.step()
    dead.state.release()
    clock.advance(10.0)
    heir = start()
    heir.register(own_sender)
    assert heir.step() <= 590.0
    assert len(api.posts()) == 1
    clock.advance(589.0)
    heir.step()
    assert len(api.posts()) == 1
    clock.advance(2.0)
    heir.step()
    assert len(api.accepted()) == 1
    heir.close(0)


@pytest.mark.parametrize("status", [401, 402, 403, 423])
def test_parked_records_stay_pending_and_are_tried_every_15_minutes(
    stepped, sender, client, clock, status
):
    client.failures = [StatusError(status)]
    stepped.deliver(report(sender), sender)
    assert stepped.step() == 900.0
    assert (stepped.counts().pending, stepped.counts().parked) == (0, 1)
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
    assert (counts.dead, counts.dropped) == (1, {})
    assert conserved(counts)
    assert "dead letter" in caplog.text


def test_a_record_that_cannot_be_encoded_does_not_stop_the_others(
    stepped, sender, client, monkeypatch
):
    stepped.deliver(report(sender, "x", a=0.5), sender)
    with monkeypatch.context() as patch:
        patch.setattr(client, "get_system_info", lambda: {"load": float("nan")})
        stepped.step()
    stepped.deliver(report(sender, "y", b=0.5), sender)
    stepped.step()
    assert stepped.counts().dropped == {"unencodable": 1}
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
    assert stepped.counts().dead == 1
    assert conserved(stepped.counts())


@pytest.mark.parametrize("status", [400, 422, 415])
def test_a_refused_entry_costs_no_other_of_its_request(
    working, own_sender, api, status
):
    api.faults = lambda post: Answer(status) if b'"bad"' in post.body else None
    values = ["u", "v", "w", "bad", "x", "y"]
    working.deliver(metadata(own_sender, *values), own_sender)
    assert working.flush(20)
    counts = working.counts()
    assert conserved(counts)
    assert counts.dead == 1
    taken = [entry["field_value"] for entry in api.entries()]
    if status == 415:  # the control: it says nothing about single entries
        assert taken == []
    else:
        assert taken == [value for value in values if value != "bad"]


def test_of_several_values_the_last_one_wins_across_batches_splits_and_retries(
    own_sender, api
):
    fast = DeliverySettings(rate=1_000, metadata_rate=1_000)
    dispatcher = Dispatcher(settings=fast, jitter=lambda low, high: 0.05)
    once = iter((Answer(503), LostAcknowledgement(), Answer(422)))
    api.faults = lambda post: (
        Answer(413) if len(post.body) > 1_000 else next(once, None)
    )
    expected = {}
    for index in range(400):
        inference_id, value = f"id{index % 3}", "xyz"[index * 7 % 5 % 3]
        expected[inference_id] = value
        dispatcher.add_metadata([inference_id], "f", value, own_sender)
        if index == 200:
            assert dispatcher.flush(10)  # what comes now is in other batches
    assert dispatcher.flush(10)
    kept = {
        inference_id: entry["field_value"]
        for entry in api.entries()
        for inference_id in entry["inference_ids"]
    }
    assert kept == expected
    assert len(api.accepted(kind="metadata")) > 2
    assert conserved(dispatcher.counts())
    dispatcher.close(0)


def test_a_refused_lookup_splits_no_metadata(working, own_sender, api):
    api.lookups = [Answer(400)]
    working.deliver(metadata(own_sender, "u", "v"), own_sender)
    assert eventually(lambda: working.counts().parked)
    assert working.counts().sealed == 1


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
    assert stepped.counts().parked == 1


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


def closed(sender, **best):
    return PlainWindow(lambda: report(sender, "w", **best))


def test_the_interval_counts_from_a_first_success_and_from_no_later_one(
    stepped, sender, client, clock
):
    first, second = closed(sender), closed(sender)
    stepped.deliver(first, sender)
    stepped.step()
    client.failures = [StatusError(503)]
    stepped.deliver(second, sender)
    clock.now += stepped.step()
    stepped.step()
    assert stepped.counts().delivered == 2
    assert first.said == ["published", "reported"]
    assert second.said == ["published"]


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
    recovery, caught_up = infos  # of each cause
    assert "works again after 70 failed attempts" in recovery
    assert "have caught up" in caught_up


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


LOOKUP_STATUSES = [400, 405, 413, 422]


@pytest.mark.parametrize("status", LOOKUP_STATUSES)
def test_a_refused_lookup_says_nothing_against_the_record(
    stepped, sender, client, clock, status
):
    client.lookup_failures = [StatusError(status)]
    stepped.deliver(report(sender), sender)
    assert stepped.step() == 900.0
    counts = stepped.counts()
    assert (counts.parked, counts.dead, counts.dropped) == (1, 0, {})
    clock.now += 900.0
    stepped.step()
    assert stepped.counts().delivered == sent(client) == 1
    # The control: of the record itself the same status is the last word.
    client.failures = [StatusError(status)]
    stepped.deliver(report(sender), sender)
    stepped.step()
    assert stepped.counts().dead == 1


@pytest.mark.parametrize("status", LOOKUP_STATUSES)
def test_a_refused_lookup_after_a_404_says_nothing_against_the_record(
    stepped, sender, client, cache, status
):
    cache.values[sender.workspace_cache_key] = "old"
    client.failures = [StatusError(404)]
    client.lookup_failures = [StatusError(status)]
    stepped.deliver(metadata(sender, "v"), sender)
    assert stepped.step() == 900.0
    counts = stepped.counts()
    assert (counts.parked, counts.dead, counts.dropped) == (1, 0, {})


@pytest.mark.parametrize("status", LOOKUP_STATUSES)
def test_facts_that_cannot_be_had_say_nothing_against_the_record(
    stepped, sender, client, monkeypatch, status
):
    def refuse():
        raise StatusError(status)

    with monkeypatch.context() as patch:
        patch.setattr(client, "get_device_id", refuse)
        error = stepped.deliver_now(report(sender), sender)
    assert error.status == status
    assert (stepped.counts().pending, stepped.counts().dropped) == (1, {})
    assert stepped.deliver_now(report(sender), sender) is None  # the control


class Exploding:
    """A record's call-back, or a client's error, that has a bug."""

    def __call__(self):
        raise LookupError("a bug")

    @property
    def retry_after(self):
        raise LookupError("a bug")


class ExplodingError(Exploding, Exception):
    @property
    def status(self):
        raise LookupError("a bug")


@pytest.mark.parametrize(
    "failures", [[ExplodingError()], [StatusError(404), ExplodingError()]]
)
@pytest.mark.parametrize(
    "operation",
    ["get_roboflow_workspace", "send_inference_results_to_model_monitoring"],
)
def test_a_failure_that_cannot_be_read_is_tried_again(
    stepped, sender, client, clock, monkeypatch, operation, failures
):
    left, original = [*failures], getattr(client, operation)

    def fail(*arguments):
        if left:
            raise left.pop(0)
        return original(*arguments)

    monkeypatch.setattr(client, operation, fail)
    errors = []
    monkeypatch.setattr("peakhold.notices.ERROR_CALLBACKS", [errors.append])
    attempts = 0
    while left:
        assert stepped.deliver_now(report(sender), sender) is not None
        attempts += 1
    assert len(errors) == attempts
    assert {error.state for error in errors} <= {"pending", "parked"}
    assert stepped.counts().delivered == 0
    clock.now += 900.0
    stepped.step()
    stepped.step()
    assert stepped.counts().delivered == stepped.counts().sealed
    assert "attempt" not in stepped.notices.counts


def test_what_fails_after_a_delivery_is_no_failure_of_it(stepped, sender, client):
    window = closed(sender)
    window.reported = Exploding()
    assert stepped.deliver_now(window, sender) is None
    assert stepped.counts().delivered == sent(client) == 1
    assert stepped.notices.counts["callback"] == 1


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt])
def test_the_end_of_a_thread_is_not_held_up_and_costs_no_record(
    stepped, sender, client, clock, end
):
    client.failures = [end()]
    with pytest.raises(end):
        stepped.deliver_now(report(sender), sender)
    assert stepped.counts().pending == 1
    clock.now += stepped.step()
    stepped.step()
    assert stepped.counts().delivered == 1
