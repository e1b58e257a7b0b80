"""What frames leave to others: whichever call hangs or raises, the next ones come."""

from __future__ import annotations

import logging
import threading
import time

import pytest
from stand_ins import StatusError, conserved, eventually, report, sent

from peakhold.delivery import Dispatcher
from peakhold.delivery.errands import Errands
from peakhold.notices import INTERVAL, Notices


@pytest.fixture
def let_go():
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def hang(let_go, sender):
    """Seals a report once the test lets it; as a host's cache may have it wait."""

    def seal():
        seal.begun.set()
        assert let_go.wait(30)
        return report(sender, "hung", hung=0.5)

    seal.begun = threading.Event()
    return seal


@pytest.fixture
def leaving(working):
    """The working dispatcher, with the thread that a window's clock starts.

    Its workers wait: one that is about would come by, and nobody need tell it.
    """
    working.watch(lambda now: None, time.monotonic())
    assert working._errands.thread is not None
    time.sleep(0.3)
    return working


def no_thread(thread):
    raise RuntimeError("can't start new thread")


def test_a_call_that_hangs_holds_up_none_of_the_next_ones(
    leaving, sender, client, hang, let_go
):
    leaving.deliver_later(hang, sender)
    assert hang.begun.wait(5)
    for name in ("a", "b", "c"):
        leaving.deliver_later(lambda name=name: report(sender, name), sender)
    assert eventually(lambda: sent(client) == 3, 2)
    assert len(leaving._errands) == 1  # the control: it does hang
    let_go.set()
    assert leaving.flush(5)
    assert sent(client) == 4


def test_several_calls_that_hang_hold_up_none_of_the_next_ones(
    leaving, sender, client, hang
):
    for _ in range(4):
        hang.begun.clear()
        leaving.deliver_later(hang, sender)
        assert hang.begun.wait(5)
    leaving.deliver_later(lambda: report(sender), sender)
    assert eventually(lambda: sent(client) == 1, 2)
    assert len(leaving._errands) == 4


def test_the_thread_alone_would_be_held_up(hang, let_go):
    """The control of the two above: it is the workers that go on."""
    errands = Errands(Notices(), wanted=True)
    errands.start()
    called = threading.Event()
    assert errands.leave(hang)
    assert hang.begun.wait(5)
    assert not errands.leave(called.set)
    assert not called.wait(0.3)
    errands.run()  # as a worker does
    assert called.is_set()
    errands.stop()


def test_a_frame_wakes_the_workers_only_when_the_thread_is_busy(
    leaving, sender, hang, monkeypatch
):
    asked = []
    original = leaving._workers.signal

    def signal():
        asked.append(threading.current_thread())
        original()

    monkeypatch.setattr(leaving._workers, "signal", signal)
    me = threading.current_thread()
    assert eventually(lambda: len(leaving._errands) == 0)
    leaving.deliver_later(hang, sender)
    assert hang.begun.wait(5)
    assert me not in asked
    leaving.deliver_later(lambda: report(sender), sender)
    assert me in asked  # the control


def test_a_call_that_raises_is_told_once_a_minute_and_the_next_one_comes(
    sender, client, clock, caplog
):
    dispatcher = Dispatcher(clock=clock)
    dispatcher.watch(lambda now: None, clock.now)

    def broken():
        raise LookupError("a bug of a host's")

    with caplog.at_level(logging.WARNING, "peakhold.delivery"):
        for index in range(5):
            dispatcher.deliver_later(broken, sender)
            dispatcher.deliver_later(
                lambda index=index: report(sender, f"w{index}"), sender
            )
        assert eventually(lambda: sent(client) == 5)
        assert eventually(lambda: len(dispatcher._errands) == 0)
        assert dispatcher.notices.counts["errand"] == 5
        told = [record.getMessage() for record in caplog.records]
        assert told == ["An unexpected LookupError: a bug of a host's"]
        clock.now += INTERVAL  # the control: it is told again
        dispatcher.deliver_later(broken, sender)
        assert eventually(lambda: len(caplog.records) == 2)
    assert "and 4 more" in caplog.records[-1].getMessage()
    dispatcher.close(0)


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt])
def test_no_exception_ends_the_thread(leaving, sender, client, end):
    def ending():
        raise end

    thread = leaving._errands.thread
    leaving.deliver_later(ending, sender)
    assert eventually(lambda: len(leaving._errands) == 0)
    leaving.deliver_later(lambda: report(sender), sender)
    assert eventually(lambda: sent(client) == 1)
    assert thread.is_alive()


def test_a_thread_that_first_runs_after_the_stop_is_not_taken_for_a_free_one(
    monkeypatch,
):
    late = []

    def put_off(thread):
        late.append(thread)

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", put_off)
        errands = Errands(Notices(), wanted=True)
        errands.start()
    errands.stop()
    (thread,) = late
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert not errands.leave(lambda: None)


@pytest.mark.parametrize("startable", [True, False])
def test_without_the_thread_the_workers_make_the_calls(
    sender, client, monkeypatch, startable
):
    dispatcher = Dispatcher()
    dispatcher.deliver(report(sender, "first"), sender)  # there are workers now
    assert dispatcher.flush(5)
    with monkeypatch.context() as patch:
        if not startable:
            patch.setattr(threading.Thread, "start", no_thread)
        dispatcher.watch(lambda now: None, time.monotonic())
    callers = []

    def seal():
        callers.append(threading.current_thread().name)
        return report(sender)

    dispatcher.deliver_later(seal, sender)
    assert eventually(lambda: sent(client) == 2)
    assert len(callers) == 1
    if startable:  # the control
        assert dispatcher._errands.thread is not None
        assert dispatcher.notices.counts["thread"] == 0
    else:
        assert callers == ["peakhold"]
        assert dispatcher.notices.counts["thread"] == 1
    dispatcher.close(0)


def test_an_exit_during_a_call_is_bounded_and_sends_the_rest(
    sender, client, hang, caplog
):
    dispatcher = Dispatcher(jitter=lambda low, high: 60.0)
    client.failures = [StatusError(503)]
    dispatcher.deliver(report(sender, "in backoff"), sender)
    assert eventually(lambda: sent(client) == 1)
    dispatcher.watch(lambda now: None, time.monotonic())
    dispatcher.deliver_later(hang, sender)
    assert hang.begun.wait(5)
    dispatcher.deliver_later(lambda: report(sender, "left"), sender)
    dispatcher.metadata.add(["id"], "f", "v", sender)
    started = time.monotonic()
    dispatcher.close(1.0)
    assert 1.0 <= time.monotonic() - started < 1.5
    counts = dispatcher.counts()
    assert (counts.delivered, counts.pending) == (3, 1)
    assert conserved(counts)
    # The control: the call does hang. There may be a warning of the 503 before.
    assert "Exiting with 1 reports" in caplog.records[-1].getMessage()


def test_an_exit_waits_for_a_call_that_ends_in_time(
    leaving, sender, client, hang, let_go, caplog
):
    leaving.deliver_later(hang, sender)
    assert hang.begun.wait(5)
    threading.Timer(0.3, let_go.set).start()
    started = time.monotonic()
    leaving.close(5.0)
    assert 0.2 < time.monotonic() - started < 2.0
    assert sent(client) == 1
    assert caplog.records == []
