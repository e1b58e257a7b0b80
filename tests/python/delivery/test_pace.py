"""How fast a destination is sent to, and how much waits for it."""

from __future__ import annotations

import uuid

import pytest
from stand_ins import StatusError, conserved, metadata, report, sent

from peakhold.delivery import Dispatcher
from peakhold.delivery.exporter import DELIVERED, Exporter
from peakhold.delivery.settings import DeliverySettings
from peakhold.records import DestinationKey


def times_sent(dispatcher, client, clock, seconds, window=None, period=None):
    """Step every 2 ms; a window closes every ``period``. Returns when reports went."""
    times, start = [], clock.now
    closings = 0
    while clock.now < start + seconds:
        if period and clock.now >= start + closings * period:
            closings += 1
            window()
        before = sent(client)
        dispatcher.step()
        times.extend([clock.now] * (sent(client) - before))
        clock.now += 0.002
    return times


def most_a_second(times):
    return max(sum(at <= each < at + 1 for each in times) for at in times)


@pytest.fixture
def close(stepped, sender):
    """Closes a window."""
    return lambda: stepped.deliver(report(sender), sender)


def test_steady_reports_go_out_as_fast_as_the_endpoint_takes_them(
    stepped, client, clock, close
):
    times = times_sent(stepped, client, clock, 10, close, 1 / 40)
    assert len(times) == 400
    assert most_a_second(times) >= 40
    assert stepped.counts().pending == 0


def test_after_an_outage_10_requests_a_second_go_out_until_its_backlog_is_gone(
    stepped, client, clock, close
):
    client.failures = [StatusError(503)]
    close()
    stepped.step()
    for _ in range(100):
        close()
    assert stepped.counts().pending == 101
    clock.now += 3
    times = times_sent(stepped, client, clock, 20, close, 1 / 40)
    backlog, rest = times[:101], times[101:]
    assert most_a_second(backlog) == 10
    assert 10 <= backlog[-1] - backlog[0] < 10.2  # as fast as that allows
    # What closed meanwhile, 400 windows, follows at the endpoint's pace.
    assert most_a_second(rest) > 100
    assert stepped.counts().pending == 0


def test_a_second_outage_within_the_first_one_s_backlog_is_an_outage(
    stepped, client, clock, close
):
    client.failures = [StatusError(503), None, None, StatusError(503)]
    for _ in range(50):
        close()
    times = times_sent(stepped, client, clock, 30)
    assert len(times) == 52
    assert most_a_second(times) == 10
    assert stepped.counts().pending == 0


def test_what_a_dead_process_left_of_an_outage_is_bounded_too(
    state, sender, client, clock
):
    client.failures = [StatusError(503)]
    first = Dispatcher(state, clock=clock, jitter=lambda low, high: high, worker=False)
    first.deliver(report(sender), sender)
    first.step()
    for _ in range(29):
        first.deliver(report(sender), sender)
    first.committer.commit()
    state.release()
    next_one = Dispatcher(state, clock=clock, worker=False)
    next_one.register(sender)
    times = times_sent(next_one, client, clock, 10)
    assert len(times) == 30
    assert most_a_second(times) == 10


def test_what_a_dead_process_left_without_an_outage_is_not_bounded(
    state, sender, client, clock
):
    first = Dispatcher(state, clock=clock, worker=False)
    for _ in range(30):
        first.deliver(report(sender), sender)
    first.committer.commit()
    state.release()
    next_one = Dispatcher(state, clock=clock, worker=False)
    next_one.register(sender)
    assert most_a_second(times_sent(next_one, client, clock, 1)) == 30


def test_the_bound_is_that_of_the_settings(sender, client, clock):
    dispatcher = Dispatcher(
        settings=DeliverySettings(rate=50), clock=clock, worker=False
    )
    client.failures = [StatusError(503)]
    for _ in range(200):
        dispatcher.deliver(report(sender), sender)
    times = times_sent(dispatcher, client, clock, 20)
    assert len(times) == 201
    assert most_a_second(times) == 50


def test_a_request_of_several_records_is_one(clock):
    class Batching(Exporter):
        destination = DestinationKey("batching:", "none", "Batching")
        most = 5

        def __init__(self):
            self.failures = [StatusError(503)]
            self.sizes, self.times = [], []

        def export(self, records):
            self.sizes.append(len(records))
            self.times.append(clock.now)
            if self.failures:
                raise self.failures.pop()
            return [DELIVERED] * len(records)

    exporter = Batching()
    dispatcher = Dispatcher(clock=clock, jitter=lambda low, high: high, worker=False)
    for _ in range(100):
        dispatcher.deliver(report(exporter), exporter)
    dispatcher.step()
    clock.now += 3
    while (wait := dispatcher.step()) is not None:
        clock.now += wait
    assert exporter.sizes == [5] * 21
    assert most_a_second(exporter.times) == 10
    assert exporter.times[-1] - exporter.times[1] == 1.0  # as fast as that allows
    assert dispatcher.counts().pending == 0


def test_neither_reports_nor_metadata_wait_for_all_of_the_other(clock):
    class Slow(Exporter):
        destination = DestinationKey("slow:", "none", "Slow")

        def __init__(self):
            self.kinds = []

        def export(self, records):
            self.kinds.append(records[0].kind)
            clock.now += 0.5
            return [DELIVERED]

    exporter = Slow()
    dispatcher = Dispatcher(clock=clock, worker=False)
    for index in range(50):
        dispatcher.deliver(report(exporter), exporter)
        dispatcher.deliver(metadata(exporter, f"v{index}"), exporter)
    while dispatcher.step() is not None:
        pass
    assert len(exporter.kinds) == 100
    assert 20 <= exporter.kinds[:50].count("report") <= 30


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
