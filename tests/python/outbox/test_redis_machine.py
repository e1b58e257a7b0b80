"""Hosts that share over Redis, in any order of events, against an oracle.

Every maximum that was sealed is at every moment in an outbox, as a part or in a report,
or delivered: a server that forgets everything loses nothing. It is in reports of two
different ids only if that is counted as unsure, as it may be after the server forgot or
was away for ten minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
import uuid
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import redis
import redis_hosts
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis_hosts import Line, Process, Times, names_in, part
from redis_server import PROGRAM, WITHOUT, RedisServer
from stand_ins import conserved

from peakhold.outbox import offers, rows
from peakhold.outbox.packing import unpack
from peakhold.records import record
from peakhold.records.content import decode
from peakhold.records.share import epoch_at

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=WITHOUT)

# More of them, for a long run: PEAKHOLD_TEST_EXAMPLES=10000.
EXAMPLES = int(os.environ.get("PEAKHOLD_TEST_EXAMPLES", "60"))
SETTINGS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    report_multiple_bugs=False,
)
HOSTS = (0, 0, 1, 2)
"""The host of each process."""
PROCESSES = st.integers(0, len(HOSTS) - 1)
VALID = 30.0
UNSURE_FOR = 600.0
STEPS = st.lists(
    st.tuples(st.integers(0, 17), st.sampled_from(["kill", "hang", "overtaken"])),
    max_size=2,
)
FATES = st.lists(
    st.sampled_from(["answered", "lost", "never", "late"]), min_size=1, max_size=3
)


_LEAST_TTL = """
local least = 1
for _, key in ipairs(redis.call('KEYS', 'peakhold:*')) do
  least = math.min(least, redis.call('TTL', key))
