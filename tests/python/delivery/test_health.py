"""What can be seen of delivery: figures, callbacks, and the outbox by hand."""

from __future__ import annotations

import json
import logging
import sqlite3
from contextlib import closing

import pytest
from stand_ins import StatusError, conserved, metadata, report, sent

import peakhold
from peakhold import notices
from peakhold._peakhold import rejected_inference_ids
from peakhold.delivery import Dispatcher
from peakhold.delivery.destinations import UPKEEP
from peakhold.delivery.health import health
from peakhold.outbox import admin


@pytest.fixture
def durable(state, clock):
    return Dispatcher(state, clock=clock, jitter=lambda low, high: high, worker=False)


@pytest.fixture
def callbacks(monkeypatch):
    """Callbacks of this test alone."""
    monkeypatch.setattr(notices, "ERROR_CALLBACKS", [])
    monkeypatch.setattr(notices, "DROP_CALLBACKS", [])


@pytest.fixture
def troubled(durable, sender, client):
    """An outbox with a record in each state."""
    client.failures = [StatusError(422, text="no such field")]
    durable.deliver(report(sender, "x"), sender)
    durable.step()
    client.failures = [StatusError(402, text="pay first")]
    durable.deliver(report(sender, "y"), sender)
    durable.step()
    durable.deliver(metadata(sender, "v"), sender)
    durable.committer.commit()
    return durable


def test_health_tells_where_everything_stands(troubled, state, api_key, clock):
    clock.now += 10
    found = health(troubled)
    assert found["state_directory"] == str(state.path)
    assert found["durability"] == "process"
    assert found["counts"] == {
        "sealed": 3,
        "delivered": 0,
        "pending": 1,
        "parked": 1,
        "dead": 1,
        "dropped": {},
    }
    assert found["committed"] == found["counts"]
    (destination,) = found["destinations"]
    assert destination["endpoint"] == "http://recording.invalid"
    states = {name: destination[name] for name in admin.STATES}
    assert states == dict.fromkeys(admin.STATES, 1)
    assert destination["last_error"] == "StatusError: pay first"
    assert destination["next_attempt_in"] == 890.0
    assert destination["oldest_age"] >= 0
    assert api_key not in json.dumps(found)


def test_health_tells_what_is_not_committed_yet(troubled, sender):
    troubled.deliver(report(sender, "late"), sender)
    found = health(troubled)
    assert (found["counts"]["sealed"], found["counts"]["pending"]) == (4, 2)
    assert (found["committed"]["sealed"], found["committed"]["pending"]) == (3, 1)
    troubled.committer.commit()
    assert health(troubled)["committed"] == found["counts"]


def test_health_of_a_process_that_did_nothing_is_good():
    found = peakhold.health()
    assert found["destinations"] == []
    assert found["disk_error"] is None
    others = rejected_inference_ids()  # of other tests
    assert found["rejected"] == {
        reason: {"count": count, "by": []} for reason, count in others.items()
    }


def test_errors_and_drops_are_told_without_the_key(
    callbacks, stepped, sender, client, clock, api_key, monkeypatch
):
    errors, drops = [], []
    assert peakhold.on_error(errors.append) == errors.append
    peakhold.on_drop(drops.append)
    client.failures = [StatusError(503, text=f"?api_key={api_key}")]
    stepped.deliver(report(sender, "x"), sender)
    clock.now += stepped.step()
    monkeypatch.setattr(client, "get_system_info", lambda: {"load": float("nan")})
    stepped.deliver(report(sender, "y"), sender)
    stepped.step()
    # What other tests left behind may fail meanwhile, elsewhere.
    (failure,) = [each for each in errors if each.endpoint == client.endpoint]
    assert (failure.kind, failure.state) == ("report", "pending")
    assert "StatusError" in failure.error
    assert api_key not in repr(failure)
    assert ("unencodable", 1) in [(drop.reason, drop.seals) for drop in drops]


def test_a_callback_that_raises_disturbs_nothing(
    callbacks, stepped, sender, client, clock, caplog
):
    def broken(failure):
        raise LookupError("a bug of the user's")

    peakhold.on_error(broken)
    client.failures = [StatusError(503)]
    stepped.deliver(report(sender), sender)
    with caplog.at_level(logging.WARNING):
        clock.now += stepped.step()
    stepped.step()
    assert stepped.counts().delivered == 1
    assert "A callback raised LookupError" in caplog.text


def test_records_are_listed_by_state_and_destination(troubled, state, api_key):
    assert [row["state"] for row in admin.listed(state)] == [
        "dead",
        "parked",
        "pending",
    ]
    (parked,) = admin.listed(state, record_state="parked")
    assert (parked["reason"], parked["attempts"]) == ("HTTP 402", 1)
    assert parked["last_error"] == "StatusError: pay first"
    assert admin.listed(state, endpoint="http://elsewhere") == []
    shown = admin.shown(state, parked["id"])
    assert shown["body"]["inference_results"][0]["class_name"] == "a"
    lines = [json.loads(line) for line in admin.exported(state)]
    assert [line["id"] for line in lines] == [row["id"] for row in admin.listed(state)]
    assert api_key not in json.dumps(lines)
    assert admin.destinations(state)[0]["parked"] == 1
    assert admin.problems(state) == []


