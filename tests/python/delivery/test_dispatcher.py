"""Who delivers when: lanes, their order, timers, and what is forgotten."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import pytest
from stand_ins import StatusError, conserved, eventually, report, sent

from peakhold.delivery import Dispatcher, Sender
from peakhold.delivery.metadata import BATCH_AGE
from peakhold.delivery.settings import DeliverySettings
from peakhold.testing import RecordingClient


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


def test_metadata_that_cannot_be_sent_is_stored_after_5_seconds(
    stepped, sender, client, clock
):
    client.lookup_failures = [StatusError(503, retry_after=60)]
    stepped.add_metadata(["first"], "f", "v", sender)
    stepped.step()
    assert stepped.counts().sealed == 1  # it was to be sent
    stepped.add_metadata(["i"], "f", "v", sender)
    clock.advance(BATCH_AGE - 0.1)
    stepped.step()
    assert stepped.counts().sealed == 1
    # The control: that old, it goes to the outbox.
    clock.advance(0.2)
    stepped.step()
    assert stepped.counts().sealed == 2


def test_a_timer_is_called_until_it_returns_none(stepped, clock):
    calls = []

    def timer(now):
        calls.append(now)
        return now + 5 if len(calls) < 3 else None

    stepped.watch(timer, clock.now + 2)
    while (wait := stepped.step()) is not None:
        clock.now += wait
    assert calls == [1_002.0, 1_007.0, 1_012.0]


@pytest.mark.parametrize("asked", [None, 2, 9])
def test_a_timer_may_be_set_while_it_is_called(stepped, clock, asked):
    calls = []

    def timer(now):
        calls.append(now)
        if asked and len(calls) == 1:
            stepped.watch(timer, now + asked)
        return now + 5 if len(calls) < 2 else None

    stepped.watch(timer, clock.now)
    while (wait := stepped.step()) is not None:
        clock.now += wait
    assert calls == [1_000.0, 1_002.0 if asked == 2 else 1_005.0]


def test_a_timer_that_raises_does_not_stop_the_worker(stepped, sender, clock):
    def broken(now):
        raise RuntimeError("broken")

    stepped.watch(broken, clock.now)
    stepped.deliver(report(sender), sender)
    stepped.step()
    assert stepped.counts().delivered == 1
    assert stepped.notices.counts["timer"] == 1


def destinations_after(dispatcher, clock, cache, pause):
    """How many destinations are known after one more than those of 20 clients."""
    for number in range(20):
        client = RecordingClient()
        client.lookup_failures = [StatusError(503, retry_after=3_600)] * 5
        each = Sender(client, f"key{number}", cache, injected=True)
        dispatcher.add_metadata(["id"], "f", "v", each)
        cache.values.clear()
        dispatcher.step()
        dispatcher.add_metadata(["id2"], "f", "v", each)
    for _ in range(2):
        clock.now += pause
        dispatcher.step()
        dispatcher.step()
    dispatcher.register(Sender(RecordingClient(), "one more", cache, injected=True))
    dispatcher.step()
    return len(dispatcher._destinations.values())


def test_destinations_that_cannot_be_reached_stay_bounded(clock, cache):
    tiny = DeliverySettings(outbox_mib=0.001)
    dispatcher = Dispatcher(settings=tiny, clock=clock, worker=False)
    assert destinations_after(dispatcher, clock, cache, 601) == 2
    counts = dispatcher.counts()
    assert (counts.sealed, counts.pending) == (40, 1)
    assert conserved(counts)
    other = Dispatcher(settings=tiny, clock=clock, worker=False)
    assert destinations_after(other, clock, cache, 6) == 21  # the control: used lately


def test_eight_threads_lose_nothing(working, sender, client):
    client.failures = [None, StatusError(503), None, StatusError(500)] * 3

    def seal(number):
        for index in range(12):
            name = f"{number}-{index}"
            if index % 4 == 0:
                working.deliver_now(report(sender, name, **{name: 0.5}), sender)
            else:
                working.deliver(report(sender, name, **{name: 0.5}), sender)

    threads = [threading.Thread(target=seal, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # The pace of reports would take seconds: it may go faster here.
    for destination in working._destinations.values():
        destination.pace._seconds = 0.0
        destination.arrange()
    assert eventually(lambda: working.counts().pending == 0)
    assert working.counts().delivered == working.counts().sealed == 48
    names = {x["class_name"] for r in client.reports() for x in r["inference_results"]}
    assert len(names) == 48


def test_timers_outlive_what_is_no_exception(stepped, clock):
    called = []

    def leaving(now):
        called.append("leaving")
        raise SystemExit

    stepped.watch(leaving, clock.now)
    stepped.watch(lambda now: called.append("other"), clock.now)
    for _ in range(2):
        with suppress(SystemExit):
            stepped.step()
    assert sorted(called) == ["leaving", "other"]
    clock.now += 61
    with pytest.raises(SystemExit):
        stepped.step()
    assert len(called) == 3


def test_closing_does_not_wait_for_a_commit_that_hangs(
    working, sender, client, monkeypatch
):
    asked, may_answer = threading.Event(), threading.Event()

    def hang():
        asked.set()
        may_answer.wait(20)

    monkeypatch.setattr(client, "get_device_id", hang)
    working.deliver(report(sender), sender)
    assert asked.wait(5)
    started = time.monotonic()
    working.close(0.5)
    assert time.monotonic() - started < 3
    assert working.counts().pending == 1  # the control: it was hanging
    may_answer.set()
