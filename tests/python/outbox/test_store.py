"""The outbox's database: order, leases, owners, bounds, ages, and the conservation."""

from __future__ import annotations

import gc
import json
import os
import random
import sqlite3
import stat
import subprocess
import sys
import time
from dataclasses import replace
from operator import itemgetter

import pytest
from stand_ins import conserved, window_of

from peakhold.notices import Notices
from peakhold.outbox import Limits, StateDirectory, room, rows, schema
from peakhold.outbox.database import Database
from peakhold.outbox.memory import MemoryStore
from peakhold.outbox.outbox import Outbox
from peakhold.outbox.store import DEAD_LIMIT, Store
from peakhold.records import (
    DestinationKey,
    MetadataEntry,
    seal_metadata,
    seal_report,
)

HERE = DestinationKey("http://here", "0123456789abcdef")
THERE = DestinationKey("http://there", "0123456789abcdef", "a.Client by body")


def report(window="w", destination=HERE, **best):
    return seal_report(destination, window, window_of(best or {"a": 0.5}))


def metadata(value="v", destination=HERE):
    entry = MetadataEntry(("id",), "f", value)
    return seal_metadata(destination, (entry,))


def results(record):
    found = json.loads(record.body)["inference_results"]
    return {result["class_name"]: result["confidence"] for result in found}


@pytest.fixture
def drops():
    return []


@pytest.fixture(params=["file", "memory", "without SQLite"])
def kind(request):
    return request.param


@pytest.fixture
def make(tmp_path, drops, clock):
    """Makes stores on one directory, each of them an owner of its own."""
    states = []

    def make_store(limits=Limits(), *, on_file=True):  # noqa: B008 - it is frozen
        states.append(StateDirectory(tmp_path / "state"))
        store = Store(
            states[-1] if on_file else None,
            limits,
            dropped=lambda *drop: drops.append(drop),
            clock=clock,
        )
        store.dies = states[-1].release
        return store

    yield make_store
    for state in states:
        state.release()


@pytest.fixture
def store(make, kind, drops, clock):
    if kind == "without SQLite":
        dropped = lambda *drop: drops.append(drop)  # noqa: E731
        return MemoryStore(Limits(), dropped=dropped, clock=clock)
    return make(on_file=kind == "file")


def limit(store, kib, without_sqlite):
    """Bound a store; without SQLite there are no pages, and nothing is compressed."""
    if isinstance(store, MemoryStore):
        store.limits = Limits(without_sqlite * 1024)
    else:
        store._room.limits = Limits(kib * 1024)


def add(store, records):
    """Add records, and let a store have all the steps that it needs to make room."""
    store.add(records)
    while store.make_room():
        pass


def drained(store, destination=HERE, kind="report"):
    found = []
    while record := store.lease(destination, kind):
        found.append(record)
    return found


def ids(records):
    return [record.id for record in records]


def test_records_are_leased_in_the_order_of_their_sealing_as_they_were(store):
    records = [report(f"w{index}") for index in range(3)]
    store.add(records[:2])
    store.add(records[2:])
    leased = drained(store)
    assert ids(leased) == ids(records)
    assert [each.body for each in leased] == [each.body for each in records]
    assert [each.created for each in leased] == [each.created for each in records]
    assert {each.destination for each in leased} == {HERE}


def test_a_leased_record_is_leased_to_nobody_else_until_released(store):
    first, second = report("w1"), report("w2")
    store.add([first, second])
    assert store.lease(HERE, "report").id == first.id
    assert store.lease(HERE, "report").id == second.id
    assert store.lease(HERE, "report") is None
    store.release(first)
    assert store.lease(HERE, "report").id == first.id


def test_destinations_and_kinds_are_kept_apart(store):
    store.add([report(), metadata(), report(destination=THERE)])
    assert len(drained(store)) == 1
    assert [each.kind for each in drained(store, kind="metadata")] == ["metadata"]
    assert [each.destination for each in drained(store, THERE)] == [THERE]


def test_a_record_added_as_leased_is_not_waiting(store):
    record = report()
    store.add([record], leased={record.id})
    assert store.lease(HERE, "report") is None
    assert store.counts().pending == 1
    store.release(record)
    assert store.lease(HERE, "report").id == record.id


def test_what_is_sealed_twice_under_one_id_is_there_once(store):
    record = report()
    store.add([record])
    store.add([record])
    assert store.counts().sealed == store.counts().pending == 1


