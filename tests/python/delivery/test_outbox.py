"""Disks that fail, fill up and heal; files that cannot be used."""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace

import pytest
from stand_ins import conserved, eventually, report, sent

from peakhold.delivery import Dispatcher
from peakhold.delivery.encode import encode
from peakhold.delivery.notices import Notices
from peakhold.delivery.outbox import PATIENCE, Outbox
from peakhold.delivery.schema import KEPT_DAMAGED
from peakhold.delivery.state import StateDirectory
from peakhold.delivery.store import Limits


@pytest.fixture
def state(tmp_path):
    directory = StateDirectory(tmp_path / "state")
    yield directory
    directory.release()


@pytest.fixture
def durable(state, clock):
    """A dispatcher on disk, without a thread, on the test's clock."""
    return Dispatcher(state, clock=clock, jitter=lambda low, high: high, worker=False)


@pytest.fixture
def file(state):
    return state.path / "outbox.sqlite3"


def full(dispatcher):
    """Let the disk take nothing more; returns how to make it take all again."""
    with dispatcher.outbox._disk.transaction() as database:
        pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count = {pages}")
    return lambda: database.execute("PRAGMA max_page_count = 1000000")


def blocked(dispatcher, sender, client, count):
    """Seal reports that nobody sends yet."""
    for index in range(count):
        dispatcher.deliver(report(sender, f"w{index}", **{f"c{index}": 0.5}), sender)
    dispatcher._commit()


def test_a_full_disk_leaves_reports_in_memory_until_it_has_room(
    durable, sender, client, clock, caplog
):
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
        durable._commit()
        assert durable.durability == "memory"
        counts = durable.counts()
        assert (counts.sealed, counts.pending) == (202, 202)
        assert told == []
        heal()
        clock.now += PATIENCE
        durable._tend(clock.now)
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
        original(records, **arguments)

    monkeypatch.setattr(outbox._disk, "add", add)
    heal()
    clock.now += PATIENCE
    durable._tend(clock.now)
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


def damage(draw, data):
    """Return a file as chance leaves it: flipped, cut, empty, or foreign."""
    way = draw.randrange(10)
    if way == 0:
        return data[: draw.randrange(len(data))]
    if way == 1:
        return b"\x00" * len(data)
    if way == 2:
        return b"not a database, but a text of somebody's" * 100
    data = bytearray(data)
    for _ in range(draw.choice([1, 1, 10, 1_000])):
        data[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(data)


def test_a_damaged_file_never_stops_anything(state, sender, client, file):
    draw = random.Random(5)
    original = Dispatcher(state, worker=False)
    for index in range(40):
        original.deliver(report(sender, f"w{index}"), sender)
    original._commit()
    data = file.read_bytes()
    slowest = 0.0
    for _ in range(150):
        file.write_bytes(damage(draw, data))
        started = time.monotonic()
        dispatcher = Dispatcher(state, worker=False)
        dispatcher.deliver(report(sender), sender)
        while dispatcher.step() == 0.0:
            pass
        slowest = max(slowest, time.monotonic() - started)
        assert conserved(dispatcher.counts())
        dispatcher.outbox._disk.close()
    assert slowest < 1.0
    file.unlink()
    before = sent(client)
    last = Dispatcher(state, worker=False)
    last.deliver(report(sender), sender)
    last.step()
    assert sent(client) == before + 1
    quarantined = list(state.path.glob("outbox.sqlite3.corrupt-*Z"))
    assert len(quarantined) == KEPT_DAMAGED


def test_a_damaged_file_is_put_aside_and_a_new_one_is_begun(
    state, sender, client, file, caplog
):
    state.outbox.write_bytes(b"foreign" * 1_000)
    dispatcher = Dispatcher(state, worker=False)
    dispatcher.deliver(report(sender), sender)
    dispatcher._commit()
    (put_aside,) = state.path.glob("outbox.sqlite3.corrupt-*Z")
    assert put_aside.read_bytes() == b"foreign" * 1_000
    assert len(caplog.records) == 1
    assert dispatcher.counts().pending == 1
    dispatcher.outbox._next_trial = 0.0
    dispatcher._tend(0.0)
    assert dispatcher.outbox._disk.counts().pending == 1


def write_byte(at, value):
    def write(file):
        with file.open("r+b") as opened:
            opened.seek(at)
            opened.write(bytes([value]))

    return write


def execute(statement):
    def change(file):
        with closing(sqlite3.connect(file)) as database, database:
            database.execute("PRAGMA ignore_check_constraints = ON")
            database.execute("PRAGMA writable_schema = ON")
            database.execute(statement)

    return change


@pytest.mark.parametrize(
    ("change", "aside"),
    [
        pytest.param(write_byte(18, 3), 1, id="can only be read"),
        pytest.param(write_byte(47, 7), 1, id="unknown format"),
        pytest.param(
            execute("UPDATE sqlite_master SET sql = replace(sql, 'kind', 'kinf')"),
            1,
            id="another column",
        ),
        pytest.param(
            execute("UPDATE records SET sealed_at = 'then'"), 1, id="text for a number"
        ),
        pytest.param(
            execute("UPDATE records SET created = 'then'"), 0, id="of one record"
        ),
        pytest.param(
            execute("UPDATE records SET last_error = CAST(X'ff' AS TEXT)"),
            0,
            id="no text",
        ),
    ],
)
def test_damage_that_a_check_of_pages_does_not_find_costs_no_later_window(
    state, sender, client, file, change, aside
):
    dead = Dispatcher(state, worker=False)
    dead.deliver(report(sender, "dead"), sender)
    dead._commit()
    dead.outbox._disk.close()
    change(file)
    dispatcher = Dispatcher(state, worker=False)
    dispatcher.deliver(report(sender, "new"), sender)
    for _ in range(4):
        dispatcher.step()
        dispatcher.outbox._next_trial = 0.0
    assert len(list(state.path.glob("outbox.sqlite3.corrupt-*Z"))) == aside
    assert dispatcher.outbox.disk_error is None
    assert dispatcher.counts().pending == 0
    assert sent(client) >= 1


def test_a_file_that_another_process_has_just_begun_is_completed(state, sender, file):
    assert state.outbox == file
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA auto_vacuum = FULL")  # as that process did last
    assert file.stat().st_size > 0
    dispatcher = Dispatcher(state, worker=False)
    dispatcher.deliver(report(sender), sender)
    dispatcher._commit()
    assert dispatcher.outbox.disk_error is None
    assert dispatcher.outbox._disk.counts().pending == 1
    assert list(state.path.glob("*.corrupt-*")) == []


def test_a_newer_file_is_left_alone(state, sender, client, file, caplog):
    dispatcher = Dispatcher(state, worker=False)
    dispatcher.deliver(report(sender), sender)
    dispatcher._commit()
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
            dispatcher.metadata.add([f"{index}"], "f", "v", sender)
        assert time.monotonic() - started < 0.5
        assert not eventually(lambda: sent(client) > 1, 0.2)  # the control: it hangs
    assert eventually(lambda: sent(client) > 1)
    dispatcher.close(0)


def test_parts_of_a_window_that_move_to_the_disk_apart_all_arrive(state, sender):
    window = "0123456789abcdef-0-1"
    state.journals.joinpath(f"{window}.journal").write_bytes(b"kept")
    (whole,) = encode(report(sender), {})
    parts = [replace(whole, id=f"{window}{end}") for end in ("", ".1", ".2")]
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
    outbox.add(encode(report(sender), {}))
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
