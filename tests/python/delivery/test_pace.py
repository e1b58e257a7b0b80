"""How fast a destination is sent to, and how much waits for it."""

from __future__ import annotations

import uuid

from stand_ins import StatusError, conserved, metadata, report, sent

from peakhold.delivery import Dispatcher
from peakhold.delivery.settings import DeliverySettings


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
    tiny = DeliverySettings(outbox_mib=0.3)
    dispatcher = Dispatcher(settings=tiny, clock=clock, worker=False)
    client.lookup_failures = [StatusError(503)] * 10
    for _ in range(100_000):
        dispatcher.add_metadata([uuid.uuid4().hex], "f", "v", sender)
    dispatcher.step()
    counts = dispatcher.counts()
    assert counts.pending < 20
    assert 95 <= counts.sealed <= 100
    assert counts.dropped == {"overflow": counts.sealed - counts.pending}
    assert conserved(counts)


def values_sent(client):
    return [call["field_value"] for _, call in client.named("add_custom_metadata")]


def test_what_an_injected_client_took_is_not_sent_again(stepped, sender, client, clock):
    client.failures = [None, None, StatusError(503)]
    stepped.deliver(metadata(sender, "u", "v", "w", "x"), sender)
    while (wait := stepped.step()) is not None:
        clock.now += wait
    assert values_sent(client) == ["u", "v", "w", "w", "x"]
    counts = stepped.counts()
    assert (counts.sealed, counts.delivered, counts.pending) == (4, 4, 0)


def test_clients_that_take_one_entry_a_call_get_4_calls_a_second_at_most(
    stepped, sender, client, clock
):
    values = [f"v{index}" for index in range(200)]
    for value in values:
        stepped.add_metadata(["id"], "f", value, sender)
    times = []
    while (wait := stepped.step()) is not None:
        assert 0 <= len(values_sent(client)) - len(times) <= 1
        times += [clock.now] * (len(values_sent(client)) - len(times))
        clock.now += wait
    assert values_sent(client) == values
    assert all(after - before >= 0.25 for before, after in zip(times, times[1:]))  # noqa: B905, RUF007 - of Python 3.10
    # The control: as fast as the limit allows.
    assert times[-1] - times[0] == 199 * 0.25
    assert conserved(stepped.counts())


def test_the_package_s_client_takes_many_entries_in_one_request(
    working, own_sender, api
):
    record = metadata(own_sender, *(f"v{index}" for index in range(200)))
    working.deliver(record, own_sender)
    assert working.flush(5)
    assert len(api.posts(kind="metadata")) == 1
    assert len(api.entries()) == 200


def test_a_synchronous_caller_sends_its_own_entries_at_once(stepped, sender, client):
    values = [f"v{index}" for index in range(20)]
    stepped.add_metadata(["id"], "f", "of others", sender)
    assert stepped.deliver_now(metadata(sender, *values), sender) is None
    assert values_sent(client) == values
    assert conserved(stepped.counts())


def test_what_is_left_of_a_synchronous_caller_s_entries_stays_pending(
    stepped, sender, client, clock
):
    client.failures = [None, StatusError(503)]
    record = metadata(sender, "u", "v", "w")
    assert stepped.deliver_now(record, sender) is not None
    while (wait := stepped.step()) is not None:
        clock.now += wait
    assert values_sent(client) == ["u", "v", "v", "w"]
    assert conserved(stepped.counts())
    assert stepped.counts().pending == 0


def test_the_backlog_of_a_client_that_takes_one_entry_a_call_is_bounded(
    sender, client, clock
):
    tiny = DeliverySettings(outbox_mib=0.19)
    dispatcher = Dispatcher(settings=tiny, clock=clock, worker=False)
    dispatcher.deliver(report(sender), sender)
    for index in range(20_000):  # 20 full batches, and a call for every entry
        dispatcher.add_metadata(["id"], "f", f"v{index}", sender)
        if index % 1_000 == 0:
            dispatcher.step()
            clock.now += 0.25
    assert sent(client) == 1
    assert 18 <= len(values_sent(client)) <= 19  # the report took a turn
    counts = dispatcher.counts()
    assert counts.pending <= 15
    assert counts.dropped["overflow"] > 0
    assert conserved(counts)