@pytest.mark.parametrize("seed", range(20))
def test_every_seal_is_accounted_for_whatever_happens(store, seed):
    draw = random.Random(seed)
    limit(store, 320, 8)
    leased, states = [], set()
    for number in range(300):
        add(store, [report(f"w{draw.randrange(3)}", **{f"c{number}": 0.5}), metadata()])
        if record := store.lease(HERE, draw.choice(["report", "metadata"])):
            leased.append(record)
        if leased and draw.random() < 0.6:
            record = leased.pop(draw.randrange(len(leased)))
            draw.choice(
                [
                    store.acknowledge,
                    store.release,
                    lambda each: store.failed(each, "parked", "HTTP 402", "pay"),
                    lambda each: store.failed(each, "dead", "HTTP 400", "bad"),
                    lambda each: (
                        store.replace(each, halves)
                        if (halves := each.halves())
                        else store.release(each)
                    ),
                ]
            )(record)
        counts = store.counts()
        assert conserved(counts)
        states |= {name for name, value in vars(counts).items() if value}
    assert counts.sealed >= 600
    assert states == {*vars(counts)}
    # The control: an unaccounted deletion shows.
    if isinstance(store, MemoryStore):
        del store._entries[next(iter(store._entries))]
        assert not conserved(store.counts())
        return
    store.transaction(
        lambda database: database.execute(
            "DELETE FROM records WHERE id IN (SELECT id FROM records LIMIT 1)"
        )
    )
    assert not conserved(store.counts())


def test_parts_stand_in_the_place_of_their_whole(store):
    whole = report("w", a=0.1, b=0.2, c=0.3, d=0.4)
    store.add([whole, report("later", z=0.9)])
    leased = store.lease(HERE, "report")
    store.replace(leased, leased.halves())
    names = [sorted(results(each)) for each in drained(store)]
    assert names == [["a", "b"], ["c", "d"], ["z"]]
    counts = store.counts()
    assert (counts.sealed, counts.pending) == (3, 3)


def test_a_part_whose_numbers_are_damaged_is_not_sent_as_the_whole(make):
    """One bit makes NULL of a zero."""
    store = make()
    whole = report("w", a=0.1, b=0.2)
    store.add(whole.halves())
    store.transaction(
        lambda database: database.execute(
            "UPDATE records SET first = NULL, last = NULL"
        )
    )
    assert store.lease(HERE, "report") is None
    assert store.counts().dropped == {"damaged": 2}
    assert (
        store.transaction(
            lambda database: database.execute(
                "SELECT count(*) FROM contents"
            ).fetchone()[0]
        )
        == 0
    )
    store.add(report("w", a=0.1, b=0.2).halves())  # the control
    assert len(drained(store)) == 2


def test_the_rest_of_split_metadata_stays_before_what_came_later(store):
    """However often the rest is split again."""
    batches = [
        seal_metadata(HERE, tuple(MetadataEntry((f"i{n}",), "f", v) for n in range(60)))
        for v in ("old", "new")
    ]
    store.add(batches)
    values = []
    while record := store.lease(HERE, "metadata"):
        if len(parts := record.by_entry(rest=True)) > 1:
            store.replace(record, parts)
        else:
            values += [entry.field_value for entry in record.entries]
            store.acknowledge(record)
    assert values == ["old"] * 60 + ["new"] * 60


def test_a_window_for_several_destinations_takes_its_memory_once():
    store = MemoryStore(Limits(), dropped=lambda *_: None, clock=time.monotonic)
    whole = report("w", **{f"c{n}": 0.5 for n in range(100)})
    store.limits = Limits(whole.size + 1_000)
    copies = [
        replace(part, destination=place, id=f"{whole.id}.{at}.{part.id[-3:]}")
        for at, place in enumerate((HERE, THERE))
        for part in whole.divided([(0, 50), (50, 99), (99, 100)])
    ]
    store.add(copies)
    assert store.counts().pending == len(copies)
    store.add([report("v", **{f"c{n}": 0.5 for n in range(100)})])  # the control
    assert store.counts().dropped == {"overflow": len(copies)}


