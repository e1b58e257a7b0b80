"""Deliveries by tasks that a host is given."""

from __future__ import annotations

import gc
import threading
import time

from stand_ins import PlainWindow, StatusError, eventually, report, sent

from peakhold.delivery import Sender, host_tasks
from peakhold.delivery.host_tasks import HOST_GRACE
from peakhold.testing import RecordingClient


def test_a_host_task_delivers_on_the_host_s_thread(working, sender, client):
    tasks = []
    working.deliver(report(sender), sender, schedule=tasks.append)
    assert sent(client) == 0
    tasks[0]()
    assert working.counts().delivered == 1
    assert set(client.threads) == {threading.current_thread()}


def test_a_host_task_delivers_all_that_is_pending(working, sender, client):
    tasks = []
    for index in range(4):
        working.deliver(report(sender, f"w{index}"), sender, schedule=tasks.append)
    tasks[0]()
    assert working.counts().delivered == 4
    assert set(client.threads) == {threading.current_thread()}


def test_a_frame_only_hands_over_and_the_task_waits_for_the_record(
    working, sender, client
):
    working.watch(lambda now: None, 0.0)  # as every window does: there are threads
    sealing, may_seal, tasks = [], threading.Event(), []

    def seal():
        sealing.append(threading.current_thread())
        assert may_seal.wait(5)
        return report(sender)

    working.deliver(PlainWindow(seal), sender, schedule=tasks.append)
    assert eventually(lambda: sealing)
    host = threading.Thread(target=tasks[0])
    host.start()
    time.sleep(0.1)
    assert sent(client) == 0
    may_seal.set()
    host.join(5)
    assert client.threads[-1] is host
    assert sealing[0] not in {host, threading.current_thread()}


def test_what_is_sealed_too_late_for_the_task_is_the_worker_s(
    working, sender, client, monkeypatch
):
    working.watch(lambda now: None, 0.0)  # as every window does: there are threads
    monkeypatch.setattr(host_tasks, "HOST_PATIENCE", 0.05)
    sealing, may_seal, tasks = threading.Event(), threading.Event(), []

    def seal():
        sealing.set()
        assert may_seal.wait(5)
        return report(sender)

    working.deliver(PlainWindow(seal), sender, schedule=tasks.append)
    assert sealing.wait(5)
    tasks[0]()
    assert sent(client) == 0
    may_seal.set()
    assert working.flush(5)
    assert client.threads[-1].name == "peakhold"


def test_at_most_one_host_task_is_outstanding_per_destination(stepped, sender, cache):
    tasks, others = [], []
    other = Sender(RecordingClient(), "key", cache, injected=True)
    for _ in range(3):
        stepped.deliver(report(sender), sender, schedule=tasks.append)
    stepped.deliver(report(other), other, schedule=others.append)
    assert (len(tasks), len(others)) == (1, 1)
    tasks[0]()
    stepped.deliver(report(sender), sender, schedule=tasks.append)
    assert len(tasks) == 2


def test_the_worker_delivers_when_the_host_s_task_never_runs(
    stepped, sender, client, clock
):
    tasks = []
    stepped.deliver(report(sender), sender, schedule=tasks.append)
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
    stepped.deliver(report(sender), sender, schedule=tasks.append)
    tasks.clear()
    gc.collect()
    stepped.deliver(report(sender), sender, schedule=tasks.append)
    assert len(tasks) == 1


def test_the_worker_delivers_when_the_host_takes_no_task(working, sender, client):
    def full(task):
        raise RuntimeError("cannot schedule new futures after shutdown")

    working.deliver(report(sender), sender, schedule=full)
    assert working.flush(5)
    assert client.threads[-1].name == "peakhold"


def test_a_host_that_runs_tasks_at_once_is_fine(stepped, sender, client):
    for _ in range(3):
        stepped.deliver(report(sender), sender, schedule=lambda task: task())
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
        stepped.deliver(report(sender, f"w{index}"), sender, schedule=tasks.append)
    tasks[0]()
    assert sent(client) == 1
    assert stepped.counts().pending == 3


def test_threads_leave_a_destination_that_a_host_task_is_at(stepped, sender, client):
    """Not even between two of its requests."""
    send, snatched, tasks = sender.send, [], []

    def send_behind_a_thread(record, workspace):
        (destination,) = stepped._destinations.values()
        destination.busy = False  # as between two turns
        snatched.append(destination.turn())
        destination.busy = True
        send(record, workspace)

    sender.send = send_behind_a_thread
    for index in range(3):
        stepped.deliver(report(sender, f"w{index}"), sender, schedule=tasks.append)
    tasks[0]()
    assert snatched == [False] * 3
    assert sent(client) == 3
    # The control: a thread takes what no host task is for.
    stepped.deliver(report(sender), sender)
    stepped.step()
    assert sent(client) == 4
