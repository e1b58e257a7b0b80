"""Disks that fail, fill up and heal; files that cannot be used."""

from __future__ import annotations

import errno
import logging
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace
from functools import partial

import pytest
from stand_ins import StatusError, conserved, eventually, report, sent

from peakhold.delivery import Dispatcher
from peakhold.delivery.policy import PARKED_DELAY
from peakhold.notices import Notices
from peakhold.outbox import Limits, StateDirectory, admin
from peakhold.outbox.outbox import PATIENCE, Outbox


@pytest.fixture
def durable(state, clock):
    """A dispatcher on disk, without a thread, on the test's clock."""
    return Dispatcher(state, clock=clock, jitter=lambda low, high: high, worker=False)


@pytest.fixture
def file(state):
    return state.path / "outbox.sqlite3"


def full(dispatcher):
    """Let the disk take nothing more; returns how to make it take all again."""
    database = dispatcher.outbox._disk.transaction(lambda database: database)
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count = {pages}")
    return lambda: database.execute("PRAGMA max_page_count = 1000000")


def full_disk(*_records, **_options):
    """Stand for a store's `add` on a disk without room."""
    raise OSError(errno.ENOSPC, "no room")


def blocked(dispatcher, sender, client, count):
    """Seal reports that nobody sends yet."""
    for index in range(count):
        dispatcher.deliver(report(sender, f"w{index}", **{f"c{index}": 0.5}), sender)
    dispatcher.committer.commit()


def test_a_full_disk_leaves_reports_in_memory_until_it_has_room(
    durable, sender, client, clock, caplog
):
    sender.offline = True  # so that nothing is sent at once
    blocked(durable, sender, client, 1)
    heal = full(durable)
    told = []
    with caplog.at_level(logging.INFO, "peakhold.delivery"):
        blocked(durable, sender, client, 200)
        late = report(sender, "late")
        durable.deliver(
            late.__class__(**{**late.__dict__, "on_committed": lambda: told.append(1)}),
            sender,
        )
        durable.committer.commit()
        assert durable.durability == "memory"
        counts = durable.counts()
        assert (counts.sealed, counts.pending) == (202, 202)
        assert told == []
        heal()
        clock.now += PATIENCE
        durable._destinations.upkeep(clock.now)
    assert durable.durability == "process"
    assert told == [1]
    assert durable.outbox._memory.counts().pending == 0
    assert durable.outbox._disk.counts().pending == 202
    assert conserved(durable.counts())
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert "cannot be used" in texts[0]
    assert "can be used again" in texts[1]


def test_the_figures_never_miss_what_is_moving_to_the_disk(
    durable, sender, client, clock, monkeypatch
):
    blocked(durable, sender, client, 1)
    heal = full(durable)
    blocked(durable, sender, client, 200)
    outbox, apart, together, asking = durable.outbox, [], [], []
    original = outbox._disk.add

    def add(records, **arguments):
        apart.append(outbox._memory.counts().sealed + outbox._disk.counts().sealed)
        asking.append(
            threading.Thread(target=lambda: together.append(outbox.counts().sealed))
        )
        asking[-1].start()
        asking[-1].join(0.1)
        return original(records, **arguments)

    monkeypatch.setattr(outbox._disk, "add", add)
    heal()
    clock.now += PATIENCE
    durable._destinations.upkeep(clock.now)
    for thread in asking:
        thread.join(5)
    assert together == [201, 201]
    assert max(apart) < 201  # the control: who looks at the stores one by one


def test_what_is_in_memory_is_delivered_while_the_disk_is_full(
    durable, sender, client, clock
):
    blocked(durable, sender, client, 1)
    full(durable)
    blocked(durable, sender, client, 200)
    for _ in range(600):
        durable.step()
        clock.now += 0.1
    assert sent(client) >= 100
    assert conserved(durable.counts())


def test_what_was_settled_while_the_disk_failed_is_settled_later(
    durable, sender, client, clock, monkeypatch
):
    blocked(durable, sender, client, 1)
    disk = durable.outbox._disk

    def broken(record):
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(disk, "acknowledge", broken)
        durable.step()
        assert sent(client) == 1
        for _ in range(5):
            clock.now += PATIENCE
            durable.step()
        assert sent(client) == 1  # on lease until it is settled
    clock.now += PATIENCE
    durable.step()
    assert durable.counts().delivered == 1
    assert durable.counts().pending == 0
    assert sent(client) == 1


