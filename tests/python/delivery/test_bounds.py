"""What waits in memory between the frames and the outbox is bounded in bytes."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from types import SimpleNamespace

import pytest
from stand_ins import conserved, report, window_of

from peakhold.blocks.adoption import Adoption
from peakhold.blocks.cache import MemoryCache
from peakhold.blocks.interval import ReportInterval, _written
from peakhold.delivery import Dispatcher, Sender, committer
from peakhold.records import Record, seal_report
from peakhold.testing import RecordingClient

MANY = 10_000


class Closed:
    """A closed window of one class, with some bytes."""

    committed = False

    def __init__(self, sender, key, name, size=1_000):
        self.key, self.size, self._sender = key, size, sender
        self._record = seal_report(sender.destination, key, window_of({name: 0.5}))

    def record(self) -> Record:
        return self._record

    def journals(self):
        return ()

    def absorb(self, later):
        older, newer = self._record.content, later._record.content
        content = replace(newer, snapshot=older.snapshot.merge(newer.snapshot))
        seals = self._record.seals + later._record.seals
        self._record = replace(self._record, content=content, seals=seals)
        return True

    def publish(self, *, inline=False):
        pass

    def reported(self):
        pass


class Written(Closed):
    """One that is in a journal."""

    def journals(self):
        return (SimpleNamespace(name=self.key, error=None),)

    def unload(self):
        self.size = 0


def classes_stored(dispatcher, sender):
    """The classes of all reports that wait in the outbox."""
    names = []
    while record := dispatcher.outbox.lease(sender.destination, "report"):
        names += [line["class_name"] for line in results(record)]
    return sorted(names)


def results(record):
    import json

    return json.loads(record.body)["inference_results"]


def test_3000_windows_that_close_at_one_moment_are_all_kept(stepped, sender):
    sender.offline = True
    for number in range(3_000):
        stepped.deliver(Closed(sender, f"k{number}", "c"), sender)
    stepped.step()
    counts = stepped.counts()
    assert (counts.sealed, counts.pending, counts.dropped) == (3_000, 3_000, {})


def test_beyond_the_bound_windows_of_one_key_merge_and_none_is_dropped(
    stepped, sender, monkeypatch
):
    monkeypatch.setattr(committer, "MAX_BYTES", 20_000)
    sender.offline = True
    names = [f"c{number:03d}" for number in range(200)]
    for number, name in enumerate(names):
        stepped.deliver(Closed(sender, f"k{number % 10}", name), sender)
    assert stepped.committer.counts().pending == 200
    stepped.step()
    counts = stepped.counts()
    assert (counts.sealed, counts.pending, counts.dropped) == (200, 200, {})
    assert classes_stored(stepped, sender) == names


def test_what_does_not_merge_is_dropped_the_oldest_first_and_counted(
    stepped, sender, monkeypatch
):
    monkeypatch.setattr(committer, "MAX_BYTES", 20_000)
    sender.offline = True
    names = [f"c{number:03d}" for number in range(50)]
    for name in names:
        stepped.deliver(Closed(sender, name, name), sender)
    stepped.step()
    counts = stepped.counts()
    assert counts.sealed == 50
    assert counts.dropped == {"overflow": 30}
    assert conserved(counts)
    assert classes_stored(stepped, sender) == names[30:]


def test_what_cannot_be_committed_is_bounded_too(stepped, sender, client, monkeypatch):
    """A client that cannot describe its device keeps its windows from the outbox."""

    def refuse():
        raise RuntimeError

    monkeypatch.setattr(committer, "MAX_BYTES", 20_000)
    monkeypatch.setattr(client, "get_system_info", refuse)
    for number in range(100):
        stepped.deliver(Closed(sender, f"k{number}", "c"), sender)
        stepped.step()
    counts = stepped.counts()
    assert counts.pending == 20
    assert counts.dropped == {"overflow": 80}
    assert conserved(counts)


def test_10000_keys_leave_nothing_behind():
    """Neither the times of reports nor the senders of what dead processes left."""
    dispatcher = Dispatcher(worker=False)
    adoption = Adoption(dispatcher)
    gc.collect()  # what other tests left
    known = len(_written)
    senders = []
    for number in range(MANY):
        interval = ReportInterval(f"key {number}")
        sender = Sender(RecordingClient(), f"{number}", MemoryCache(), injected=True)
        adoption.lend(sender)
        senders.append(weakref.ref(sender))
        if number == 10:
            kept = interval, sender  # the control: what is in use stays
    del interval, sender
    gc.collect()
    assert len(_written) - known == 1
    assert [each() for each in senders if each()] == [kept[1]]
    assert list(adoption._senders.values()) == [kept[1]]


@pytest.mark.parametrize("kind", [Closed, Written])
def test_what_is_not_written_down_does_not_hide_behind_what_left_memory(
    stepped, sender, monkeypatch, kind
):
    monkeypatch.setattr(committer, "MAX_BYTES", 100_000)
    for number in range(20):
        stepped.deliver(Written(sender, f"k{number}", "c", 10_000), sender)
    waiting = stepped.committer.counts()
    assert (waiting.sealed, waiting.dropped) == (20, {})  # they left memory
    for number in range(200):
        stepped.deliver(kind(sender, f"k{number % 20}", "c", 10_000), sender)
    waiting = stepped.committer.counts()
    assert waiting.sealed == 220
    assert bool(waiting.dropped) == (kind is Closed)


@pytest.mark.parametrize("windows", [50, 1_000])
def test_windows_that_were_dropped_leave_nothing_at_their_destination(
    stepped, sender, windows
):
    sender.offline = True
    closed = [weakref.ref(sender)]
    for number in range(windows):
        window = Closed(sender, f"k{number}", "c")
        closed.append(weakref.ref(window))
        stepped.deliver(window, sender)
    del window
    stepped.step()
    gc.collect()
    assert sum(each() is not None for each in closed[1:]) == 0
    stepped.deliver(report(sender), sender)
    stepped.step()
    assert stepped.counts().pending == windows + 1
