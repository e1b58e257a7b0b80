"""The threads: where one hangs, there is another for the rest."""

from __future__ import annotations

import threading
import time

import pytest
from stand_ins import PlainWindow, StatusError, eventually, report, sent

from peakhold.delivery import Dispatcher, Sender, threads
from peakhold.testing import RecordingClient


class HangingClient(RecordingClient):
    """Hangs in every report until the test lets it go."""

    def __init__(self, let_go):
        super().__init__()
        self.let_go = let_go
        self.hanging = threading.Event()

    def send_inference_results_to_model_monitoring(self, *args):
        self.hanging.set()
        assert self.let_go.wait(30)
        super().send_inference_results_to_model_monitoring(*args)


@pytest.fixture
def let_go():
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def hang(working, cache, let_go):
    """Makes a destination hang."""

    def make(name):
        client = HangingClient(let_go)
        lent = Sender(client, f"hanging-{name}", cache, injected=True)
        working.deliver(report(lent), lent)
        assert client.hanging.wait(5)
        return client

    return make


def test_a_hanging_destination_delays_neither_others_nor_the_clock(
    working, sender, client, hang, let_go
):
    hanging = [hang(number) for number in range(3)]
    called = threading.Event()
    started = time.monotonic()
    working.watch(lambda now: called.set(), started)
    for index in range(3):
        working.deliver(report(sender, f"w{index}"), sender)
    assert called.wait(5)
    assert eventually(lambda: sent(client) == 3)
    assert time.monotonic() - started < 1.0
    assert [sent(each) for each in hanging] == [0, 0, 0]  # the control: they hang
    let_go.set()
    assert working.flush(5)
    assert [sent(each) for each in hanging] == [1, 1, 1]


def test_a_timer_that_hangs_delays_no_destination(working, sender, client, let_go):
    entered = threading.Event()

    def timer(now):
        entered.set()
        assert let_go.wait(30)

    working.watch(timer, time.monotonic())
    assert entered.wait(5)
    working.deliver(report(sender), sender)
    assert eventually(lambda: sent(client) == 1)
    assert not let_go.is_set()


def test_a_timer_is_never_called_by_two_workers_at_once(working, hang):
    for number in range(3):  # so that there are workers
        hang(number)
    calls, overlaps, inside = [], [], threading.Lock()

    def timer(now):
        if not inside.acquire(blocking=False):
            overlaps.append(now)
            return now
        try:
            time.sleep(0.002)
            calls.append(threading.current_thread())
        finally:
            inside.release()
        return now if len(calls) < 100 else None

    working.watch(timer, time.monotonic())
    stop = time.monotonic() + 10
    while len(calls) < 100 and time.monotonic() < stop:
        working.flush(0)  # wakes them all
        time.sleep(0.001)
    assert len(calls) == 100
    assert overlaps == []


def test_threads_end_when_they_are_not_needed_any_more(
    working, hang, let_go, monkeypatch, new_threads
):
    monkeypatch.setattr(threads, "IDLE", 0.1)
    for number in range(4):
        hang(number)
    assert len(new_threads()) >= 4
    assert eventually(lambda: len(new_threads()) == 4)
    time.sleep(0.3)
    assert len(new_threads()) == 4  # the control: needed, however idle
    let_go.set()
    assert eventually(lambda: len(new_threads()) == threads.KEPT)
    assert working.flush(5)


def test_there_are_not_more_workers_than_are_good(
    working, hang, cache, monkeypatch, new_threads
):
    monkeypatch.setattr(threads, "MOST", 3)
    for number in range(3):
        hang(number)
    late = RecordingClient()
    lent = Sender(late, "late", cache, injected=True)
    working.deliver(report(lent), lent)
    assert not eventually(lambda: sent(late), 0.2)
    assert len(new_threads()) == 3


def test_what_comes_is_committed_though_all_threads_hang(
    working, sender, hang, monkeypatch
):
    monkeypatch.setattr(threads, "MOST", 2)
    for number in range(2):
        hang(number)
    before = working.outbox.counts().sealed
    working.deliver(report(sender), sender)
    assert eventually(lambda: working.outbox.counts().sealed == before + 1)


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt, StatusError])
def test_no_exception_ends_a_thread(working, sender, client, end, new_threads):
    client.failures = [end()]
    working.deliver(report(sender), sender)
    assert working.flush(10)
    assert working.counts().delivered == 1
    assert sent(client) == 2
    assert len(new_threads()) >= threads.KEPT
    expected = 0 if end is StatusError else 1  # the control is a common failure
    assert working.notices.counts["attempt"] == expected
    assert working.notices.counts["worker"] == expected