def test_large_windows_are_merged_though_each_is_many_parts(store, drops, monkeypatch):
    monkeypatch.setattr("peakhold.records.content.REPORT_BODY_LIMIT", 20_000)
    draw = random.Random(7)
    names = [draw.randbytes(32).hex() for _ in range(2_000)]
    for number in range(3):
        large = report("large", **dict.fromkeys(names, 0.5 + number / 10))
        store.add(large.divided(large.content.parts()))
    assert store.counts().pending > 3 * 20
    used = 0 if isinstance(store, MemoryStore) else store.transaction(rows.used_bytes)
    limit(store, used // 1024 - 32, large.size * 3 // 2 // 1024)
    add(store, [report("new", a=0.1)])
    assert drops == []
    found = [line for each in drained(store) for line in results(each).items()]
    assert len(found) < 3 * len(names)  # the control: there was no room for all
    best = dict(sorted(found, key=itemgetter(1)))
    assert best == {**dict.fromkeys(names, 0.7), "a": 0.1}


def test_past_the_bound_reports_of_one_window_merge_before_any_is_dropped(store, drops):
    limit(store, 352, 256)
    for number in range(1_000):
        add(store, [report("busy", **{f"c{number % 7}": number / 1_000, "all": 0.5})])
    counts = store.counts()
    assert counts.sealed == counts.pending == 1_000
    assert drops == []
    waiting = drained(store)
    assert len(waiting) < 1_000
    best = {}
    for each in waiting:
        for name, confidence in results(each).items():
            best[name] = max(confidence, best.get(name, 0.0))
    expected = {f"c{number % 7}": number / 1_000 for number in range(1_000)}
    assert best == {**expected, "all": 0.5}
    assert sum(each.seals for each in waiting) == 1_000


def test_a_window_that_cannot_shrink_leaves_the_others_to_be_merged(store, drops):
    limit(store, 512, 1792)
    draw = random.Random(3)
    for _ in range(2):  # two of these are too long for one request
        names = {draw.randbytes(32).hex(): 0.5 for _ in range(2_000)}
        add(store, [report("large", **names)])
    for number in range(800):
        add(store, [report("busy", **{f"c{number % 7}": 0.5})])
    assert drops == []
    assert store.counts().pending == 802
    assert len(drained(store)) < 700  # the control: there was no room for all


def test_what_may_have_been_sent_is_never_merged(store):
    limit(store, 352, 256)
    first = report("busy", a=0.1)
    add(store, [first])
    leased = store.lease(HERE, "report")
    store.release(leased)
    for _ in range(1_000):
        add(store, [report("busy", a=0.2)])
    assert store.lease(HERE, "report").body == first.body
    assert len(drained(store)) < 900  # the control: the others were


def test_past_the_bound_the_oldest_is_dropped_when_nothing_merges(store, drops):
    limit(store, 352, 256)
    records = [report(f"w{number}", **{f"c{number}": 0.5}) for number in range(1_000)]
    for record in records:
        add(store, [record])
    counts = store.counts()
    assert counts.dropped == {"overflow": 1_000 - counts.pending}
    assert sum(seals for _, seals in drops) == counts.dropped["overflow"]
    assert conserved(counts)
    assert ids(drained(store)) == ids(records)[-counts.pending :]


def crowded(store, count, windows):
    """Fill a store, and leave it half the room for that."""
    before = store.transaction(rows.used_bytes)
    store.add([report(f"w{n % windows}", **{f"c{n}": 0.5}) for n in range(count)])
    store._room.limits = Limits((before + store.transaction(rows.used_bytes)) // 2)
    return store


def instructions(store, act):
    """Return how many thousands of instructions SQLite carries out meanwhile."""
    database, done = store.transaction(lambda database: database), [0]

    def progress():
        done[0] += 1

    database.set_progress_handler(progress, 1_000)
    act()
    database.set_progress_handler(None, 0)
    return done[0]


@pytest.mark.parametrize("windows", [10, 10**6], ids=["merging", "dropping"])
def test_making_room_takes_time_in_proportion_to_what_goes(make, monkeypatch, windows):
    # From where a window has more records than are looked at to merge 32 of them.
    monkeypatch.setattr(room, "STEP", 60.0)
    store = crowded(make(), 4_000, windows)
    few = instructions(store, store.make_room)
    crowded(store, 16_000, windows)
    assert 0 < instructions(store, store.make_room) < 3 * 4 * few
    assert conserved(store.counts())


def test_a_step_to_make_room_is_short_and_the_next_goes_on(make, monkeypatch, drops):
    store = crowded(make(), 300, 10**6)
    monkeypatch.setattr(room, "STEP", 0.0)
    dropped = []
    while store.make_room():
        dropped.append(sum(seals for _, seals in drops))
    assert dropped == list(range(1, len(dropped) + 1))
    assert len(dropped) > 50
    assert store.transaction(rows.used_bytes) <= store._room.limits.max_bytes


def test_one_report_does_not_wait_until_there_is_room_for_all(
    make, monkeypatch, state, clock
):
    outbox = Outbox(Notices(), state=state, clock=clock)
    outbox.add([report(f"w{n}", **{f"c{n}": 0.5}) for n in range(300)])
    outbox._disk._room.limits = Limits(1)
    monkeypatch.setattr(room, "STEP", 0.0)
    outbox.add([report("late")])
    assert outbox.counts().pending == 300  # one record went for this one
    monkeypatch.setattr(room, "STEP", 60.0)
    outbox.tend([HERE])
    assert outbox.counts().pending == 1


class Watched(sqlite3.Connection):
    """A connection that notes whether it was closed when it is finalized."""

    finalized = None

    def __del__(self):
        try:
            self.execute("SELECT 1")
        except sqlite3.ProgrammingError:
            Watched.finalized = "closed"
        else:
            Watched.finalized = "open"


def test_a_store_that_is_garbage_closes_its_connection_first(state, clock, monkeypatch):
    """The garbage collector finalizes the members of a cycle in any order."""
    state.path.mkdir(parents=True, exist_ok=True)
    opened = []
    for expected in ("open", "closed"):
        connection = sqlite3.connect(
            state.path / f"{expected}.sqlite3",
            isolation_level=None,
            check_same_thread=False,
            factory=Watched,
        )
        database = Database(None, clock, "OFF")
        database.itself = database
        if expected == "open":  # the control: nobody closes it
            database.connection = connection
        else:
            schema._prepare(connection, state.path / "closed.sqlite3", "OFF")
            opened.append(connection)
            monkeypatch.setattr(schema, "connect", lambda *_, **__: opened.pop())
            database.transaction(lambda database: None)
        del database, connection
        gc.collect()
        assert Watched.finalized == expected


def test_dead_records_are_bounded(store):
    records = [report(f"w{index}") for index in range(DEAD_LIMIT + 5)]
    store.add(records)
    for _ in records:
        store.failed(store.lease(HERE, "report"), "dead", "HTTP 400", "bad")
    counts = store.counts()
    assert (counts.dead, counts.dropped) == (DEAD_LIMIT, {"dead letters": 5})


def test_a_record_expires_after_its_time(store, clock, drops):
    store.add([report("old")])
    clock.now += 7 * 24 * 3600 - 1
    store.add([report("new")])
    assert store.counts().pending == 2  # the control
    clock.now += 2
    store.make_room()
    counts = store.counts()
    assert (counts.pending, counts.dropped) == (1, {"expired": 1})
    assert drops == [("expired", 1)]


@pytest.mark.parametrize("years", [-10, 10])
def test_a_jump_of_the_wall_clock_drops_nothing(make, monkeypatch, years):
    make().add([report()])
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + years * 365 * 24 * 3600)
    later = make()
    later.make_room()
    later.add([report()])
    assert later.counts().pending == 2
    later._room.limits = Limits(ttl=3600.0)  # the control: a day of it is believed
    later.make_room()
    assert later.counts().pending == (1 if years > 0 else 2)


def test_a_part_of_a_part_stays_in_its_place(store):
    before, after = report("before"), report("after")
    store.add([before, report("w", **{f"c{n}": 0.5 for n in range(8)}), after])
    assert store.lease(HERE, "report").id == before.id
    whole = store.lease(HERE, "report")
    first, second = whole.halves()
    store.replace(whole, [first, second])
    leased = store.lease(HERE, "report")
    store.failed(leased, "dead", "HTTP 400", "bad")
    last = store.lease(HERE, "report")
    store.replace(last, last.halves())
    store.release(before)
    found = drained(store)
    assert [len(results(each)) for each in found] == [1, 2, 2, 1]
    assert (found[0].id, found[-1].id) == (before.id, after.id)
    assert conserved(store.counts())


def test_records_belong_to_a_living_process_alone(make):
    mine, others = make(), make()
    others.add([report()])
    assert mine.adopt([HERE]) == []
    assert mine.lease(HERE, "report") is None
    others.dies()
    assert mine.adopt([THERE]) == []  # no sender for it
    assert mine.lease(HERE, "report") is None
    assert mine.adopt([HERE]) == [(HERE, "report", False, float("-inf"))]
    assert mine.lease(HERE, "report") is not None


@pytest.mark.parametrize(("state", "waits"), [("pending", True), ("parked", False)])
def test_the_time_of_the_next_attempt_outlives_the_process(
    make, clock, monkeypatch, state, waits
):
    monkeypatch.setattr(time, "time", clock.time)
    dead, heir = make(), make()
    dead.add([report(), metadata()])
    dead.failed(dead.lease(HERE, "report"), state, "HTTP 503", "later", 100.0)
    dead.dies()
    failed_at = clock.now
    clock.advance(40.0)
    first, second = heir.adopt([HERE])
    assert first.not_before == (failed_at + 100.0 if waits else float("-inf"))
    assert second.not_before == float("-inf")


def test_a_committed_window_is_not_added_again_while_its_journal_is_there(
    make, tmp_path
):
    store = make()
    journal = tmp_path / "state" / "journals" / "0a"
    journal.mkdir(mode=0o700, parents=True)
    whole = replace(report(), id="0a-1-2")
    parts = [whole, replace(whole, id="0a-1-2.1")]

    def add_again():
        store.adopt([HERE])
        store.add(parts)
        return store.counts().sealed

    store.add(parts[:1])
    store.acknowledge(store.lease(HERE, "report"))
    assert add_again() == 1
    journal = journal.rename(journal.with_name("0a.0b"))
    assert add_again() == 1
    journal.rmdir()  # the control: then it is forgotten
    assert add_again() == 3


def test_of_two_processes_one_adopts(make):
    dead, first, second = make(), make(), make()
    dead.add([report(f"w{index}") for index in range(10)])
    dead.dies()
    assert first.adopt([HERE])
    assert second.adopt([HERE]) == []
    assert (len(drained(first)), len(drained(second))) == (10, 0)
    assert conserved(first.counts())


def test_figures_outlive_the_process(make):
    store = make()
    store.add([report(), report("x")])
    store.acknowledge(store.lease(HERE, "report"))
    before = store.counts()
    store.dies()
    store.close()
    assert make().counts() == before
    assert before.delivered == 1


@pytest.mark.skipif(os.name == "nt", reason="modes as POSIX has them")
def test_nobody_else_may_read_the_file_and_no_body_lies_open_in_it(make, tmp_path):
    store = make()
    record = report("w", **{"a class name that is long enough to be found": 0.5})
    store.add([record])
    files = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}