end
return least
"""


class Killed(BaseException):
    """The end of a process in the middle of something."""


class SharingByRedis(RuleBasedStateMachine):
    """Three hosts, a server, their clocks, and what was sealed.

    Attributes:
        forgot: Whether the server lost something, or somebody wrote to it.
        calm: Whether nothing happened that could have one report made twice.
        excused: What was in a request under way as the server forgot: it may be in a
            report, and is taken in anew, and nobody can tell.
    """

    server = redis = current = None

    @initialize()
    def begin(self):
        SharingByRedis.current = self
        self.directory = Path(tempfile.mkdtemp())
        self.times = Times(self.redis)
        self.started_at = self.times.now
        self.sealed: list[tuple[int, object]] = []
        self.bodies: dict[str, object] = {}
        self.delivered: Counter[str] = Counter()
        self.is_cut = [False, False, False]
        self.unsure_of_dead = 0
        self.forgot = self.was_away = False
        self.calm = True
        self.excused: set[str] = set()
        self.under_way: list[redis_hosts.Requests] = []
        self.processes = [self.start(host) for host in HOSTS]

    def start(self, host):
        line = Line(self.server, self.times)
        line.is_cut, line.under_way = self.is_cut[host], self.under_way
        process = Process(self.directory / str(host), line, self.times)
        (process.state.journals / process.state.owner_id).mkdir()
        return process

    def teardown(self):
        if hasattr(self, "directory"):
            try:
                self.settle()
            finally:
                for process in self.processes:
                    process.end()
                shutil.rmtree(self.directory)

    # What processes do -----------------------------------------------------------

    @rule(
        process=PROCESSES,
        frequency=st.sampled_from([1, 5]),
        shift=st.sampled_from([0, 0, 0, 0, -1, -2, -400, 1]),
    )
    def seal(self, process, frequency, shift):
        """Also of epochs that ended long ago, and of one of the future."""
        epoch = epoch_at(self.times.wall, frequency) + shift
        number, owner = len(self.sealed), self.processes[process].state.owner_id
        record = part(f"c{number}", frequency=frequency, epoch=epoch)
        record = replace(record, id=f"{owner}-0-{number}")
        self.sealed.append((HOSTS[process], record))
        self.processes[process].seal(record)

    @rule(process=PROCESSES, back=st.integers(1, 5))
    def seal_again(self, process, back):
        """As after an interruption, and by who adopts the journal of a dead process."""
        host = HOSTS[process]
        mine = [record for at, record in self.sealed[-back:] if at == host]
        self.processes[process].seal(*mine)

    @rule(process=PROCESSES)
    def turn(self, process):
        self.play(process)

    @rule(process=PROCESSES)
    def everybody_turns(self, process):
        for at in range(len(HOSTS)):
            self.play((process + at) % len(HOSTS))

    @rule(process=PROCESSES)
    def leave(self, process):
        self.play(process, leaving=True)

    @rule(process=PROCESSES, leaving=st.booleans(), steps=STEPS, fates=FATES)
    def troubled_turn(self, process, leaving, steps, fates):
        self.play(process, leaving=leaving, steps=steps, fates=fates)

    def play(self, process, *, leaving=False, steps=(), fates=()):
        """Have a process take its turn, in which something happens before some step."""
        mine = self.processes[process]
        waiting = dict(steps)
        at = iter(range(1000))

        def step():
            event = waiting.pop(next(at), None)
            if event == "kill":
                raise Killed
            if event == "hang":
                self.pass_by(VALID + 1)
            if event in ("hang", "overtaken"):
                for each in range(len(HOSTS)):
                    if each != process:
                        self.play(each)

        self.calm &= all(event == "overtaken" for _, event in steps)
        self.calm &= all(fate == "answered" for fate in fates)
        mine.outbox.step = mine.line.step = step
        mine.line.fates.extend(fates)
        try:
            mine.turn(leaving=leaving)
        except Killed:
            self.die(process)
        finally:
            mine.outbox.step = mine.line.step = lambda: None
            mine.line.fates.clear()

    @rule(process=PROCESSES)
    def killed_in_between(self, process):
        self.die(process)

    def die(self, process):
        self.calm = False
        dead = self.processes[process]
        self.unsure_of_dead += dead.outbox.sharing["unsure"]
        dead.end()
        self.processes[process] = self.start(HOSTS[process])

    @rule(process=PROCESSES)
    def upkeep(self, process):
        self.processes[process].upkeep()
        self.processes[process].outbox.close_epochs([redis_hosts.HERE])

    @rule(process=PROCESSES)
    def deliver(self, process):
        self.deliver_from(self.processes[process])

    def deliver_from(self, process):
        delivered = process.deliver()
        if delivered:
            self.note(*delivered)
            self.delivered[delivered[0]] += 1
        return delivered

    # What happens to them --------------------------------------------------------

    @rule(seconds=st.sampled_from([0.3, 1.0, 1.3, 4.0, 7.0, 31.0]))
    def time_passes(self, seconds):
        self.pass_by(seconds)

    @rule()
    def much_time_passes(self):
        self.pass_by(UNSURE_FOR + 100.0)

    def pass_by(self, seconds):
        self.times.pass_by(seconds)

    @rule(seconds=st.sampled_from([-3600.0, -11.0, -3.0, 3.0, 3600.0]))
    def the_clock_of_the_server_is_set(self, seconds):
        self.times.set_server(seconds)

    @rule(seconds=st.sampled_from([-3600.0, -3.0, 3.0, 3600.0]))
    def the_clock_of_the_hosts_is_set(self, seconds):
        self.times.wall += seconds
        self.times.ahead -= seconds

    @rule(host=st.integers(0, 2))
    def the_server_is_away(self, host):
        self.was_away, self.calm = True, False
        self.cut(host, True)

    @rule(host=st.integers(0, 2))
    def the_server_is_back(self, host):
        self.cut(host, False)

    def cut(self, host, is_cut):
        self.is_cut[host] = is_cut
        for at, process in zip(HOSTS, self.processes, strict=True):
            if at == host:
                process.line.is_cut = is_cut

    @precondition(lambda self: self.under_way)
    @rule()
    def what_was_under_way_arrives(self):
        requests = self.under_way.pop(0)
        late = self.times.wall + self.times.ahead > requests.deadline
        _, *replies = requests.arrive()
        for reply in replies:
            assert isinstance(reply, redis.ResponseError) == late, reply

    @rule()
    def the_server_forgets(self):
        self.forgot, self.calm = True, False
        for requests in self.under_way:
            asked = str(requests.calls)
            self.excused |= {
                f"c{at}"
                for at, (_, record) in enumerate(self.sealed)
                if record.id in asked
            }
        self.times.flush()

    @rule(at=st.integers(0, 9))
    def somebody_writes_to_the_server(self, at):
        keys = sorted(self.redis.keys("peakhold:*:parts:*"))
        if keys:
            key = keys[at % len(keys)]
            name = min(self.redis.hkeys(key))
            self.redis.hset(key, name, b"what nobody signed")
            self.forgot = True

    # What holds ------------------------------------------------------------------

    def outboxes(self):
        for host in range(3):
            path = self.directory / str(host) / "outbox.sqlite3"
            if path.exists():
                yield path

    def note(self, report_id, body):
        """Note a report; it has one body, whoever makes it."""
        assert self.bodies.setdefault(report_id, body) == body

    @invariant()
    def everything_is_in_an_outbox_or_delivered(self):
        if not hasattr(self, "directory"):
            return
        found, waiting = set(), Counter(self.delivered)
        for path in self.outboxes():
            with closing(sqlite3.connect(path)) as database:
                database.row_factory = sqlite3.Row
                for row in database.execute(rows.SELECT):
                    record = rows.record_of(row)
                    self.note(record.id, json.loads(record.body))
                    waiting[record.id] += 1
                found.update(names_of_parts(database))
        in_reports = defaultdict(set)
        for report_id, body in self.bodies.items():
            for name in names_in(body):
                in_reports[name].add(report_id)
        expected = {f"c{at}" for at in range(len(self.sealed))}
        assert found | in_reports.keys() == expected
        assert self.bodies.keys() == waiting.keys()
        self.repeated(in_reports, waiting)
        for process in self.processes:
            assert conserved(process.outbox.counts())

    def repeated(self, in_reports, waiting):
        unsure = self.unsure_of_dead + sum(
            process.outbox.sharing["unsure"] for process in self.processes
        )
        repeated = sum(
            len(ids) - 1 for name, ids in in_reports.items() if name not in self.excused
        )
        assert repeated <= unsure
        passed = self.times.now - self.started_at
        if not (self.forgot or (self.was_away and passed > UNSURE_FOR)):
            assert unsure == 0
        if self.calm:
            assert not waiting or max(waiting.values()) == 1

    @invariant()
    def every_key_expires(self):
        if hasattr(self, "directory"):
            assert self.redis.eval(_LEAST_TTL, 0) != -1

    def settle(self):
        """In the end everything arrives."""
        for host in range(3):
            self.cut(host, False)
        self.times.set_server(-self.times.ahead)
        self.pass_by(200_000.0)
        for _ in range(3):
            for process in self.processes:
                process.upkeep()
                process.turn()
            self.everything_is_in_an_outbox_or_delivered()
            self.pass_by(VALID + 1)
        for process in self.processes:
            assert not process.parts
            while self.deliver_from(process):
                pass
        assert self.bodies.keys() == self.delivered.keys()
        for process in self.processes:
            assert process.outbox.counts().pending == 0
        self.everything_is_in_an_outbox_or_delivered()


def names_of_parts(database):
    """Return the classes that the parts of an outbox have."""
    found = database.execute("SELECT encoding_version, packed FROM parts").fetchall()
    for version, packed in found:
        content = decode("report", version, unpack(packed))
        yield from names_in(json.loads(content.body((0, content.length))))


@pytest.fixture(scope="module")
def server():
    with RedisServer() as running, redis.Redis("127.0.0.1", running.port) as client:
        SharingByRedis.server, SharingByRedis.redis = running, client
        yield running


class Wall:
    """The time of the machine that is played."""

    @property
    def wall(self):
        return SharingByRedis.current.times.wall


@pytest.fixture
def script(server, monkeypatch):
    """Has the server run the script, maybe with some text in place of another."""
    del server

    def use(*changes):
        def change(text):
            for old, new in changes:
                assert old in text
                text = text.replace(old, new)
            return text

        redis_hosts.use(monkeypatch, Wall(), change)

    use()
    return use


def test_nothing_is_lost_and_nothing_repeated_that_is_not_counted(script):
    del script
    run_state_machine_as_test(SharingByRedis, settings=SETTINGS)


# What the machine would find ----------------------------------------------------


def played(*steps):
    """Play some steps, as Hypothesis does, and look at what holds after each."""
    machine = SharingByRedis()
    machine.begin()
    try:
        for name, values in steps:
            getattr(machine, name)(**values)
            machine.everything_is_in_an_outbox_or_delivered()
            machine.every_key_expires()
    finally:
        machine.teardown()


def seal(process, shift=0):
    return "seal", {"process": process, "frequency": 5, "shift": shift}


def turn(process, *steps, fates=("answered",), leaving=False):
    values = {"leaving": leaving, "steps": list(steps), "fates": list(fates)}
    return "troubled_turn", {"process": process, **values}


def later(seconds):
    return "time_passes", {"seconds": seconds}


ARRIVES = ("what_was_under_way_arrives", {})
FORGETS = ("the_server_forgets", {})
TAKEN = 3
"""The step before which an epoch was handed out, and before nothing came of it."""
REPORTED = 6
"""The step before which it was reported, and the server not told."""


def play_a_lost_answer():
    """The first part is reported with another one, of which its process hears late."""
    sealed = (seal(0), turn(0, fates=["answered", "lost"]), seal(2), turn(2))
    played(*sealed, later(7.0), turn(2), turn(0), later(7.0), turn(0))


def play_a_late_request():
    """It arrives when all of its parts are reported and forgotten."""
    late = (seal(0), turn(0, fates=["answered", "late"]), seal(2), turn(2), turn(0))
    end = (ARRIVES, later(7.0), seal(3), turn(3), later(7.0), turn(3))
    played(*late, later(7.0), turn(0), turn(2), *end)


def play_a_request_that_is_too_late():
    played(seal(0), turn(0, fates=["answered", "late"]), later(31.0), ARRIVES)


def play_a_server_that_forgets():
    played(seal(0), turn(0), FORGETS, later(7.0), turn(0), later(7.0), turn(0))


def play_a_server_that_forgets_what_it_did_not_tell():
    """A part whose process did not hear that it arrived is in a report already."""
    sealed = (seal(0), turn(0, fates=["answered", "lost"]), seal(2), turn(2))
    played(*sealed, later(7.0), turn(2), FORGETS, turn(0), later(7.0), turn(0))


def play_a_slow_closer():
    """Another process comes to an epoch while one is at work on it."""
    sealed = (seal(0), turn(0), seal(2), turn(2), later(7.0))
    played(*sealed, turn(0, (TAKEN, "overtaken")))


def play_a_closer_that_dies():
    """A late part comes before another process follows."""
    sealed = (seal(0), turn(0), seal(2), turn(2), later(7.0))
    dies = (turn(0, (REPORTED, "kill")), seal(3, -2), turn(3))
    played(*sealed, *dies, later(31.0), turn(3), turn(2))


def play_a_clock_that_is_set_back():
    back = ("the_clock_of_the_server_is_set", {"seconds": -11.0})
    sealed = (seal(0), turn(0), seal(2), turn(2), later(7.0))
    dies = (turn(0, (REPORTED, "kill")), back, seal(3), turn(3), later(7.0))
    played(*sealed, *dies, seal(3), turn(3), later(31.0), turn(3), turn(2))


def play_a_server_that_goes_away():
    """It has the part, and another process reports it, too."""
    away = ("the_server_is_away", {"host": 0})
    sealed = (seal(0), turn(0, fates=["answered", "lost"]), seal(2), turn(2), away)
    alone = (later(7.0), turn(2), turn(0), later(31.0), turn(0))
    played(*sealed, *alone, later(31.0), turn(0))


def play_an_exchange_that_dies():
    played(seal(0), turn(0, (TAKEN, "kill")), later(7.0), turn(1), turn(1))


PLAYS = [each for name, each in sorted(globals().items()) if name.startswith("play_")]


@pytest.mark.parametrize("play", PLAYS)
def test_what_the_controls_play_holds(play, script):
    del script
    play()


KNOWN = "if redis.call('ZSCORE', REPORTED, id) then"
SETTLED = "'XX', integer(now + request.remembered)"
STALE = "if now > request.deadline then"
LEASE = "(not lease or lease == request.sharer)"
LATE = "epoch = running"
AFTER = "math.max(closed + 1, math.min(epoch, running))"
HANDED_OUT = "while was_handed_out(epoch) do"
EXPIRES = "keep(parts_of(epoch))"
BORN = "born = string.format('%d.%06d', time[1], time[2])"


@pytest.mark.parametrize(
    ("play", "changes"),
    [
        pytest.param(play_a_lost_answer, [(KNOWN, "if false then")], id="forgets ids"),
        pytest.param(
            play_a_late_request,
            [(SETTLED, "'XX', integer(now)")],
            id="forgets ids that are settled",
        ),
        pytest.param(
            play_a_request_that_is_too_late,
            [(STALE, "if false then")],
            id="takes requests that are too late",
        ),
        pytest.param(
            play_a_server_that_forgets_what_it_did_not_tell,
            [(BORN, "born = 'always'")],
            id="does not tell that it forgot",
        ),
        pytest.param(play_a_slow_closer, [(LEASE, "true")], id="has no lease"),
        pytest.param(
            play_a_closer_that_dies,
            [
                (LATE, "epoch = closed"),
                (AFTER, "epoch"),
                (HANDED_OUT, "while false do"),
            ],
            id="puts parts into what was handed out",
        ),
        pytest.param(
            play_a_clock_that_is_set_back,
            [(HANDED_OUT, "while false do")],
            id="does so once the clock was set back",
        ),
        pytest.param(
            play_a_server_that_forgets, [(EXPIRES, "")], id="keeps keys for good"
        ),
    ],
)
def test_the_control_a_script_that(play, changes, script):
    script(*changes)
    with pytest.raises(AssertionError):
        play()


def test_the_control_a_store_that_deletes_what_is_there_loses_it(script, monkeypatch):
    def settled(database, owner, now, answers):
        fates = settle(database, owner, now, answers)
        database.execute("DELETE FROM parts WHERE fate = 'there'")
        return fates

    del script
    settle = offers.settle
    monkeypatch.setattr(offers, "settle", settled)
    with pytest.raises(AssertionError):
        play_a_server_that_forgets()


def test_the_control_a_part_that_is_not_marked_is_reported_alone(script, monkeypatch):
    def offered(database, *arguments):
        found = offer(database, *arguments)
        database.execute("UPDATE parts SET fate = 'here' WHERE fate = 'unsure'")
        return found

    del script
    offer = offers.offer
    monkeypatch.setattr(offers, "offer", offered)
    with pytest.raises(AssertionError):
        play_a_server_that_goes_away()


def test_the_control_an_id_of_chance_is_another_report(script, monkeypatch):
    """As the closer that dies shows: who follows makes the same one."""
    del script
    monkeypatch.setattr(record.uuid, "uuid5", lambda *_: uuid.uuid4())
    with pytest.raises(AssertionError):
        play_a_closer_that_dies()
