"""What dead processes wrote down is delivered once; what is no journal stays."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
import uuid
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace

import pytest
from stand_ins import DictCache, conserved, report

from peakhold._peakhold import PeakAggregator
from peakhold.blocks.adoption import Adoption
from peakhold.delivery import Dispatcher, Sender
from peakhold.delivery.settings import DeliverySettings
from peakhold.outbox import StateDirectory
from peakhold.testing import RecordingClient

WINDOW = ("http://api.invalid", "0123456789abcdef", "k", None)


def frame(class_name="dog", confidence=0.5):
    return {
        "inference_id": "id",
        "prediction_type": "classification",
        "predictions": [{"class": class_name, "confidence": confidence}],
    }


@pytest.fixture
def state(state_directory):
    return StateDirectory(state_directory)


@pytest.fixture
def process(state, clock):
    """Makes what a process of its own would have, but for the threads."""
    made = []

    def make(durability="process"):
        settings = DeliverySettings(durability=durability)
        own = None if durability == "memory" else StateDirectory(state.path)
        made.append(Dispatcher(own, settings, clock=clock, worker=False))
        return made[-1]

    yield make
    for dispatcher in made:
        dispatcher.close(0)


@pytest.fixture
def lost(state, sender):
    """Leaves the journal of a window whose process was killed."""

    def lose(predictions=None, owner=None, about_sender=sender):
        dead = StateDirectory(state.path)
        dispatcher = Dispatcher(dead, DeliverySettings(), worker=False)
        aggregator = dispatcher.journals.aggregator(about_sender.destination, WINDOW)
        aggregator.observe(predictions or frame(), "m/1")
        dead.release()
        return newest(state)

    return lose


def newest(state):
    return max(state.journals.iterdir(), key=lambda path: path.stat().st_ctime)


def segment(journal):
    (path,) = journal.glob("*.journal")
    return path


def adoption_of(dispatcher):
    return Adoption(dispatcher)


def adopt(dispatcher, sender):
    adoption = adoption_of(dispatcher)
    adoption.lend(sender)
    adoption.adopt(0.0)
    dispatcher.committer.commit()


def deliver(dispatcher, clock, sender):
    adopt(dispatcher, sender)
    for _ in range(20):
        dispatcher.step()
        clock.now += 1.0


def classes(client):
    return [[x["class_name"] for x in r["inference_results"]] for r in client.reports()]


def test_the_window_of_a_dead_process_is_delivered_and_its_journal_deleted(
    lost, process, sender, client, clock, state
):
    path = lost()
    os.utime(segment(path), (1_700_000_000, 1_700_000_000))
    dispatcher = process()
    deliver(dispatcher, clock, sender)
    assert classes(client) == [["dog"]]
    assert client.reports()[0]["timestamp"].startswith("2023-11-1")
    assert list(state.journals.iterdir()) == []
    assert dispatcher.counts().delivered == 1
    conserved(dispatcher.counts())


def test_the_journal_of_a_live_process_is_left_alone(
    process, sender, client, clock, state
):
    alive = process()
    aggregator = alive.journals.aggregator(sender.destination, WINDOW)
    aggregator.observe(frame(), "m/1")
    deliver(process(), clock, sender)
    assert classes(client) == []
    assert newest(state).exists()
    alive.state.release()  # control
    deliver(process(), clock, sender)
    assert classes(client) == [["dog"]]


def test_a_window_that_was_committed_before_the_kill_is_not_sent_twice(
    process, sender, client, clock, state
):
    dispatcher = process()
    journals = dispatcher.journals
    aggregator = journals.aggregator(sender.destination, WINDOW)
    aggregator.observe(frame(), "m/1")
    record = journals.seal(sender.destination, WINDOW, aggregator.snapshot())
    kept = newest(state)
    assert record.id.startswith(f"{kept.name}-")
    dispatcher.deliver(replace(record, on_committed=None), sender)
    dispatcher.committer.commit()
    assert kept.exists()
    dispatcher.state.release()
    heir = process()
    deliver(heir, clock, sender)
    assert classes(client) == [["dog"]]
    assert not list(state.journals.iterdir())
    assert heir.counts().sealed == 1


@pytest.mark.parametrize("dated", [True, False])
def test_what_may_have_been_sent_before_the_kill_is_sent_anew_as_it_was(
    process, sender, client, clock, state, dated
):
    """So it is with a window that was in memory, the disk being full."""
    dispatcher = process()
    journals = dispatcher.journals
    aggregator = journals.aggregator(sender.destination, WINDOW)
    aggregator.observe(frame(), "m/1")
    before = segment(newest(state)).read_bytes()
    time.sleep(0.01)
    record = journals.seal(sender.destination, WINDOW, aggregator.snapshot())
    content = record.content.described(sender.facts())
    sent = replace(record, content=content)
    if not dated:  # the control
        segment(newest(state)).write_bytes(before)
        os.utime(segment(newest(state)), (1_700_000_000, 1_700_000_000))
    dispatcher.state.release()
    heir = process()
    sender.offline = True  # so that it is not sent at once
    adopt(heir, sender)
    again = heir.outbox.lease(sender.destination, "report")
    assert again.id == sent.id
    assert (again.body == sent.body) == dated


def test_a_window_that_was_delivered_before_the_kill_is_not_sent_twice(
    process, sender, client, clock, state
):
    dispatcher = process()
    journals = dispatcher.journals
    aggregator = journals.aggregator(sender.destination, WINDOW)
    aggregator.observe(frame(), "m/1")
    record = journals.seal(sender.destination, WINDOW, aggregator.snapshot())
    stopped = replace(record, on_committed=None)
    dispatcher.deliver(stopped, sender)
    dispatcher.step()
    assert classes(client) == [["dog"]]
    assert record.id.startswith(f"{newest(state).name}-")
    dispatcher.state.release()
    heir = process()
    deliver(heir, clock, sender)
    assert classes(client) == [["dog"]]
    assert not list(state.journals.iterdir())
    assert heir.counts().sealed == heir.counts().delivered == 1


def test_of_several_processes_one_adopts_a_journal(
    lost, process, sender, state, monkeypatch
):
    names = sorted(lost(frame(f"c{index}")).name for index in range(20))
    ready = threading.Barrier(4)
    adopted = []

    def race(dispatcher):
        monkeypatch.setattr(
            dispatcher, "deliver", lambda record, _: adopted.append(record.id)
        )
        adoption = adoption_of(dispatcher)
        adoption.lend(sender)
        ready.wait()
        adoption.adopt(0.0)

    threads = [threading.Thread(target=race, args=(process(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.partition("-")[0] for each in adopted) == names
    assert len(list(state.journals.iterdir())) == 20  # until they are committed


def test_the_heir_of_an_heir_makes_the_same_record(
    lost, process, sender, client, clock, state
):
    path = lost()
    first = process()
    adoption = adoption_of(first)
    adoption.lend(sender)
    adoption.adopt(0.0)  # and is killed before the commit
    assert not path.exists()
    assert newest(state).name == f"{path.name}.{first.state.owner_id}"
    adoption.adopt(0.0)  # control: its own are not adopted again
    first.state.release()
    second = process()
    deliver(second, clock, sender)
    assert classes(client) == [["dog"]]
    assert second.counts().sealed == 1


def test_a_journal_waits_for_a_process_that_has_its_key(
    lost, process, client, sender, clock
):
    path = lost()
    key = f"other{uuid.uuid4().hex}"
    stranger = Sender(RecordingClient(), key, DictCache(), injected=True)
    deliver(process(), clock, stranger)
    assert path.exists()
    deliver(process(), clock, sender)
    assert classes(client) == [["dog"]]


def test_the_damaged_end_of_a_journal_costs_only_itself(
    lost, process, sender, client, clock, caplog
):
    path = lost()
    with segment(path).open("ab") as file:
        file.write(b"torn")
    dispatcher = process()
    deliver(dispatcher, clock, sender)
    assert classes(client) == [["dog"]]
    assert dispatcher.notices.counts["journal"] == 1
    assert "damaged" in caplog.text


@pytest.mark.parametrize(
    ("data", "stays_as"),
    [
        (b"SQLite format 3\0", ""),
        (b"peakhold\x63whatever", ""),
        (b"peakhold\x02\x05\x00\x00", ".corrupt"),
    ],
    ids=["foreign", "newer", "damaged from the start"],
)
def test_what_is_no_journal_is_kept_with_one_warning(
    data, stays_as, lost, process, sender, clock, caplog
):
    path = lost()
    segment(path).write_bytes(data)
    dispatcher = process()
    adoption = adoption_of(dispatcher)
    adoption.lend(sender)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            adoption.adopt(0.0)
    assert segment(path.with_name(path.name + stays_as)).read_bytes() == data
    assert dispatcher.notices.counts["journal"] == 1
    assert len(caplog.records) == 1


def test_an_empty_journal_is_deleted_and_other_files_are_not(
    lost, process, sender, state, caplog
):
    segment(lost()).write_bytes(b"")
    other = state.journals / "notes.txt"
    other.write_text("mine", encoding="utf-8")
    adopt(process(), sender)
    assert list(state.journals.iterdir()) == [other]
    assert caplog.records == []


def test_durability_memory_writes_nothing(process, sender, state, client, clock):
    dispatcher = process("memory")
    journals = dispatcher.journals
    aggregator = journals.aggregator(sender.destination, WINDOW)
    aggregator.observe(frame(), "m/1")
    record = journals.seal(sender.destination, WINDOW, aggregator.snapshot())
    assert record.on_committed is None
    deliver(dispatcher, clock, sender)
    assert not state.path.exists()


def test_a_state_directory_that_cannot_be_made_leaves_a_window_in_memory(
    tmp_path, sender, caplog
):
    blocked = tmp_path / "file"
    blocked.write_text("in the way", encoding="utf-8")
    dispatcher = Dispatcher(StateDirectory(blocked / "state"), worker=False)
    journals = dispatcher.journals
    for _ in range(2):
        aggregator = journals.aggregator(sender.destination, WINDOW)
        assert aggregator.observe(frame(), "m/1") == 1
        assert aggregator.snapshot().journal is None
    assert len(caplog.records) == 1
    adopt(dispatcher, sender)
    assert len(caplog.records) == 1
    assert "kill" in caplog.text
    assert "PEAKHOLD_STATE_DIR" in caplog.text
    dispatcher.deliver(report(sender), sender)
    dispatcher.step()
    assert dispatcher.outbox.disk_error is not None
    assert len(caplog.records) == 1  # of one cause there is one warning


def test_no_journal_holds_the_api_key(lost, api_key):
    data = segment(lost()).read_bytes()
    assert api_key.encode() not in data
    assert b"recording.invalid" in data  # control


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX's")
def test_nobody_else_may_read_a_journal(lost):
    journal = lost()
    assert journal.stat().st_mode & 0o777 == 0o700
    assert segment(journal).stat().st_mode & 0o777 == 0o600


def test_a_journal_that_failed_is_told_once_and_the_window_is_reported(
    process, sender, state, caplog
):
    dispatcher = process()
    journals = dispatcher.journals
    aggregator = journals.aggregator(sender.destination, WINDOW)
    aggregator.observe(frame("before"), "m/1")
    blocked = newest(state)
    aggregator.drain()
    blocked.write_bytes(b"in the way")
    aggregator.observe(frame("during"), "m/1")
    aggregator.observe(frame("during", 0.75), "m/1")
    snapshot = aggregator.snapshot()
    record = journals.seal(sender.destination, WINDOW, snapshot)
    assert [line["class_name"] for line in snapshot.report()] == ["during"]
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert record.on_committed is not None
    blocked.unlink()
    aggregator.observe(frame("after"), "m/1")
    assert aggregator.snapshot().journal.error is None


def test_a_plain_aggregator_has_no_journal():
    assert PeakAggregator().snapshot().journal is None


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes no file that is open")
def test_a_window_whose_journal_was_adopted_is_reported_under_an_id_of_its_own(
    process, sender, state, client, clock, caplog
):
    dispatcher = process()
    journals = dispatcher.journals
    aggregator = journals.aggregator(sender.destination, WINDOW)
    aggregator.observe(frame("dog", 0.25), "m/1")
    # A process that takes this one for dead. That one is of this process, whose locks
    # say nothing to itself.
    name = newest(state)
    heir = process()
    name.rename(name.with_name(f"{name.name}.{'0' * 16}"))
    deliver(heir, clock, sender)
    assert [r["inference_results"][0]["confidence"] for r in client.reports()] == [0.25]

    aggregator.observe(frame("dog", 0.75), "m/1")
    record = journals.seal(sender.destination, WINDOW, aggregator.snapshot())
    assert not record.id.startswith(name.name)
    dispatcher.deliver(record, sender)
    deliver(dispatcher, clock, sender)
    confidences = [r["inference_results"][0]["confidence"] for r in client.reports()]
    assert confidences == [0.25, 0.75]
    assert not list(state.journals.iterdir())

    aggregator.observe(frame(), "m/1")  # the control: left in peace
    kept = newest(state).name
    record = journals.seal(sender.destination, WINDOW, aggregator.snapshot())
    assert record.id.startswith(f"{kept}-")


def test_windows_whose_journal_was_adopted_are_reported_whole_one_after_the_other(
    process, sender, state, client, clock
):
    dispatcher = process()
    journals = dispatcher.journals
    windows = [journals.aggregator(sender.destination, WINDOW) for _ in range(2)]
    for number, window in enumerate(windows):
        window.observe(frame(f"early {number}"), "m/1")
    name = newest(state)
    heir = process()
    name.rename(name.with_name(f"{name.name}.{'0' * 16}"))  # as above
    deliver(heir, clock, sender)
    assert sorted(classes(client)) == [["early 0"], ["early 1"]]
    for number, window in enumerate(windows):
        window.observe(frame(f"late {number}"), "m/1")
        record = journals.seal(sender.destination, WINDOW, window.snapshot())
        assert not record.id.startswith(name.name)  # that is of a part of it
        dispatcher.deliver(record, sender)
    deliver(dispatcher, clock, sender)
    assert sorted(classes(client)[2:]) == [
        ["early 0", "late 0"],
        ["early 1", "late 1"],
    ]


@pytest.mark.skipif(os.name == "nt", reason="Windows deletes no file that is open")
@pytest.mark.parametrize("when", ["seal", "adoption", "tending"])
def test_a_deleted_lock_file_is_noticed(process, sender, clock, when):
    dispatcher = process()
    owner = dispatcher.state.owner_id
    lock = dispatcher.state.path / "owners" / f"{owner}.lock"
    lock.unlink()
    if when == "seal":
        journals = dispatcher.journals
        aggregator = journals.aggregator(sender.destination, WINDOW)
        journals.seal(sender.destination, WINDOW, aggregator.snapshot())
        assert not lock.exists()  # the control: there was nothing to be reported
        aggregator.observe(frame(), "m/1")
        journals.seal(sender.destination, WINDOW, aggregator.snapshot())
    elif when == "adoption":
        adopt(dispatcher, sender)
    else:
        dispatcher.register(sender)
        dispatcher.step()
    assert lock.exists()
    assert dispatcher.notices.counts["owner"] == 1


def test_slow_writes_are_counted_and_no_reason_for_a_warning(process, sender, caplog):
    dispatcher = process()
    journal = SimpleNamespace(
        name="a-0-0", error=None, slow_writes=3, close=lambda at: True
    )
    snapshot = SimpleNamespace(peaks=1, nbytes=100, journal=journal)
    journals = dispatcher.journals
    journals.seal(sender.destination, WINDOW, snapshot)
    assert dispatcher.notices.counts["slow_disk"] == 3
    assert caplog.records == []
    # The control: a journal that could not be written is warned of.
    journal.error = "no room"
    journals.seal(sender.destination, WINDOW, snapshot)
    assert len(caplog.records) == 1


def test_windows_of_several_keys_go_to_whom_has_them_and_then_the_journal_goes(
    process, client, sender, state, clock
):
    dead = process()
    journals = dead.journals
    key = f"other{uuid.uuid4().hex}"
    other = Sender(RecordingClient(), key, DictCache(), injected=True)
    for each, name in [(sender, "dog"), (other, "cat")]:
        aggregator = journals.aggregator(each.destination, WINDOW)
        aggregator.observe(frame(name), "m/1")
    assert len(list(newest(state).iterdir())) == 1
    dead.state.release()
    deliver(process(), clock, sender)
    assert classes(client) == [["dog"]]
    (left,) = state.journals.iterdir()
    deliver(process(), clock, sender)  # the control: it has nothing for this one
    assert list(state.journals.iterdir()) == [left]
    deliver(process(), clock, other)
    assert classes(other.client) == [["cat"]]
    assert classes(client) == [["dog"]]
    assert list(state.journals.iterdir()) == []


def test_the_ids_of_committed_windows_do_not_pile_up(process, sender, state, clock):
    dispatcher = process()
    journals = dispatcher.journals
    open_window = journals.aggregator(sender.destination, WINDOW)
    open_window.observe(frame("open"), "m/1")
    aggregator = journals.aggregator(sender.destination, WINDOW)
    for _ in range(20):
        aggregator.observe(frame(), "m/1")
        record = journals.seal(sender.destination, WINDOW, aggregator.snapshot())
        dispatcher.deliver(record, sender)
    dispatcher.committer.commit()
    assert len(state_ids(state)) == 20  # the control
    deliver(dispatcher, clock, sender)
    assert state_ids(state) == []


def test_an_id_that_could_not_be_forgotten_is_forgotten_later(
    process, sender, client, state, clock
):
    dispatcher = process()
    journals = dispatcher.journals
    aggregator = journals.aggregator(sender.destination, WINDOW)
    aggregator.observe(frame(), "m/1")
    record = journals.seal(sender.destination, WINDOW, aggregator.snapshot())
    dispatcher.deliver(record, sender)
    dispatcher.committer.commit()
    change(
        state,
        "CREATE TRIGGER full BEFORE DELETE ON journals"
        " BEGIN SELECT RAISE(ABORT, 'no room'); END",
    )
    deliver(dispatcher, clock, sender)
    assert dispatcher.notices.counts["disk"] > 0
    assert state_ids(state) == [record.id]  # the control: it was to be forgotten
    change(state, "DROP TRIGGER full")
    deliver(dispatcher, clock, sender)
    assert state_ids(state) == []
    assert classes(client) == [["dog"]]


def change(state, statement):
    with closing(sqlite3.connect(state.outbox)) as database:
        database.execute(statement)


def state_ids(state):
    with closing(sqlite3.connect(state.outbox)) as database:
        return [id_ for (id_,) in database.execute("SELECT id FROM journals")]