def test_what_is_retried_by_hand_goes_out_within_15_seconds(
    troubled, state, sender, client, clock
):
    assert sent(client) == 2
    clock.now += UPKEEP
    troubled.step()
    assert sent(client) == 2  # the control: parked for 15 minutes
    assert admin.retry(state)[0] == 2
    clock.now += UPKEEP
    while troubled.counts().pending:
        clock.now += troubled.step()
    assert sent(client) == 4
    counts = troubled.counts()
    assert (counts.delivered, counts.parked, counts.dead) == (3, 0, 0)


def test_a_failure_that_may_pass_is_not_taken_for_a_retry_by_hand(
    durable, sender, client, clock
):
    client.failures = [ConnectionError("refused")] * 5
    durable.deliver(report(sender), sender)
    durable.step()
    while sent(client) < 4:
        clock.now += durable.step()
    (destination,) = durable.destinations()
    assert destination["next_attempt_in"] > 2 * UPKEEP
    for _ in range(2):
        clock.now += UPKEEP
        durable.step()
    assert sent(client) == 4


def test_what_is_dropped_by_hand_is_counted(troubled, state):
    (dead,) = admin.listed(state, record_state="dead")
    assert admin.drop(state, [dead["id"]]) == 1
    assert admin.drop(state, [dead["id"]]) == 0
    assert admin.drop(state, record_state="parked") == 1
    counts = troubled.counts()
    assert (counts.pending, counts.dropped) == (1, {"by hand": 2})
    assert conserved(counts)


def test_a_record_that_is_dropped_by_hand_while_it_is_sent_does_no_harm(
    durable, state, sender, client
):
    durable.deliver(report(sender), sender)
    original = sender.send

    def send(record, workspace):
        admin.drop(state)
        original(record, workspace)

    sender.send = send
    durable.step()
    counts = durable.counts()
    assert (counts.delivered, counts.dropped) == (0, {"by hand": 1})
    assert conserved(counts)


@pytest.fixture
def long(durable, sender):
    """An outbox of more records than are read at once."""
    for index in range(admin._PAGE + 50):
        durable.deliver(report(sender, f"w{index}"), sender)
    durable.committer.commit()
    return durable


def test_who_reads_an_export_slowly_keeps_nobody_from_committing(long, state, sender):
    lines = admin.exported(state)
    next(lines)
    long.deliver(report(sender, "late"), sender)
    long.committer.commit()
    assert long.durability == "process"
    assert len(list(lines)) == admin._PAGE + 50


def test_who_reads_all_at_once_would(long, state, sender):
    with closing(sqlite3.connect(state.outbox)) as database:
        rows = database.execute("SELECT packed FROM contents")
        next(rows)
        long.deliver(report(sender, "late"), sender)
        long.committer.commit()
        rows.close()
    assert long.durability == "memory"


def test_many_records_are_dropped_in_steps_that_others_can_wait_for(state, sender):
    dispatcher = Dispatcher(state, worker=False)
    count = 2 * admin._AT_ONCE + 100
    records = [report(sender, f"w{number}") for number in range(count)]
    dispatcher.outbox.add(records)
    (first, *_) = admin.listed(state)
    told = []

    def progress(*steps):
        told.append(steps)
        dispatcher.outbox.add([report(sender, f"late {len(told)}")])
        assert dispatcher.outbox.disk_error is None

    assert admin.missing(state, [first["id"], "nobody"]) == ["nobody"]
    assert admin.drop(state, [first["id"]]) == 1
    assert admin.drop(state, progress=progress) == count - 1
    assert [done for done, _ in told] == [900, 1_800, count - 1]
    counts = admin.status(state)["counts"]
    assert (counts["pending"], counts["dropped"]) == (3, {"by hand": count})
    assert admin.status(state)["unaccounted"] == 0


def test_what_took_the_number_of_a_chosen_record_is_not_dropped(state, sender):
    """The newest is delivered meanwhile, and the next one gets its number."""
    dispatcher = Dispatcher(state, worker=False)
    records = [report(sender, f"w{number}") for number in range(admin._AT_ONCE + 2)]
    dispatcher.outbox.add(records, leased=[records[-1].id])
    late = report(sender, "late")

    def progress(done, total):
        if done < total:
            dispatcher.outbox.acknowledge(records[-1])
            dispatcher.outbox.add([late])

    assert admin.drop(state, progress=progress) == admin._AT_ONCE + 1
    assert [each["id"] for each in admin.listed(state)] == [late.id]


def test_figures_that_do_not_add_up_are_found(troubled, state):
    troubled.outbox._disk.transaction(
        lambda database: database.execute(
            "UPDATE totals SET value = 5 WHERE name = 'sealed'"
        )
    )
    assert admin.problems(state) == ["the figures do not add up: +2 seals"]
    assert admin.status(state)["unaccounted"] == 2


def test_a_damaged_body_is_found(troubled, state):
    troubled.outbox._disk.transaction(
        lambda database: database.execute(
            "UPDATE contents SET packed = x'00' WHERE number ="
            " (SELECT content FROM records WHERE state = 'dead')"
        )
    )
    (problem,) = admin.problems(state)
    assert "is damaged" in problem


def test_where_there_is_no_outbox_the_error_says_so(state):
    with pytest.raises(admin.OutboxError, match="there is no outbox in"):
        admin.listed(state)
    with pytest.raises(admin.OutboxError, match="there is no outbox in"):
        admin.retry(state)