def test_without_a_writable_directory_memory_does_and_one_warning_says_so(
    tmp_path, sender, client, clock, caplog
):
    (tmp_path / "file").write_text("no directory")
    dispatcher = Dispatcher(
        StateDirectory(tmp_path / "file" / "state"), clock=clock, worker=False
    )
    for index in range(5):
        dispatcher.deliver(report(sender, f"w{index}"), sender)
        dispatcher.step()
        clock.now += 1
    assert sent(client) == 5
    assert dispatcher.counts().delivered == 5
    assert len(caplog.records) == 1
    assert dispatcher.durability == "memory"
    dispatcher.step()
    assert dispatcher.flush(0)  # nothing can wait there


def test_a_newer_file_is_left_alone(state, sender, client, file, caplog):
    dispatcher = Dispatcher(state, worker=False)
    dispatcher.deliver(report(sender), sender)
    dispatcher.committer.commit()
    dispatcher.outbox._disk.close()
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()
    before = file.read_bytes()
    newer = Dispatcher(state, worker=False)
    newer.deliver(report(sender), sender)
    newer.step()
    assert sent(client) == 1
    assert newer.durability == "memory"
    assert file.read_bytes() == before
    (record,) = caplog.records
    assert "later version" in record.getMessage()
    assert "PEAKHOLD_STATE_DIR" in record.getMessage()


def test_the_frame_s_thread_never_touches_the_disk(state, sender, client):
    """The disk hangs for as long as the test holds the store's lock."""
    dispatcher = Dispatcher(state)
    dispatcher.deliver(report(sender, "first"), sender)
    assert eventually(lambda: sent(client) == 1)
    with dispatcher.outbox._disk._database._lock:
        started = time.monotonic()
        for index in range(200):
            dispatcher.deliver(report(sender, f"w{index}"), sender)
            dispatcher.add_metadata([f"{index}"], "f", "v", sender)
        assert time.monotonic() - started < 0.5
        assert not eventually(lambda: sent(client) > 1, 0.2)  # the control: it hangs
    assert eventually(lambda: sent(client) > 1)
    dispatcher.close(0)


def test_nobody_says_that_nothing_is_left_of_a_file_that_is_locked(
    state, durable, sender, client, clock, file
):
    dead = Dispatcher(state, worker=False)
    blocked(dead, sender, client, 1)
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        durable.register(sender)
        durable.step()
        assert not durable.flush(0)
    clock.advance(PATIENCE + 1)
    for _ in range(5):
        durable.step()
    assert sent(client) == 1
    assert durable.flush(0)  # the control


def test_the_end_of_a_process_is_bounded_though_the_file_is_locked(
    state, sender, client, file
):
    dispatcher = Dispatcher(state)
    dispatcher.outbox.counts()
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        dispatcher.deliver(report(sender), sender)
        assert eventually(lambda: dispatcher.outbox.disk_error)
        started = time.monotonic()
        dispatcher.close(2.0)
        assert time.monotonic() - started < 3.0


def test_a_record_whose_lease_was_just_given_is_not_moved(
    state, durable, sender, client, clock
):
    """Somebody looks through the outbox as soon as the store can be used again."""
    sender.offline = True  # so that it is not sent at once
    add = durable.outbox._disk.add
    durable.outbox._disk.add = full_disk
    blocked(durable, sender, client, 1)
    durable.outbox._disk.add = add
    clock.advance(PATIENCE + 1)
    memory = durable.outbox._memory
    transaction = memory._database.transaction

    def followed(act):
        done = transaction(act)
        memory._database.transaction = transaction
        durable.outbox.tend([sender.destination])
        return done

    memory._database.transaction = followed
    record = memory.lease(sender.destination, "report")
    assert memory.counts().pending == 1
    assert durable.outbox._disk.counts().pending == 0
    memory.release(record)  # the control: then it is moved
    durable.outbox.tend([sender.destination])
    assert durable.outbox._disk.counts().pending == 1


def test_a_record_is_safe_on_the_disk_before_its_maker_is_told(
    durable, sender, client, clock
):
    """One comes while it is asked whether memory is empty."""
    told = []
    sender.offline = True  # so that nothing is sent at once
    add, memory = durable.outbox._disk.add, durable.outbox._memory
    is_empty = memory.is_empty

    def deliver(name):
        durable.outbox._disk.add = full_disk
        committed = partial(told.append, name)
        durable.deliver(replace(report(sender), on_committed=committed), sender)
        durable.committer.commit()
        durable.outbox._disk.add = add

    def asked():
        empty = is_empty()
        memory.is_empty = is_empty
        late = threading.Thread(target=deliver, args=("late",))
        late.start()
        late.join(0.3)  # unless it has to wait
        return empty

    deliver("first")
    durable.outbox.tend([sender.destination])
    assert told == []  # the disk is left alone for a while
    clock.advance(PATIENCE + 1)
    memory.is_empty = asked
    durable.outbox.tend([sender.destination])
    assert told == ["first"]
    assert eventually(lambda: durable.outbox._uncommitted)
    clock.advance(PATIENCE + 1)
    durable.outbox.tend([sender.destination])
    assert told == ["first", "late"]


