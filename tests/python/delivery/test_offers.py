"""Metadata that frames offer: who coalesces it when, and none of it is overlooked."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque

import pytest
from stand_ins import conserved, eventually

from peakhold.delivery import Dispatcher, Sender
from peakhold.delivery.collecting import BATCHES_OFFERED, FRAMES_OFFERED
from peakhold.delivery.lanes import LANE_IDLE
from peakhold.delivery.settings import DeliverySettings
from peakhold.records.metadata import METADATA_IDS_LIMIT, MetadataBatch
from peakhold.testing import RecordingClient


def offer(dispatcher, sender, *inference_ids):
    for inference_id in inference_ids:
        dispatcher.metadata.add([inference_id], "f", "v", sender)


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


def test_a_worker_coalesces_what_250_frames_offered(seldom, sender, client):
    offer(seldom, sender, "first")
    assert eventually(lambda: ids_sent(client) == ["first"])
    batch = sender.lane.batch
    assert eventually(lambda: not batch)
    offer(seldom, sender, *(f"id{index}" for index in range(FRAMES_OFFERED - 1)))
    # The control: as long as there are fewer, nobody touches them.
    assert not eventually(lambda: len(batch._offered) < FRAMES_OFFERED - 1, 0.3)
    offer(seldom, sender, "one more")
    assert eventually(lambda: not batch._offered, 2)
    assert len(batch) == FRAMES_OFFERED
    assert seldom.counts().sealed == 1  # they wait for more, and are not sealed
    assert threading.active_count() > 1
    seldom.close(0)
    assert seldom.counts().pending == 1


def test_what_250_frames_offered_twice_is_coalesced_again(seldom, sender, client):
    offer(seldom, sender, "first")
    assert eventually(lambda: ids_sent(client) == ["first"])
    batch = sender.lane.batch
    assert eventually(lambda: not batch)
    for times in (1, 2, 3):
        numbers = range(FRAMES_OFFERED)
        offer(seldom, sender, *(f"{times}-{number}" for number in numbers))
        assert eventually(lambda: not batch._offered, 2)
        assert len(batch) == times * FRAMES_OFFERED


def test_where_no_worker_comes_the_5000th_frame_coalesces(
    stepped, sender, client, clock
):
    limit = FRAMES_OFFERED * BATCHES_OFFERED
    ids = [f"id{index}" for index in range(limit)]
    offer(stepped, sender, *ids[:-1])
    batch = sender.lane.batch
    # The control: one frame fewer leaves all to the workers.
    assert (len(batch._offered), stepped.counts().sealed) == (limit - 1, 0)
    offer(stepped, sender, ids[-1])
    full = limit // METADATA_IDS_LIMIT - 1
    assert (len(batch._offered), len(batch)) == (0, METADATA_IDS_LIMIT)
    assert stepped.counts().pending == full == 4
    drain(stepped, clock)
    assert ids_sent(client) == ids
    assert conserved(stepped.counts())


@pytest.fixture
def pair(api_key, cache):
    """Two senders of one destination, as blocks of one key have them."""
    senders = [Sender(RecordingClient(), api_key, cache, injected=True) for _ in "ab"]
    assert senders[0].destination == senders[1].destination
    return senders


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
    drain(stepped, clock)
    forgotten = sender[before[-1]].lane
    clock.now += LANE_IDLE + 1
    stepped.step()
    assert stepped._lanes == {}
    assert not forgotten.open
    frames(after)
    drain(stepped, clock)
    assert sorted(ids_sent(*(each.client for each in pair))) == sorted(offered)
    assert offered[-1] in ids_sent(sender[after[-1]].client)  # lent last, it sends
    # The control: what stays in the forgotten lane is not found again.
    forgotten.batch.offer(["lost"], "f", "v")
    drain(stepped, clock)
    assert "lost" not in ids_sent(*(each.client for each in pair))


@pytest.mark.parametrize("overtaken", [True, False])
def test_a_frame_that_is_overtaken_at_a_forgotten_destination_is_not_lost(
    stepped, sender, client, clock, overtaken
):
    offer(stepped, sender, "first")
    drain(stepped, clock)
    forgotten = sender.lane
    clock.now += LANE_IDLE + 1
    stepped.step()
    seen = []

    class Overtaken:
        """Another frame comes between finding the lane and offering to it."""

        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def offer(self, *arguments):
            if overtaken and not seen:
                seen.append(None)
                offer(stepped, sender, "overtaking")
                assert sender.lane is not forgotten
            seen.append(self.inner.offer(*arguments))
            return seen[-1]

    forgotten.batch = Overtaken(forgotten.batch)
    offer(stepped, sender, "late")
    # Overtaken, a frame is not the first one there, who has to tell of itself.
    assert (seen[-1] > 0) is overtaken
    drain(stepped, clock)
    assert sorted(ids_sent(client)) == sorted(
        ["first", "late", *(["overtaking"] if overtaken else [])]
    )


class Meeting(deque):
    """Frames that are counted while one more comes."""

    def __init__(self, come):
        super().__init__()
        self.come = [come]

    def __len__(self):
        if self.come:
            self.come.pop()()
        return super().__len__()


@pytest.mark.parametrize("meets", [True, False])
def test_after_a_frame_that_met_the_coalescing_somebody_is_told_again(meets):
    batch, told = MetadataBatch(), []
    told.append(batch.offer(["a"], "f", "v"))
    assert batch.offer(["b"], "f", "v") > 0  # the control: of this one nobody is told
    waiting = Meeting(lambda: told.append(batch.offer(["c"], "f", "v")))
    if not meets:
        waiting.come.clear()
    waiting += batch._offered
    batch._offered = waiting
    assert list(batch.absorb()) == []
    assert len(batch) == (3 if meets else 2)
    told.append(batch.offer(["d"], "f", "v"))
    assert set(told) == {0}
    assert len(told) == (3 if meets else 2)


def test_frames_that_meet_the_forgetting_lose_nothing(stepped, pair, clock):
    offered, lanes = [], set()

    def stream(sender, name):
        until = time.monotonic() + 30
        for index in range(100_000):
            if index >= 1_000 and (len(lanes) > 3 or time.monotonic() > until):
                return
            inference_id = f"{name}{index}"
            offered.append(inference_id)
            offer(stepped, sender, inference_id)
            lanes.add(sender.lane)
            # Now and then nothing is offered for long enough to be forgotten.
            time.sleep(0.0005 if index % 20 else 0.02)

    threads = [
        threading.Thread(target=stream, args=arguments)
        for arguments in zip(pair, "ab", strict=True)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        clock.now += LANE_IDLE + 1
        stepped.step()
    drain(stepped, clock)
    assert len(lanes) > 3  # the control: it was forgotten meanwhile, and found again
    assert sorted(ids_sent(*(each.client for each in pair))) == sorted(offered)
    assert conserved(stepped.counts())
