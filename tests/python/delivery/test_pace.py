"""How fast a destination is sent to, and how much waits for it."""

from __future__ import annotations

from stand_ins import StatusError, conserved, metadata, report, sent

from peakhold.delivery import Dispatcher
from peakhold.delivery.outbox import MemoryOutbox


def test_reports_go_out_at_10_a_second_at_most(stepped, sender, client, clock):
    for index in range(35):
        stepped.deliver(report(sender, f"w{index}"), sender)
    times = []
    for _ in range(2_000):
        before = sent(client)
        stepped.step()
        times.extend([clock.now] * (sent(client) - before))
        clock.now += 0.002
    assert len(times) == 35
    assert all(times[at + 10] - times[at] >= 1.0 for at in range(25))
    # The control: as fast as the limit allows, 35 take 3 seconds.
    assert times[-1] - times[0] < 3.2


def test_metadata_goes_out_at_4_requests_a_second_at_most(
    stepped, sender, client, clock
):
    times, ids = [], []
    for index in range(1_000):  # 500 frames a second for 2 seconds
        ids.append(f"id{index}")
        stepped.add_metadata([ids[-1]], "f", "v", sender)
        before = len(client.named("add_custom_metadata"))
        stepped.step()
        times.extend([clock.now] * (len(client.named("add_custom_metadata")) - before))
        clock.now += 0.002
    clock.now += 0.25
    stepped.step()
    calls = client.named("add_custom_metadata")
    assert [i for _, call in calls for i in call["inference_ids"]] == ids
    assert 8 <= len(calls) <= 9
    assert all(after - before >= 0.25 for before, after in zip(times, times[1:]))  # noqa: B905, RUF007 - of Python 3.10


def test_a_failing_destination_keeps_metadata_bounded(sender, client, clock):
    outbox = MemoryOutbox(max_records=3)
    dispatcher = Dispatcher(outbox, clock=clock, worker=False)
    client.lookup_failures = [StatusError(503)] * 10
    for index in range(8_000):
        dispatcher.add_metadata([f"id{index}"], "f", "v", sender)
    dispatcher.step()
    counts = dispatcher.counts()
    assert counts.pending == 3
    assert counts.dropped == {"overflow": 4}
    assert conserved(counts)


def test_what_an_injected_client_took_is_not_sent_again(stepped, sender, client, clock):
    client.failures = [None, None, StatusError(503)]
    stepped.deliver(metadata(sender, "u", "v", "w", "x"), sender)
    clock.now += stepped.step()
    stepped.step()
    values = [call["field_value"] for _, call in client.named("add_custom_metadata")]
    assert values == ["u", "v", "w", "w", "x"]
    counts = stepped.counts()
    assert (counts.sealed, counts.delivered, counts.pending) == (2, 2, 0)