@pytest.mark.parametrize("delivered", [True, False])
def test_a_maker_is_told_at_exit_of_what_was_delivered_from_memory(
    durable, sender, client, delivered
):
    told = []
    durable.register(sender)
    durable.step()  # the outbox is looked through later
    durable.outbox._disk.add = full_disk
    if not delivered:  # the control
        client.failures = [StatusError(503)] * 10
    committed = partial(told.append, "delivered")
    durable.deliver(replace(report(sender), on_committed=committed), sender)
    durable.step()
    assert told == []
    durable.close(0)
    assert told == ["delivered"] * delivered


def test_what_is_wanted_by_hand_during_an_attempt_is_tried_after_it(
    state, durable, sender, client, clock, monkeypatch
):
    blocked(durable, sender, client, 2)
    client.failures = [StatusError(401)] * 3
    durable.step()
    sending = client.send_inference_results_to_model_monitoring

    def send(*arguments, **options):
        if admin.retry(state)[0]:
            durable._destinations.upkeep(clock.now)
        return sending(*arguments, **options)

    monkeypatch.setattr(client, "send_inference_results_to_model_monitoring", send)
    clock.advance(PARKED_DELAY + 1)
    durable.step()
    assert sent(client) == 2
    monkeypatch.undo()
    durable.step()
    assert sent(client) == 3
    durable.step()
    assert sent(client) == 3  # the control: nobody wants it now


def test_the_end_of_a_process_waits_for_a_commit_whatever_it_is_allowed(state, sender):
    dispatcher = Dispatcher(state)
    add, adding, closing_down = dispatcher.outbox.add, threading.Event(), []

    def slow(records, **options):
        adding.set()
        assert eventually(lambda: closing_down)
        return add(records, **options)

    dispatcher.outbox.add = slow
    dispatcher.at_close(lambda: closing_down.append("now"))
    dispatcher.add_metadata(["id"], "f", "v", sender)
    assert adding.wait(10)
    dispatcher.close(0)
    assert dispatcher.committer.counts().pending == 0
    assert dispatcher.outbox._disk.counts().sealed == 1


def test_what_is_to_be_tried_again_by_hand_ends_the_pause_once(
    state, durable, sender, client, clock
):
    blocked(durable, sender, client, 2)
    durable.outbox._disk.transaction(
        lambda database: database.execute(
            "UPDATE records SET state = 'parked'"
            " WHERE number = (SELECT max(number) FROM records)"
        )
    )
    client.failures = [StatusError(503)] * 100
    attempts = []
    for second in range(400):
        durable.step()
        attempts.append(sent(client))
        if second == 100:
            assert admin.retry(state)[0] == 1
        clock.advance(1.0)
    # Pauses of 3, 9, 27 and 60 seconds, and one more attempt.
    assert attempts[100] == 5
    assert attempts[120] == 6
    assert attempts[-1] <= 12


def test_parts_of_a_window_that_move_to_the_disk_apart_all_arrive(state, sender):
    window = "0123456789abcdef-0-1"
    state.journals.joinpath("0123456789abcdef").mkdir()
    whole = replace(report(sender, a=0.1, b=0.2, c=0.3), id=window)
    parts = whole.divided([(0, 1), (1, 2), (2, 3)])
    outbox = Outbox(Notices(), Limits(), state)
    outbox._next_trial = float("inf")  # the disk fails
    outbox.add(parts)
    leased = outbox.lease(sender.destination, "report")
    outbox._next_trial = float("-inf")
    outbox.tend([sender.destination])
    outbox.failed(leased, "pending", "HTTP 503", "down", 1.0)
    outbox.tend([sender.destination])
    assert outbox.counts().pending == outbox._disk.counts().pending == 3
    outbox.add([parts[1]])  # the control: recovered from the journal it is no new one
    assert outbox.counts().pending == 3


def test_what_cannot_move_to_the_disk_yet_is_not_tried_without_end(state, sender):
    outbox = Outbox(Notices(), Limits(), state)
    outbox._next_trial = float("inf")  # after a failure that a success has covered up
    outbox.add([report(sender)])
    tending = threading.Thread(
        target=outbox.tend, args=([sender.destination],), daemon=True
    )
    tending.start()
    tending.join(5)
    assert not tending.is_alive()
    assert outbox.counts().pending == 1
    outbox._next_trial = float("-inf")  # the control: it moves once it can
    outbox.tend([sender.destination])
    assert outbox._disk.counts().pending == 1
