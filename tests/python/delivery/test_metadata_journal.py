"""Metadata in the journal: the next process makes the same requests of it."""

from __future__ import annotations

import shutil
import threading
from collections import deque

import pytest
from stand_ins import conserved

from peakhold._peakhold import Journal, MetadataJournal, recover_journal
from peakhold.blocks.adoption import Adoption
from peakhold.delivery import Dispatcher, Sender
from peakhold.delivery.metadata import Offers, PendingMetadata
from peakhold.outbox import StateDirectory
from peakhold.records.metadata import METADATA_IDS_LIMIT
from peakhold.testing import RecordingClient


@pytest.fixture
def process(tmp_path, clock):
    """Makes what a process of its own would have, but for the threads."""
    made = []

    def make(name="state"):
        state = StateDirectory(tmp_path / name)
        made.append(Dispatcher(state, clock=clock, worker=False))
        return made[-1]

    yield make
    for dispatcher in made:
        dispatcher.close(0)


@pytest.fixture
def pair(api_key, cache):
    """Two senders of one destination, as blocks of one key have them."""
    return [Sender(RecordingClient(), api_key, cache, injected=True) for _ in "ab"]


def leased(dispatcher, sender):
    """Return the id and body of all metadata that waits."""
    found = []
    while record := dispatcher.outbox.lease(sender.destination, "metadata"):
        found.append((record.id, record.body))
    return sorted(found)


def adopt(dispatcher, sender):
    adoption = Adoption(dispatcher)
    adoption.lend(sender)
    adoption.adopt(0.0)
    dispatcher.committer.commit()


def sent(sender):
    return [
        inference_id
        for _, call in sender.client.named("add_custom_metadata")
        for inference_id in call["inference_ids"]
    ]


@pytest.mark.parametrize("committed", [True, False])
def test_after_a_kill_metadata_has_the_id_and_the_body_that_it_had(
    process, pair, tmp_path, committed
):
    """Two senders took turns, with values that replace each other, and a long frame."""
    dispatcher = process()
    for number in range(40):
        pair[number % 2].offline = True
        ids = [f"id {number // 4}", f"id {number}", "\ud800"]
        dispatcher.add_metadata(ids, "f\udfff", f"v{number % 3}", pair[number % 2])
    many = [f"many {number}" for number in range(METADATA_IDS_LIMIT + 1)]
    dispatcher.add_metadata(many, "f", "v", pair[0])
    journals = tmp_path / "state" / "journals"
    shutil.copytree(journals, tmp_path / "before")
    dispatcher.pack_metadata()
    dispatcher.committer.commit()
    assert list(journals.iterdir()) == []  # the control: what is committed goes
    before = leased(dispatcher, pair[0])
    assert len(before) == 3
    dispatcher.state.release()
    # As if the kill had come before the removal, or before the commit.
    name = "state" if committed else "other"
    shutil.copytree(
        tmp_path / "before", tmp_path / name / "journals", dirs_exist_ok=True
    )
    heir = process(name)
    heir.outbox.tend([pair[0].destination])
    adopt(heir, pair[0])
    assert heir.counts().sealed == len(before)
    assert leased(heir, pair[0]) == before
    assert list((tmp_path / name / "journals").iterdir()) == []


def test_what_threads_register_while_others_pack_is_sent_once(
    process, pair, clock, tmp_path
):
    dispatcher = process()
    names = [f"{at}-{number}" for at in range(4) for number in range(400)]

    def register(at):
        for name in names[at * 400 : (at + 1) * 400]:
            dispatcher.add_metadata([name], "f", "v", pair[at % 2])

    threads = [threading.Thread(target=register, args=(at,)) for at in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        clock.now += 0.25
        dispatcher.step()
    for _ in range(40):
        clock.now += 0.25
        dispatcher.step()
    assert sorted(sent(pair[0]) + sent(pair[1])) == sorted(names)
    assert conserved(dispatcher.counts())
    assert list((tmp_path / "state" / "journals").iterdir()) == []


def test_a_frame_that_is_late_is_waited_for(tmp_path):
    pending = PendingMetadata()
    offers = Offers(None, MetadataJournal(Journal(tmp_path / "own"), about=b""))
    for name in "abc":
        offers.journal.append(offers.frames, [name], "f", "v")
    late = offers.frames[1]
    del offers.frames[1]  # its thread has written it, and no more
    pending.notice(offers, 0.0)
    assert list(pending.pack(0.0, whole=True)) == []
    assert pending
    offers.frames.append(late)
    pending.notice(offers, 0.0)
    ((entries, _),) = pending.pack(0.0, whole=True)
    assert [entry.inference_ids for entry in entries] == [("a", "b", "c")]
    assert not pending


def test_damage_costs_the_metadata_of_its_own_frame_only(tmp_path):
    journal = MetadataJournal(Journal(tmp_path / "own"), about=b"whose it is")
    wanted = [([f"id {number}"], "f", f"v{number}") for number in range(20)]
    for frame in wanted:
        journal.append(deque(), *frame)
    (path,) = (tmp_path / "own").iterdir()
    data = path.read_bytes()
    lost = 0
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x10
        windows, stretches, unknown = recover_journal([bytes(damaged)])
        ((_, _, about, _, frames, _),) = windows
        assert (about, stretches, unknown) == (b"whose it is", 1, 0)
        assert len(frames) >= len(wanted) - 1
        assert all(frame in wanted for frame in frames)
        lost += len(frames) < len(wanted)
    assert lost > len(data) // 2  # the control: most bytes are of some frame