def no_more_threads(thread):
    raise RuntimeError("can't create new thread at interpreter shutdown")


class Sleeping:
    """A check that keeps its thread for a while."""

    def __call__(self, now):
        time.sleep(0.3)


def test_a_thread_that_cannot_be_started_is_logged_and_the_others_go_on(
    sender, client, monkeypatch, new_threads
):
    dispatcher = Dispatcher()
    dispatcher.deliver(report(sender), sender)
    assert dispatcher.flush(5)
    monkeypatch.setattr(threading.Thread, "start", no_more_threads)
    for _ in range(len(new_threads()) + 1):
        dispatcher.watch(Sleeping(), 0.0)
    dispatcher.deliver(report(sender), sender)
    assert dispatcher.flush(5)
    assert sent(client) == 2
    assert dispatcher.notices.counts["thread"] > 0
    dispatcher.close(0)


def test_the_exit_needs_no_new_thread_for_several_destinations(
    working, cache, let_go, monkeypatch, caplog
):
    working.watch(lambda now: None, time.monotonic())  # as the clock of a window
    fine = [RecordingClient() for _ in range(3)]
    hanging = HangingClient(let_go)
    senders = [
        Sender(each, f"key{number}", cache, injected=True)
        for number, each in enumerate([hanging, *fine])
    ]

    def seal():
        for lent in senders:
            working.deliver(report(lent), lent)

    working.at_close(seal)
    monkeypatch.setattr(threading.Thread, "start", no_more_threads)
    working.close(1.0)
    assert [sent(each) for each in fine] == [1, 1, 1]
    assert working.notices.counts["thread"] == 0
    assert "Exiting with 1 reports" in caplog.text  # the control: one did hang


def test_a_healthy_exit_warns_of_nothing(working, cache, monkeypatch, caplog):
    working.watch(lambda now: None, time.monotonic())
    clients = [RecordingClient() for _ in range(3)]

    def seal():
        for number, each in enumerate(clients):
            lent = Sender(each, f"key{number}", cache, injected=True)
            working.deliver(report(lent), lent)

    working.at_close(seal)
    monkeypatch.setattr(threading.Thread, "start", no_more_threads)
    working.close(2.0)
    assert [sent(each) for each in clients] == [1, 1, 1]
    assert caplog.records == []


@pytest.fixture
def without_threads(monkeypatch):
    """No thread can be started; calling it lets them start again."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    start = threading.Thread.start
    monkeypatch.setattr(threading.Thread, "start", refuse)
    return lambda: monkeypatch.setattr(threading.Thread, "start", start)


@pytest.mark.parametrize("ending", ["flush", "close"])
def test_without_threads_what_waits_is_sent_by_the_caller_that_flushes(
    working, sender, client, without_threads, ending, new_threads
):
    working.watch(lambda now: None, time.monotonic())
    working.deliver(PlainWindow(lambda: report(sender)), sender)
    working.add_metadata(["i"], "f", "v", sender)
    assert client.calls == []  # the control: there is nobody else
    started = time.monotonic()
    getattr(working, ending)(10.0)
    assert time.monotonic() - started < 5.0
    assert working.counts().delivered == 2
    assert new_threads() == []


def test_without_threads_a_flush_begins_no_request_after_its_time(
    cache, without_threads
):
    dispatcher = Dispatcher()

    class Slow(RecordingClient):
        def send_inference_results_to_model_monitoring(self, *args):
            time.sleep(0.6)
            super().send_inference_results_to_model_monitoring(*args)

    clients = [Slow() for _ in range(3)]
    for number, each in enumerate(clients):
        lent = Sender(each, f"key{number}", cache, injected=True)
        dispatcher.deliver(report(lent), lent)
    assert not dispatcher.flush(0.3)
    assert sum(map(sent, clients)) == 1
    dispatcher.close(0)


@pytest.mark.parametrize("how", ["report", "window", "metadata"])
def test_without_threads_the_caller_commits_and_later_ones_send(
    working, sender, client, without_threads, how
):
    working.watch(lambda now: None, time.monotonic())  # starts what it can
    if how == "report":
        working.deliver(report(sender), sender)
    elif how == "window":
        working.deliver(PlainWindow(lambda: report(sender)), sender)
    else:
        working.add_metadata(["i"], "f", "v", sender)
        working.pack_metadata()
        working.add_metadata(["j"], "f", "v", sender)
    assert working.outbox.counts().pending == 1
    assert client.calls == []
    assert working.notices.counts["thread"] > 0
    without_threads()
    working.deliver(report(sender, "w2"), sender)
    assert working.flush(5)
    assert working.counts().pending == 0
    assert client.calls
