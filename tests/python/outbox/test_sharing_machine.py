"""Parts, closes, crashes and late arrivals in any order, against an oracle.

Every maximum that was sealed is at every moment in exactly one place: in a part, in one
report that waits, or in one that was delivered.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from stand_ins import conserved, window_of

from peakhold.outbox import Limits, StateDirectory, epochs, ownership, rows
from peakhold.outbox.packing import unpack
from peakhold.outbox.store import Store
from peakhold.records import DestinationKey, Share, seal_report
from peakhold.records.content import decode
from peakhold.records.share import epoch_at
from peakhold.testing import Clock

# More of them, for a long run: PEAKHOLD_TEST_EXAMPLES=10000.
EXAMPLES = int(os.environ.get("PEAKHOLD_TEST_EXAMPLES", "60"))
SETTINGS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
HERE = DestinationKey("http://here", "0123456789abcdef")
THERE = DestinationKey("http://there", "0123456789abcdef")
START = 1_000_000.0
PROCESSES = st.integers(0, 3)


class Killed(BaseException):
    """The end of a process in the middle of something."""


class Sharing(RuleBasedStateMachine):
    """Four processes on one state directory, a wall clock, and what they sealed."""

    @initialize()
    def begin(self):
        self.directory = Path(tempfile.mkdtemp())
        self.clock, self.wall = Clock(), START
        self.sealed: dict[str, DestinationKey] = {}
        self.parts: list[tuple[object, Share]] = []
        self.delivered: Counter[str] = Counter()
        self.closed: list[tuple[object, ...]] = []
        self.processes = [self.start() for _ in range(4)]

    def start(self):
        state = StateDirectory(self.directory / "state")
        store = Store(state, Limits(), dropped=lambda *_: None, clock=self.clock)
        (state.journals / state.owner_id).mkdir()
        store.state = state
        return store

    def teardown(self):
        if hasattr(self, "directory"):
            try:
                self.settle()
            finally:
                for store in self.processes:
                    store.close()
                    store.state.release()
                shutil.rmtree(self.directory)

    # What processes do ------------------------------------------------------------

    @rule(
        process=PROCESSES,
        frequency=st.sampled_from([1, 5]),
        shift=st.sampled_from([0, 0, 0, -1, -1, -2, -4, 1]),
        destination=st.sampled_from([HERE, THERE]),
    )
    def seal(self, process, frequency, shift, destination):
        """Also of epochs that ended long ago, and of one of the future."""
        store, name = self.processes[process], f"c{len(self.sealed)}"
        epoch = epoch_at(self.wall, frequency) + shift
        share = Share("k", None, frequency, epoch)
        ended = datetime(2026, 1, 1) + timedelta(seconds=epoch * frequency - START)  # noqa: DTZ001
        record = seal_report(destination, "k", window_of({name: 0.5}), ended)
        record_id = f"{store.state.owner_id}-0-{len(self.sealed)}"
        self.parts.append((replace(record, id=record_id), share))
        self.sealed[name] = destination
        store.add_parts(self.parts[-1:], self.wall)

    @rule(process=PROCESSES, back=st.integers(1, 5))
    def seal_again(self, process, back):
        """As after an interruption, and by who adopts the journal of a dead process."""
        self.processes[process].add_parts(self.parts[-back:], self.wall)

    @rule(
        process=PROCESSES,
        destinations=st.sampled_from([[HERE, THERE], [HERE, THERE], [HERE], [THERE]]),
        leaving=st.sampled_from([False, False, True]),
    )
    def close(self, process, destinations, leaving):
        look = self.processes[process].close_epochs(
            destinations, self.wall, leaving=leaving
        )
        if not leaving:
            self.closed += look.closed

    @rule(process=PROCESSES, at=st.integers(0, 12))
    def kill_in_a_close(self, process, at):
        """Between any two statements of the transaction."""
        self.kill(process, at, lambda store: store.close_epochs([HERE], self.wall))

    @rule(process=PROCESSES, at=st.integers(0, 12), back=st.integers(1, 3))
    def kill_in_a_seal(self, process, at, back):
        parts = self.parts[-back:]
        self.kill(process, at, lambda store: store.add_parts(parts, self.wall))

    def kill(self, process, at, act):
        """End a process before the statement of a number, if it comes that far."""
        store, left = self.processes[process], itertools.count(at, -1)
        transaction = store.transaction

        def step():
            if next(left) == 0:
                raise Killed

        def traced(given):
            return transaction(lambda database: given(Traced(database, step)))

        store.transaction = traced
        try:
            act(store)
        except Killed:
            self.die(process)
        else:
            del store.transaction

    @rule(process=PROCESSES)
    def killed_in_between(self, process):
        self.die(process)

    def die(self, process):
        self.processes[process].close()
        self.processes[process].state.release()
        self.processes[process] = self.start()

    @rule(process=PROCESSES)
    def upkeep(self, process):
        self.processes[process].adopt([HERE, THERE])

    @rule(process=PROCESSES, destination=st.sampled_from([HERE, THERE]))
    def deliver(self, process, destination):
        store = self.processes[process]
        if record := store.lease(destination, "report"):
            self.delivered.update(names_in(json.loads(record.body), destination))
            store.acknowledge(record)

    @rule(seconds=st.sampled_from([0.3, 1.0, 1.3, 4.0, 7.0]))
    def time_passes(self, seconds):
        self.wall += seconds
        self.clock.advance(seconds)

    @rule(seconds=st.sampled_from([-3600.0, -3.0, 3600.0]))
    def the_clock_is_set(self, seconds):
        self.wall += seconds
        if seconds < 0:
            self.closed.clear()  # epochs come again

    # What holds -------------------------------------------------------------------

    def settle(self):
        """In the end everything arrives, once."""
        self.wall += 10_000.0
        store = self.processes[0]
        for each in self.processes[1:]:
            each.close()
            each.state.release()
        for _ in range(2):  # a part of the future takes another epoch
            store.close_epochs([HERE, THERE], self.wall)
            self.wall += 10.0
        store.adopt([HERE, THERE])
        for destination in (HERE, THERE):
            while record := store.lease(destination, "report"):
                self.delivered.update(names_in(json.loads(record.body), destination))
                store.acknowledge(record)
        assert self.delivered == Counter(self.expected())
        assert conserved(store.counts())
        assert store.counts().pending == 0

    def expected(self):
        return [(name, destination) for name, destination in self.sealed.items()]

    @invariant()
    def every_maximum_is_in_one_place(self):
        if not hasattr(self, "directory"):
            return
        path = self.directory / "state" / "outbox.sqlite3"
        if not path.exists():
            return
        found = Counter(self.delivered)
        with closing(sqlite3.connect(path)) as database:
            database.row_factory = sqlite3.Row
            for row in database.execute(rows.SELECT):
                record = rows.record_of(row)
                found.update(names_in(json.loads(record.body), record.destination))
            for row in database.execute(
                "SELECT parts.*, endpoint, client, fingerprint FROM parts"
                " JOIN shares ON shares.number = share"
                " JOIN destinations ON destinations.number = destination"
            ):
                content = decode(
                    "report", row["encoding_version"], unpack(row["packed"])
                )
                body = json.loads(content.body((0, content.length)))
                found.update(names_in(body, rows.destination_of(row)))
        assert found == Counter(self.expected())
        assert conserved(self.processes[0].counts())

    @invariant()
    def an_epoch_has_one_report(self):
        closed = getattr(self, "closed", ())
        assert len(closed) == len(set(closed))


class Traced:
    """A connection, and something that is told before each of its statements."""

    def __init__(self, connection, step):
        self.connection, self._step = connection, step

    def execute(self, *arguments):
        self._step()
        return self.connection.execute(*arguments)

    def executemany(self, *arguments):
        self._step()
        return self.connection.executemany(*arguments)


def names_in(body, destination):
    return [(each["class_name"], destination) for each in body["inference_results"]]


def test_every_maximum_is_in_exactly_one_report_whatever_happens():
    run_state_machine_as_test(Sharing, settings=SETTINGS)


def played(*steps):
    """Play some steps, as Hypothesis does, and look at what holds after each."""
    machine = Sharing()
    machine.begin()
    try:
        for name, values in steps:
            getattr(machine, name)(**values)
            machine.every_maximum_is_in_one_place()
            machine.an_epoch_has_one_report()
    finally:
        machine.teardown()


SEALED = ("seal", {"process": 0, "frequency": 1, "shift": 0, "destination": HERE})
LATER = ("time_passes", {"seconds": 4.0})
CLOSED = ("close", {"process": 1, "destinations": [HERE, THERE], "leaving": False})


def play_kills():
    for at in range(20):
        played(SEALED, LATER, ("kill_in_a_close", {"process": 0, "at": at}))


def play_repetitions():
    played(SEALED, LATER, CLOSED, ("seal_again", {"process": 2, "back": 1}), CLOSED)


def play_late_parts():
    late = ("seal", {**SEALED[1], "process": 2, "shift": -4})
    played(SEALED, LATER, CLOSED, late, CLOSED, LATER, CLOSED)


@pytest.mark.parametrize("play", [play_kills, play_repetitions, play_late_parts])
def test_what_the_controls_play_holds(play):
    play()


def test_the_control_a_close_in_two_transactions_loses_parts(monkeypatch):
    def insert_apart(database, *arguments):
        connection = getattr(database, "connection", database)
        connection.execute("COMMIT")
        connection.execute("BEGIN IMMEDIATE")
        return insert(database, *arguments)

    insert = rows.insert
    monkeypatch.setattr(rows, "insert", insert_apart)
    with pytest.raises(AssertionError):
        play_kills()


def test_the_control_a_part_that_is_taken_in_again_is_in_two_reports(monkeypatch):
    monkeypatch.setattr(ownership, "was_added", lambda *_, **__: False)
    with pytest.raises(AssertionError):
        play_repetitions()


def test_the_control_who_does_not_know_what_is_closed_closes_it_again(monkeypatch):
    def share_of(*arguments):
        return share(*arguments)[0], -(10**9)

    share = epochs._share
    monkeypatch.setattr(epochs, "_share", share_of)
    with pytest.raises(AssertionError):
        play_late_parts()