def test_the_file_shrinks_when_records_leave(make, tmp_path):
    store = make()
    path = tmp_path / "state" / "outbox.sqlite3"
    store.add([report(f"w{index}") for index in range(1_000)])
    full = path.stat().st_size
    for record in drained(store):
        store.acknowledge(record)
    assert path.stat().st_size < full / 2


@pytest.mark.parametrize("on_file", [True, False])
def test_a_body_that_is_damaged_costs_itself_only(make, on_file):
    store = make(on_file=on_file)
    store.add([report("bad"), report("good")])
    store.transaction(
        lambda database: database.execute(
            "UPDATE contents SET packed = substr(packed, 1, 20) WHERE number ="
            " (SELECT min(number) FROM contents)"
        )
    )
    assert len(drained(store)) == 1
    counts = store.counts()
    assert counts.dropped == {"damaged": 1}
    assert conserved(counts)


def test_refusals_one_after_the_other_leave_room_for_the_rest(make):
    """Each takes half the numbers between a record and the one before."""
    store = make()
    entries = [MetadataEntry((f"i{n}",), "f", f"v{n}") for n in range(40)]
    store.add([seal_metadata(HERE, tuple(entries))])
    for _ in entries:
        record = store.lease(HERE, "metadata")
        if len(parts := record.by_entry(rest=True)) > 1:
            store.replace(record, parts)
            record = store.lease(HERE, "metadata")
        store.failed(record, "dead", "HTTP 409", "refused")
    counts = store.counts()
    assert (counts.dead, counts.pending) == (40, 0)
    assert conserved(counts)


@pytest.mark.parametrize("what", ["put aside", "deleted"])
def test_a_file_that_went_away_is_begun_anew(make, what):
    stores = make(), make()
    stores[0].add([report("before")])
    file = stores[0]._database._path
    if what == "deleted":
        file.unlink()
    else:
        file.rename(file.with_suffix(".aside"))
    for store in stores:
        store.add([report("after")])
        assert store.counts().pending >= 1
    assert stores[0].counts().pending == 2


def test_opening_an_outbox_gives_up_no_lock_of_its_process(make):
    """Closing a file gives up all locks of the process on it; so none is closed."""
    store = make()
    store.add([report()])
    taking = (
        "import sqlite3, sys\n"
        "database = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)\n"
        "database.execute('BEGIN IMMEDIATE')\n"
    )
    command = [sys.executable, "-c", taking, str(store._database._path)]

    def act(database):
        database.execute("UPDATE totals SET value = value")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            schema.connect(store._database._path, sync="OFF")
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert "locked" in store.transaction(act).stderr
    subprocess.run(command, check=True)  # the control: it would take it
