"""What waits to be committed and is in the journal leaves memory, and is read back."""

from __future__ import annotations

import pytest
from stand_ins import conserved

from peakhold.blocks.windows import REGISTRY
from peakhold.delivery import Dispatcher, committer, process
from peakhold.delivery.settings import DeliverySettings
from peakhold.outbox import StateDirectory

KEYS, CLASSES = 150, 10


@pytest.fixture
def make(tmp_path, clock, monkeypatch):
    """Makes the process's dispatcher, of which 250 kB may wait in memory."""
    monkeypatch.setattr(committer, "MAX_BYTES", 250_000)
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


def frame_of(name, number):
    classes = (class_of(name, number, at) for at in range(CLASSES))
    return {
        "inference_id": f"id {number}",
        "prediction_type": "classification",
        "predictions": [{"class": each, "confidence": 0.5} for each in classes],
    }


def class_of(name, number, at):
    return f"{name} {number:04} {at} {'of a long name' * 10}"


@pytest.fixture
def close(aggregator, run, client):
    """Closes the windows of many keys, each with classes of that name in it."""

    def close_windows(name):
        block = aggregator(platform_client=client)
        for number in range(KEYS):
            run(block, frame_of(name, number), unique_aggregator_key=f"k{number}")
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
        (class_of(name, number, at), f"id {number}")
        for name in names
        for number in range(KEYS)
        for at in range(CLASSES)
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
    assert counts.dropped["damaged"] > KEYS / 2
    assert conserved(counts)
    assert len(sent(dispatcher)) == CLASSES * counts.pending > 0


def test_what_a_dead_process_left_is_committed_in_portions(
    make, aggregator, run, client, sent, tmp_path
):
    dead = make()
    block = aggregator(platform_client=client)
    for number in range(KEYS):
        run(block, frame_of("dog", number), unique_aggregator_key=f"k{number}")
    dead.state.release()  # as a kill does
    heir = make()
    REGISTRY.lend(heir, block._sender)
    found = sent(heir)
    assert (heir.counts().sealed, heir.counts().dropped) == (KEYS, {})
    assert found == expected("dog")
    assert journals(tmp_path) == []


@pytest.mark.parametrize("interrupted", [False, True])
def test_what_was_committed_and_interrupted_is_not_counted_as_lost(
    make, close, sent, monkeypatch, interrupted
):
    dispatcher = make()
    close("dog")
    dispatcher.counts()
    add = dispatcher.outbox.add

    def add_and_raise(*arguments, **options):
        add(*arguments, **options)
        monkeypatch.setattr(dispatcher.outbox, "add", add)
        raise KeyboardInterrupt

    if interrupted:
        monkeypatch.setattr(dispatcher.outbox, "add", add_and_raise)
        with pytest.raises(KeyboardInterrupt):
            dispatcher.committer.commit()
    close("cat")
    assert sent(dispatcher) == expected("dog", "cat")
    counts = dispatcher.counts()
    assert (counts.sealed, counts.delivered) == (2 * KEYS, 2 * KEYS)


def test_a_damaged_window_is_counted_and_no_empty_report_is_sent(
    make, close, sent, client, tmp_path
):
    dispatcher = make()
    close("dog")
    dispatcher.counts()
    (segment,) = journals(tmp_path)
    segment.write_bytes(segment.read_bytes().replace(b"dog 0003", b"dog 0993"))
    found = sent(dispatcher)
    counts = dispatcher.counts()
    assert (counts.delivered, counts.dropped) == (KEYS - 1, {"damaged": 1})
    assert all(report["inference_results"] for report in client.reports())
    lost = set(expected("dog")) - set(found)
    assert {inference_id for _, inference_id in lost} == {"id 3"}
    assert journals(tmp_path) == []


def test_what_a_client_cannot_describe_is_not_read_back(make, close, client, tmp_path):
    dispatcher = make()
    close("dog")
    dispatcher.counts()
    facts = client.get_system_info

    def refuse():
        raise RuntimeError

    client.get_system_info = refuse
    for segment in journals(tmp_path):
        segment.unlink()  # it would be found missing
    dispatcher.committer.commit()
    client.get_system_info = facts
    counts = dispatcher.counts()
    assert (counts.sealed, counts.pending, counts.dropped) == (KEYS, KEYS, {})


def test_what_was_found_damaged_takes_no_later_window_in(
    make, close, sent, tmp_path, monkeypatch
):
    """It was read ahead, and waits until its batch comes."""
    monkeypatch.setattr(committer, "BATCH", 5)
    dispatcher = make()
    close("dog")
    dispatcher.counts()
    (segment,) = journals(tmp_path)
    segment.write_bytes(segment.read_bytes().replace(b"dog 0008", b"dog 0998"))
    add = dispatcher.outbox.add

    def close_and_add(*arguments, **options):
        monkeypatch.setattr(dispatcher.outbox, "add", add)
        close("cat")
        return add(*arguments, **options)

    monkeypatch.setattr(dispatcher.outbox, "add", close_and_add)
    found = sent(dispatcher)
    lost = set(expected("dog", "cat")) - set(found)
    assert {name[:8] for name, _ in lost} == {"dog 0008"}
    assert conserved(dispatcher.counts())


def test_windows_for_which_there_is_no_room_even_so_are_left_to_the_next_process(
    make, close, sent, sender, monkeypatch
):
    dispatcher = make()
    monkeypatch.setattr(committer, "MAX_BYTES", 100_000)
    close("dog")
    dispatcher.committer.commit()
    assert dispatcher.notices.counts["left"] > 0
    assert set(sent(dispatcher)) < set(expected("dog"))
    counts = dispatcher.counts()
    assert (counts.sealed, counts.dropped) == (counts.delivered, {})
    dispatcher.state.release()
    heir = make()
    REGISTRY.lend(heir, sender)
    assert sent(heir) == expected("dog")
    assert (heir.counts().sealed, heir.counts().dropped) == (KEYS, {})
