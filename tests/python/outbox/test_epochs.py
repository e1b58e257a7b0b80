"""Parts of shared windows become one report an epoch, each in exactly one report."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, suppress
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from stand_ins import conserved, window_of

from peakhold.notices import Notices
from peakhold.outbox import Limits, Outbox, StateDirectory, admin, epochs, schema
from peakhold.outbox.store import Store
from peakhold.records import DestinationKey, Share, join_parts, seal_report
from peakhold.records.share import closes_at, epoch_at, grace

HERE = DestinationKey("http://here", "0123456789abcdef")
THERE = DestinationKey("http://there", "0123456789abcdef", "a.Client by body")
START = 1_000_000.0
"""Wall time at which an epoch of every frequency used here begins."""


@pytest.fixture
def processes(tmp_path, clock):
    """Makes stores on one directory, each a process of its own."""
    states = []

    def make(limits=Limits()):  # noqa: B008 - it is frozen
        states.append(StateDirectory(tmp_path / "state"))
        store = Store(states[-1], limits, dropped=lambda *_: None, clock=clock)
        store.dies = states[-1].release
        return store

    yield make
    for state in states:
        state.release()


@pytest.fixture
def file(tmp_path):
    return tmp_path / "state" / "outbox.sqlite3"


NUMBERS = iter(range(1_000_000))


def part(key="k", epoch=None, frequency=5, destination=HERE, at=START, **best):
    """A part of the epoch that runs at a time, and its share."""
    epoch = epoch_at(at, frequency) if epoch is None else epoch
    share = Share(key, None, frequency, epoch)
    ended = datetime(2026, 1, 1) + timedelta(seconds=epoch * frequency - START)  # noqa: DTZ001
    record = seal_report(destination, key, window_of(best), ended)
    return replace(record, id=f"{next(NUMBERS):016x}-0-1"), share


def reports(store, destination=HERE):
    """What waits to be sent, as class and confidence."""
    found = []
    while record := store.lease(destination, "report"):
        results = json.loads(record.body)["inference_results"]
        found.append({each["class_name"]: each["confidence"] for each in results})
    return found


def test_epochs_end_at_multiples_of_the_frequency():
    assert [epoch_at(time, 5) for time in (0.0, 4.9, 5.0, 9.9)] == [1, 1, 2, 2]
    assert [grace(each) for each in (1, 4, 5, 20, 60, 3600)] == [1, 1, 1.25, 5, 10, 10]
    assert closes_at(2, 5) == 11.25


def test_the_parts_of_an_epoch_make_one_report(processes):
    stores = [processes() for _ in range(4)]
    for number, store in enumerate(stores):
        store.add_parts([part(a=0.1 * number, **{f"c{number}": 0.5})], START)
    assert stores[0].close_epochs([HERE], START + 6.2).closed == []
    look = stores[2].close_epochs([HERE], START + 6.25)
    assert [each.share.epoch for each in look.closed] == [epoch_at(START, 5)]
    assert look.next_at is None
    for store in (stores[0], stores[1], stores[3]):
        assert store.close_epochs([HERE], START + 7).closed == []
        assert reports(store) == []
    (report,) = reports(stores[2])
    assert report == {"a": 0.1 * 3, "c0": 0.5, "c1": 0.5, "c2": 0.5, "c3": 0.5}
    assert stores[0].counts().pending == 4


def test_the_control_two_epochs_make_two_reports(processes):
    one, other = processes(), processes()
    one.add_parts([part(a=0.1)], START)
    other.add_parts([part(at=START + 5, a=0.2)], START + 5)
    one.close_epochs([HERE], START + 12)
    assert reports(one) == [{"a": 0.1}, {"a": 0.2}]


def test_a_look_tells_when_to_look_again(processes):
    store = processes()
    assert store.add_parts([part()], START)[0] == START + 6.25
    store.add_parts([part("other", frequency=40)], START)
    assert store.close_epochs([HERE], START).next_at == START + 6.25
    assert store.close_epochs([HERE], START + 7).next_at == START + 50


def test_windows_that_differ_in_anything_are_not_shared(processes):
    store = processes()
    store.add_parts(
        [
            part("a", x=0.1),
            part("b", x=0.2),
            part("a", frequency=1, x=0.3),
            part("a", destination=THERE, x=0.4),
        ],
        START,
    )
    store.close_epochs([HERE, THERE], START + 10)
    found = sorted(reports(store), key=str)
    assert found == [{"x": 0.1}, {"x": 0.2}, {"x": 0.3}]
    assert reports(store, THERE) == [{"x": 0.4}]


def test_a_part_that_comes_late_is_in_the_next_report(processes):
    store, slow = processes(), processes()
    late = part(b=0.9)
    store.add_parts([part(a=0.5)], START)
    store.close_epochs([HERE], START + 6.25)
    assert slow.add_parts([late], START + 6.5) == (START + 11.25, 1)
    store.add_parts([part(at=START + 6.5, a=0.6)], START + 6.5)
    store.close_epochs([HERE], START + 11.25)
    assert reports(store) == [{"a": 0.5}, {"b": 0.9, "a": 0.6}]


def test_a_part_that_comes_before_its_epoch_is_closed_is_not_late(processes):
    """The control: however long ago it ended."""
    store, slow = processes(), processes()
    store.add_parts([part(a=0.5)], START)
    assert slow.add_parts([part(b=0.9)], START + 100)[1] == 0
    store.close_epochs([HERE], START + 100)
    assert reports(store) == [{"a": 0.5, "b": 0.9}]


def test_the_first_part_of_all_may_be_late(processes):
    store = processes()
    assert store.add_parts([part()], START + 60) == (START + 66.25, 1)


@pytest.mark.parametrize("ahead", [2, 1_000])
def test_a_part_of_the_future_is_one_of_the_present(processes, ahead):
    """As after the clock was set back."""
    store = processes()
    store.add_parts([part(epoch=epoch_at(START, 5) + ahead, a=0.5)], START)
    store.close_epochs([HERE], START + 6.25)
    assert reports(store) == [{"a": 0.5}]


def test_after_the_clock_was_set_back_parts_are_reported_in_time(processes):
    store = processes()
    store.add_parts([part(at=START + 3600, a=0.5)], START + 3600)
    store.close_epochs([HERE], START + 3610)
    store.add_parts([part(a=0.6)], START)
    store.add_parts([part(at=START + 7200, a=0.7)], START + 7200)
    store.close_epochs([HERE], START)  # sees that it is not two hours later
    store.close_epochs([HERE], START + 6.25)
    assert reports(store) == [{"a": 0.5}, {"a": 0.7}]


def test_who_has_no_sender_closes_nothing(processes):
    sealed, other = processes(), processes()
    sealed.add_parts([part(a=0.5)], START)
    assert other.close_epochs([THERE], START + 60) == epochs.Look([], None)
    assert sealed.close_epochs([HERE], START + 60).closed


def test_a_part_is_taken_in_once(processes):
    store, heir = processes(), processes()
    own = part(a=0.5)
    for each in (store, store, heir):
        each.add_parts([own], START)
    assert store.counts().sealed == 1
    store.close_epochs([HERE], START + 7)
    heir.add_parts([own], START + 8)
    heir.close_epochs([HERE], START + 60)
    assert store.counts().sealed == 1
    assert reports(heir) == []


def test_a_window_may_go_to_two_destinations(processes):
    store = processes()
    here, share = part(a=0.5)
    there = replace(here, destination=THERE, id=f"{here.id}.2f0e9b1c")
    store.add_parts([(here, share), (there, share)], START)
    store.close_epochs([HERE, THERE], START + 7)
    assert reports(store) == reports(store, THERE) == [{"a": 0.5}]
    assert store.counts().sealed == 2


def test_the_same_parts_have_one_id_and_one_body():
    several = [part(a=0.5, b=0.5), part(b=0.5, a=0.25), part(c=0.5)]
    share = several[0][1]
    contents = [(record.id, record.content) for record, _ in several]
    (one,) = join_parts(HERE, share, dict(contents), 3)
    (other,) = join_parts(HERE, share, dict(reversed(contents)), 3)
    assert (one.id, one.body) == (other.id, other.body)
    (fewer,) = join_parts(HERE, share, dict(contents[:2]), 2)
    assert fewer.id != one.id


def test_a_report_has_the_time_of_its_newest_part(processes):
    store = processes()
    old, new = part(at=START - 60, a=0.5), part(a=0.5)
    store.add_parts([new, old], START)
    store.close_epochs([HERE], START + 7)
    record = store.lease(HERE, "report")
    assert json.loads(record.body)["timestamp"] == new[0].content.closed_at


def test_a_report_of_more_than_a_request_is_several(processes):
    store = processes()
    wide = {f"{number}-{'x' * 500}": 0.5 for number in range(2_000)}
    store.add_parts([part(**wide), part(a=0.5)], START)
    store.close_epochs([HERE], START + 7)
    found = reports(store)
    assert len(found) > 1
    assert {name for each in found for name in each} == {*wide, "a"}
    assert conserved(store.counts())


def test_the_last_to_leave_reports_at_once(processes):
    first, last = processes(), processes()
    first.add_parts([part(a=0.5)], START)
    last.add_parts([part(b=0.5)], START)
    assert first.close_epochs([HERE], START + 1, leaving=True).closed == []
    assert last.close_epochs([HERE], START + 2, leaving=True).closed
    assert reports(last) == [{"a": 0.5, "b": 0.5}]


def test_who_leaves_does_not_wait_for_the_dead(processes):
    killed, last = processes(), processes()
    killed.add_parts([part(a=0.5)], START)
    last.add_parts([part(b=0.5)], START)
    killed.dies()
    assert last.close_epochs([HERE], START + 1, leaving=True).closed
    assert reports(last) == [{"a": 0.5, "b": 0.5}]


def test_who_comes_back_shares_again(processes):
    """The control: its epoch is not over for the others."""
    first, last = processes(), processes()
    first.add_parts([part(a=0.5)], START)
    first.close_epochs([HERE], START, leaving=True)
    first.add_parts([part(at=START + 5, a=0.6)], START + 5)
    last.add_parts([part(at=START + 5, b=0.5)], START + 5)
    assert last.close_epochs([HERE], START + 6, leaving=True).closed == []


def test_what_damage_leaves_unreadable_is_dropped_and_counted(processes, file):
    store = processes()
    store.add_parts([part(a=0.5), part(b=0.5)], START)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE parts SET packed = x'00' WHERE number = 1")
    assert len(admin.problems(StateDirectory(file.parent))) == 1
    store.close_epochs([HERE], START + 7)
    assert reports(store) == [{"b": 0.5}]
    assert store.counts().dropped == {"damaged": 1}


@pytest.mark.parametrize(
    "damage",
    [
        "shares SET frequency = 'x'",
        "shares SET frequency = 0",
        "shares SET frequency = 1 << 60",
        "shares SET name = x'ff'",
        "shares SET name = '{}'",
        "shares SET closed = 'x'",
        "shares SET closed = 1 << 60",
        "shares SET number = 1 << 40",
        "parts SET epoch = 1 << 60",
        "parts SET epoch = 'x'",
        "parts SET epoch = x'ff'",
        "parts SET epoch = 1.5",
        "parts SET encoding_version = 'x'",
        "parts SET id = CAST(x'ff6162' AS TEXT)",
        "sharers SET owner = x'ff'",
    ],
)
def test_a_damaged_column_stops_nobody(processes, file, damage):
    store = processes()
    store.add_parts([part(a=0.5)], START)
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(f"UPDATE {damage}")
    admin.status(StateDirectory(file.parent))
    store.adopt([HERE])
    store.close_epochs([HERE], START + 100)
    store.add_parts([part("k", at=START + 100, b=0.5)], START + 100)
    store.close_epochs([HERE], START + 200)
    assert [each for each in reports(store) if "b" in each]
    assert conserved(store.counts())
    assert store.close_epochs([HERE], START + 300) == epochs.Look([], None)


def test_parts_that_nobody_reports_are_bounded_in_time(processes, clock):
    store = processes(Limits(ttl=100.0))
    store.add_parts([part(a=0.5)], START)
    clock.advance(101.0)
    store.make_room()
    assert store.counts().dropped == {"expired": 1}


def test_parts_that_nobody_reports_are_bounded_in_size(processes):
    store = processes(Limits(max_bytes=400_000))
    for number in range(2_000):
        wide = {f"{number} {each} {hash((number, each))}": 0.5 for each in range(20)}
        store.add_parts([part(**wide)], START)
        while store.needs_room:
            store.make_room()
    counts = store.counts()
    assert 0 < counts.pending < 2_000
    assert counts.dropped == {"overflow": 2_000 - counts.pending}


def test_windows_that_nobody_shares_any_more_are_forgotten(processes, clock, file):
    store, gone = processes(), processes()
    store.add_parts([part("used", a=0.5)], START)
    gone.add_parts([part("unused", a=0.5)], START)
    store.close_epochs([HERE], START + 7)
    gone.dies()
    clock.advance(epochs.KEPT + 1)
    store.add_parts([part("used", at=START + 700, a=0.5)], START + 700)
    store.adopt([HERE])
    (row,) = admin.status(StateDirectory(file.parent))["sharing"]
    assert (row["aggregator_key"], row["processes"], row["parts"]) == ("used", 1, 1)


def test_status_tells_who_shares(processes, file):
    first, second = processes(), processes()
    now = datetime.now().timestamp()  # noqa: DTZ005
    first.add_parts([part("k", at=now)], now)
    second.add_parts([part("k", at=now), part("k", epoch=1)], now)
    found = admin.status(StateDirectory(file.parent))
    assert found["counts"]["pending"] == 3
    assert [row["pending"] for row in found["destinations"]] == [3]
    (row,) = found["sharing"]
    assert (row["processes"], row["parts"], row["late"]) == (2, 3, 1)
    assert row["frequency"] == 5
    assert row["ends_at"] == 5 * row["epoch"] > now
    assert row["overdue"] == 0


def test_an_outbox_of_before_learns_to_share(processes, file):
    """Its tables are added beside those that are there."""
    store = processes()
    store.add([seal_report(HERE, "w", window_of({"a": 0.5}))])
    store.close()
    with closing(sqlite3.connect(file)) as database, database:
        for table in ("parts", "sharers", "shares"):
            database.execute(f"DROP TABLE {table}")
        database.execute("PRAGMA user_version = 3")
    store.add_parts([part(b=0.5)], START)
    store.close_epochs([HERE], START + 7)
    assert reports(store) == [{"a": 0.5}, {"b": 0.5}]
    with closing(schema.connect(file, sync="OFF")) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (4,)


def test_what_the_disk_does_not_take_is_said(tmp_path, clock):
    (tmp_path / "state").write_text("in the way")
    notices = Notices(clock)
    outbox = Outbox(notices, Limits(), StateDirectory(tmp_path / "state"), clock=clock)
    record, share = part()
    assert outbox.add_parts([replace(record, share=share)]) is None
    assert outbox.close_epochs([HERE]) is None
    assert outbox.sharing == dict.fromkeys(
        ("parts", "late", "alone", "unsure", "reports"), 0
    )
    assert notices.counts["disk"] == 1


def test_a_report_that_cannot_be_made_leaves_the_parts(processes, monkeypatch):
    store = processes()
    store.add_parts([part(a=0.5)], START)
    with monkeypatch.context() as patched, suppress(ZeroDivisionError):
        patched.setattr(epochs, "count", lambda *_: 1 / 0)
        store.close_epochs([HERE], START + 7)
    assert store.counts().pending == 1
    assert store.close_epochs([HERE], START + 7).closed
    assert reports(store) == [{"a": 0.5}]
