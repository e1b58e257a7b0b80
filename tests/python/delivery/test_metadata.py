"""Metadata that frames leave: when it is coalesced, and that none is overlooked."""

from __future__ import annotations

import itertools
import threading
import time

import pytest
from stand_ins import conserved, eventually

from peakhold.delivery import Dispatcher, Sender
from peakhold.delivery.destination import IDLE
from peakhold.delivery.metadata import (
    BATCHES_OFFERED,
    FRAMES_OFFERED,
    Offers,
    PendingMetadata,
)
from peakhold.delivery.settings import DeliverySettings
from peakhold.records.metadata import METADATA_IDS_LIMIT
from peakhold.testing import RecordingClient


def offer(dispatcher, sender, *inference_ids):
    for inference_id in inference_ids:
        dispatcher.add_metadata([inference_id], "f", "v", sender)


def ids_sent(*clients):
    return [
        inference_id
        for client in clients
        for _, call in client.named("add_custom_metadata")
        for inference_id in call["inference_ids"]
    ]


def drain(dispatcher, clock):
    """Step until nothing is due any more but a look through the outbox."""
    while (wait := dispatcher.step()) is not None:
        clock.now += wait


@pytest.fixture
def seldom():
    """A dispatcher with workers who send metadata every 100 seconds."""
    dispatcher = Dispatcher(settings=DeliverySettings(metadata_rate=0.01))
    yield dispatcher
    dispatcher.close(0)


def waiting(sender):
    """Frames whose metadata nobody has touched yet."""
    return len(sender.offers.frames)


def test_a_thread_coalesces_what_250_frames_offered(seldom, sender, client):
    offer(seldom, sender, "first")
    assert eventually(lambda: ids_sent(client) == ["first"])
    for times in (1, 2, 3):
        numbers = range(FRAMES_OFFERED - 1)
        offer(seldom, sender, *(f"{times}-{number}" for number in numbers))
        # The control: as long as there are fewer, nobody touches them.
        assert not eventually(lambda: waiting(sender) < FRAMES_OFFERED - 1, 0.3)
        offer(seldom, sender, f"{times} one more")
        assert eventually(lambda: not waiting(sender), 2)
    assert seldom.counts().sealed == 1  # they wait for more, and are not in a record
    seldom.close(0)
    assert seldom.counts().pending == 1


def test_where_no_thread_comes_the_5000th_frame_coalesces(
    stepped, sender, client, clock
):
    limit = FRAMES_OFFERED * BATCHES_OFFERED
    ids = [f"id{index}" for index in range(limit)]
    offer(stepped, sender, *ids[:-1])
    # The control: one frame fewer leaves all to the threads.
    assert (waiting(sender), stepped.counts().sealed) == (limit - 1, 0)
    offer(stepped, sender, ids[-1])
    assert waiting(sender) == 0
    assert stepped.counts().pending == limit // METADATA_IDS_LIMIT - 1 == 4
    drain(stepped, clock)
    assert ids_sent(client) == ids
    assert conserved(stepped.counts())


@pytest.fixture
def pair(api_key, cache):
    """Two senders of one destination, as blocks of one key have them."""
    senders = [Sender(RecordingClient(), api_key, cache, injected=True) for _ in "ab"]
    assert senders[0].destination == senders[1].destination
    return senders


def forget(dispatcher, clock):
    """Let so much time pass that destinations without work are forgotten."""
    clock.now += IDLE + 1
    dispatcher._destinations.forget_idle()


@pytest.mark.parametrize("before", ["ab", "ba", "a", "b"])
@pytest.mark.parametrize("after", ["ba", "ab", "bab", "aab", "bba"])
def test_two_senders_of_a_forgotten_destination_lose_nothing(
    stepped, pair, clock, before, after
):
    sender = dict(zip("ab", pair, strict=True))
    numbers = itertools.count()
    offered = []

    def frames(names):
        for name in names:
            offered.append(f"{name}{next(numbers)}")
            offer(stepped, sender[name], offered[-1])

    frames(before)
    forget(stepped, clock)
    assert stepped._destinations.values()  # the control: there is something to send
    drain(stepped, clock)
    forget(stepped, clock)
    assert stepped._destinations.values() == []
    frames(after)
    drain(stepped, clock)
    assert sorted(ids_sent(*(each.client for each in pair))) == sorted(offered)
    assert offered[-1] in ids_sent(*(sender[name].client for name in after))


def test_a_frame_that_comes_while_others_are_taken_is_noticed_again():
    pending, offers = PendingMetadata(), Offers(None)

    def come(name):
        offers.frames.append(([name], "f", "v", None, 0))
        if not offers.noticed:
            pending.notice(offers, 0.0)

    def ids_that_bring(name):
        come(name)
        yield "a"

    offers.frames.append((ids_that_bring("b"), "f", "v", None, 0))
    pending.notice(offers, 0.0)
    (((entry,), _),) = pending.pack(0.0, whole=True)
    assert entry.inference_ids == ("a",)
    assert pending
    # The control: what is not noticed is not packed.
    (((entry,), _),) = pending.pack(0.0, whole=True)
    assert entry.inference_ids == ("b",)
    offers.frames.append((["c"], "f", "v", None, 0))
    assert list(pending.pack(0.0, whole=True)) == []


def test_frames_that_meet_the_forgetting_lose_nothing(stepped, pair, clock):
    offered, opened = [], set()

    def stream(sender, name):
        until = time.monotonic() + 30
        for index in range(100_000):
            if index >= 1_000 and (len(opened) > 3 or time.monotonic() > until):
                return
            inference_id = f"{name}{index}"
            offered.append(inference_id)
            offer(stepped, sender, inference_id)
            # Now and then nothing is offered for long enough to be forgotten.
            time.sleep(0.0005 if index % 20 else 0.02)

    threads = [
        threading.Thread(target=stream, args=arguments)
        for arguments in zip(pair, "ab", strict=True)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        opened.update(map(id, stepped._destinations.values()))
        stepped.step()
        forget(stepped, clock)
    drain(stepped, clock)
    assert len(opened) > 3  # the control: it was forgotten meanwhile, and found again
    assert sorted(ids_sent(*(each.client for each in pair))) == sorted(offered)
    assert conserved(stepped.counts())
