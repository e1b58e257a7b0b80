"""What waits to be committed and is in the journal leaves memory, and is read back."""

from __future__ import annotations

import pytest
from stand_ins import conserved

from peakhold.blocks.windows import REGISTRY
from peakhold.delivery import Dispatcher, committer, process
from peakhold.delivery.settings import DeliverySettings
from peakhold.outbox import StateDirectory

KEYS = 150


@pytest.fixture
def make(tmp_path, clock, monkeypatch):
    """Makes the process's dispatcher, of which 20 kB may wait in memory."""
    monkeypatch.setattr(committer, "MAX_BYTES", 20_000)
    made = []

    def make_dispatcher(durability="process"):
        settings = DeliverySettings(durability=durability)
        state = StateDirectory(tmp_path / "state") if durability != "memory" else None
        made.append(Dispatcher(state, settings, clock=clock, worker=False))
        monkeypatch.setattr(process, "_current", made[-1])
        return made[-1]

    yield make_dispatcher
    for dispatcher in made:
        dispatcher.close(0)


@pytest.fixture
def close(aggregator, run, client, frame):
    """Closes the windows of many keys, each with a class of that name in it."""

    def close_windows(name):
        block = aggregator(platform_client=client)
        for number in range(KEYS):
            predictions = frame(f"{name} {number}", 0.5, f"id of {name} {number}")
            run(block, predictions, unique_aggregator_key=f"k{number}")
        REGISTRY.flush_all()

    return close_windows


@pytest.fixture
def sent(client, clock):
    """Delivers all that waits; returns the classes and ids of the reports."""

    def deliver(dispatcher):
        deliver_all(dispatcher, clock)
        lines = [
            line for report in client.reports() for line in report["inference_results"]
        ]
        return sorted((line["class_name"], line["inference_id"]) for line in lines)

    return deliver


def deliver_all(dispatcher, clock):
    for _ in range(1_000):
        clock.now += 1
        dispatcher.step()
        if not dispatcher.counts().pending:
            return


def expected(*names):
    return sorted(
        (f"{name} {number}", f"id of {name} {number}")
        for name in names
        for number in range(KEYS)
    )


def journals(tmp_path):
    return list((tmp_path / "state" / "journals").rglob("*.journal"))


def test_windows_in_the_journal_leave_memory_and_none_is_lost(
    make, close, sent, tmp_path
):
    dispatcher = make()
    close("dog")
    assert dispatcher.counts().pending == KEYS
    dispatcher.committer.commit()
    counts = dispatcher.counts()
    assert (counts.sealed, counts.pending, counts.dropped) == (KEYS, KEYS, {})
    assert sent(dispatcher) == expected("dog")
    assert journals(tmp_path) == []


def test_windows_without_a_journal_are_dropped_and_counted(make, close, sent):
    """The control: memory is bounded, so that some had to leave it."""
    dispatcher = make("memory")
    close("dog")
    dispatcher.committer.commit()
    counts = dispatcher.counts()
    assert counts.dropped["overflow"] > KEYS / 2
    assert conserved(counts)
    assert set(sent(dispatcher)) < set(expected("dog"))


def test_a_window_that_left_memory_takes_later_ones_of_its_key_in(
    make, close, sent, tmp_path
):
    dispatcher = make()
    for name in ("dog", "cat", "cow"):
        close(name)
    dispatcher.committer.commit()
    counts = dispatcher.counts()
    assert (counts.sealed, counts.pending, counts.dropped) == (3 * KEYS, 3 * KEYS, {})
    assert sent(dispatcher) == expected("dog", "cat", "cow")
    assert journals(tmp_path) == []


def test_metadata_in_the_journal_leaves_memory_and_none_is_lost(
    make, sender, client, clock, tmp_path
):
    dispatcher = make()
    names = [f"{'name of some length':40}{number}" for number in range(20_000)]
    for first in range(0, len(names), 500):
        ids = names[first : first + 500]
        dispatcher.add_metadata(ids, "camera", "gate", sender)
        dispatcher.pack_metadata()
    dispatcher.committer.commit()
    counts = dispatcher.counts()
    assert (counts.sealed, counts.pending, counts.dropped) == (40, 40, {})
    deliver_all(dispatcher, clock)
    calls = client.named("add_custom_metadata")
    found = [name for _, call in calls for name in call["inference_ids"]]
    assert sorted(found) == sorted(names)
    assert journals(tmp_path) == []


def test_what_cannot_be_read_back_now_is_read_later(make, close, sent, tmp_path, clock):
    dispatcher = make()
    close("dog")
    (segment,) = journals(tmp_path)
    aside = segment.with_suffix(".aside")
    segment.rename(aside)
    segment.mkdir()  # cannot be opened to be read
    dispatcher.committer.commit()
    before = dispatcher.counts()
    assert dispatcher.committer.counts().pending > KEYS / 2
    assert (before.sealed, before.pending, before.dropped) == (KEYS, KEYS, {})
    segment.rmdir()
    aside.rename(segment)
    clock.now += committer.PAUSE
    dispatcher.committer.commit()
    assert dispatcher.committer.counts().pending == 0
    assert sent(dispatcher) == expected("dog")


def test_what_is_gone_from_the_journal_is_counted(make, close, sent, tmp_path):
    dispatcher = make()
    close("dog")
    for segment in journals(tmp_path):
        segment.unlink()
    dispatcher.committer.commit()
    counts = dispatcher.counts()
    assert counts.dropped["overflow"] > KEYS / 2
    assert conserved(counts)
    assert len(sent(dispatcher)) == counts.pending > 0


def test_what_a_dead_process_left_is_committed_in_portions(
    make, aggregator, run, client, frame, sent, tmp_path
):
    dead = make()
    block = aggregator(platform_client=client)
    for number in range(KEYS):
        predictions = frame(f"dog {number}", 0.5, f"id of dog {number}")
        run(block, predictions, unique_aggregator_key=f"k{number}")
    dead.state.release()  # as a kill does
    heir = make()
    REGISTRY.lend(heir, block._sender)
    found = sent(heir)
    assert (heir.counts().sealed, heir.counts().dropped) == (KEYS, {})
    assert found == expected("dog")
    assert journals(tmp_path) == []
