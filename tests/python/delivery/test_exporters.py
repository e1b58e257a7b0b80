"""Outputs of other kinds: each in a class of its own, several for one window."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from stand_ins import PlainWindow, StatusError, conserved, report

from peakhold.delivery import Dispatcher
from peakhold.delivery.exporter import DELIVERED, Exporter, Outcome
from peakhold.delivery.policy import Verdict
from peakhold.outbox import admin
from peakhold.records import DestinationKey


class Printer(Exporter):
    """Takes one record at a time."""

    destination = DestinationKey("printer:", "none", "Printer")

    def __init__(self):
        self.printed = []

    def export(self, records):
        self.printed.append([classes(each) for each in records])
        return [DELIVERED] * len(records)


class Batching(Exporter):
    """Takes up to three records in a request, of which some may be refused."""

    destination = DestinationKey("batching:", "none", "Batching")
    most = 3

    def __init__(self, refused=()):
        self.refused = dict(refused)
        self.requests = []

    def export(self, records):
        self.requests.append([classes(each)[0] for each in records])
        outcomes = []
        for each in records:
            error = self.refused.pop(classes(each)[0], None)
            outcomes.append(self.failed(error) if error else DELIVERED)
        return outcomes


def classes(record):
    body = json.loads(record.body)
    return [each["class_name"] for each in body["inference_results"]]


def window(exporter, name):
    return PlainWindow(lambda: report(exporter, name, **{name: 0.5}), name)


def drain(dispatcher, clock):
    while (wait := dispatcher.step()) is not None:
        clock.now += wait


def test_one_window_goes_to_every_output_once(stepped, sender, client, clock):
    printer, batching = Printer(), Batching()
    closed = window(sender, "car")
    stepped.deliver(closed, sender, printer, batching)
    drain(stepped, clock)
    assert printer.printed == [[["car"]]]
    assert batching.requests == [["car"]]
    assert len(client.reports()) == 1
    counts = stepped.counts()
    assert (counts.sealed, counts.delivered) == (3, 3)  # deliveries are counted


def test_a_further_output_gives_a_record_the_same_id_in_every_version(stepped, sender):
    record = replace(report(sender), id="0f3c")
    addressed = stepped.register(Printer()).addressed(record)
    assert addressed.destination == Printer.destination
    assert addressed.id == "0f3c.5e1961c2"
    assert stepped.register(sender).addressed(record) is record  # the control


def test_an_output_that_is_down_holds_up_no_other(stepped, sender, client, clock):
    printer = Printer()
    client.failures = [StatusError(503)]
    stepped.deliver(window(sender, "car"), sender, printer)
    stepped.step()
    stepped.step()
    assert printer.printed == [[["car"]]]
    assert stepped.counts().pending == 1  # the control: the other one is down
    drain(stepped, clock)
    assert stepped.counts().delivered == 2


def rows(dispatcher, query):
    return dispatcher.outbox._disk.transaction(lambda it: it.execute(query).fetchall())


def test_what_waits_for_several_outputs_is_stored_once(state, sender, client, clock):
    dispatcher = Dispatcher(state, clock=clock, worker=False)
    batching = Batching({"car": StatusError(503), "bus": StatusError(503)})
    client.failures = [StatusError(503)] * 2
    for name in ("car", "bus"):
        dispatcher.deliver(window(sender, name), sender, batching)
    dispatcher.step()
    stored = rows(dispatcher, "SELECT content, destination FROM records")
    assert len({tuple(each) for each in stored}) == 4
    assert len({each["content"] for each in stored}) == 2
    assert len(rows(dispatcher, "SELECT 1 FROM contents")) == 2
    for _ in range(10):
        clock.now += dispatcher.step()
    assert dispatcher.counts().delivered == 4
    assert rows(dispatcher, "SELECT 1 FROM contents") == []
    bodies = [json.dumps(each, sort_keys=True) for each in client.reports()]
    assert len({*bodies}) == 2  # repeated as they were


def test_what_one_output_has_is_kept_for_the_others(state, sender, clock):
    dispatcher = Dispatcher(state, clock=clock, worker=False)
    printer, batching = Printer(), Batching({"car": StatusError(400)})
    dispatcher.deliver(window(sender, "car"), printer, batching)
    clock.now += 1.0
    dispatcher.step()
    dispatcher.step()
    (dead,) = admin.listed(state, record_state="dead")
    assert dead["endpoint"] == "batching:"
    assert printer.printed == [[["car"]]]
    (line,) = admin.shown(state, dead["id"])["body"]["inference_results"]
    assert line["class_name"] == "car"


def test_one_destination_gets_a_window_once_though_it_is_given_twice(stepped, clock):
    one, same = Batching(), Batching()
    stepped.deliver(window(one, "car"), one, same)
    stepped.deliver(window(one, "bus"), one)
    drain(stepped, clock)
    assert sorted(one.requests + same.requests) in (
        [["bus"], ["car"]],
        [["car", "bus"]],
    )
    assert stepped.counts().delivered == 2


def test_an_exporter_that_answers_with_the_record_itself_stops_no_other(
    state, sender, client, clock
):
    class Confused(Printer):
        def export(self, records):
            return [Outcome(Verdict.TOO_LARGE, parts=records)]

    dispatcher = Dispatcher(state, clock=clock, worker=False)
    dispatcher.deliver(window(sender, "car"), Confused(), sender)
    dispatcher.step()
    dispatcher.step()
    assert len(client.reports()) == 1
    assert dispatcher.outbox.disk_error is None
    assert dispatcher.counts().pending == 1  # it is tried again, with a pause


def test_of_a_batch_what_fails_is_tried_again_and_the_rest_is_not(clock):
    dispatcher = Dispatcher(clock=clock, jitter=lambda low, high: high, worker=False)
    batching = Batching({"b": StatusError(503), "c": StatusError(400)})
    for name in "abcd":
        dispatcher.deliver(window(batching, name), batching)
    drain(dispatcher, clock)
    assert batching.requests == [["a", "b", "c"], ["b", "d"]]
    counts = dispatcher.counts()
    assert (counts.delivered, counts.dead, counts.pending) == (3, 1, 0)
    assert conserved(counts)


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_of_a_batch_whose_settling_is_interrupted_the_rest_is_sent_again(
    stepped, clock, monkeypatch, end
):
    """As by a callback that ends the process, and then it does not end."""

    def leave(_failure):
        raise end

    monkeypatch.setattr("peakhold.notices.ERROR_CALLBACKS", [leave])
    batching = Batching({"b": StatusError(400)})
    for name in "abc":
        stepped.deliver(window(batching, name), batching)
    with pytest.raises(end):
        stepped.step()
    assert batching.requests == [["a", "b", "c"]]
    counts = stepped.counts()
    assert (counts.delivered, counts.dead, counts.pending) == (1, 1, 1)
    drain(stepped, clock)
    assert batching.requests == [["a", "b", "c"], ["c"]]
    assert stepped.counts().delivered == 2


def test_a_destination_that_takes_a_part_of_a_batch_is_left_alone_for_a_while(clock):
    dispatcher = Dispatcher(clock=clock, jitter=lambda low, high: high, worker=False)
    batching = Batching({"a": StatusError(503)})
    for name in "ab":
        dispatcher.deliver(window(batching, name), batching)
    assert dispatcher.step() == 3.0
    dispatcher.step()
    assert batching.requests == [["a", "b"]]
    # The control: after the pause it is tried.
    clock.now += 3.0
    dispatcher.step()
    assert batching.requests == [["a", "b"], ["a"]]


def test_a_failed_request_of_several_records_lengthens_the_pause_once(clock):
    dispatcher = Dispatcher(clock=clock, jitter=lambda low, high: high, worker=False)
    batching = Batching({name: StatusError(503) for name in "abc"})
    for name in "abc":
        dispatcher.deliver(window(batching, name), batching)
    assert dispatcher.step() == 3.0
    assert batching.requests == [["a", "b", "c"]]


def test_what_comes_while_the_backlog_is_leased_is_sent_after_it(
    stepped, clock, monkeypatch
):
    batching = Batching()
    batching.most, batching.offline = 1, True
    for name in "abc":
        stepped.deliver(window(batching, name), batching)
    stepped.step()
    batching.offline = False
    lease, late = stepped.outbox.lease, ["d"]

    def meet(*arguments):
        if late:
            stepped.deliver(window(batching, late.pop()), batching)
            stepped.committer.commit()
        return lease(*arguments)

    monkeypatch.setattr(stepped.outbox, "lease", meet)
    stepped.register(batching, try_now=True)
    drain(stepped, clock)
    assert batching.requests == [["a"], ["b"], ["c"], ["d"]]


def test_an_exporter_that_raises_has_everything_tried_again(stepped, clock):
    batching = Batching()
    export, failures = batching.export, [RuntimeError("no")]

    def raises_once(records):
        if failures:
            raise failures.pop()
        return export(records)

    batching.export = raises_once
    for name in "ab":
        stepped.deliver(window(batching, name), batching)
    drain(stepped, clock)
    assert batching.requests == [["a", "b"]]
    assert stepped.counts().delivered == 2
    assert stepped.notices.counts[Verdict.RETRY.value] > 0


@pytest.mark.parametrize("names", ["a", "abcde"])
def test_what_waited_is_sent_in_batches_too(stepped, clock, names):
    batching = Batching()
    batching.offline = True
    for name in names:
        stepped.deliver(window(batching, name), batching)
    stepped.step()
    assert batching.requests == []
    batching.offline = False
    stepped.register(batching, try_now=True)
    drain(stepped, clock)
    assert [name for each in batching.requests for name in each] == list(names)
    assert len(batching.requests) == (len(names) + 2) // 3
