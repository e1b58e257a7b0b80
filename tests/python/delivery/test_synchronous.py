"""Records that are delivered on the caller's thread, at once."""

from __future__ import annotations

import pytest
from stand_ins import StatusError, conserved, report, sent


def test_a_synchronous_failure_is_returned_and_stays_pending(
    stepped, sender, client, clock
):
    client.failures = [StatusError(503)]
    error = stepped.deliver_now(report(sender), sender)
    assert isinstance(error, StatusError)
    assert stepped.counts().pending == 1
    clock.now += stepped.step()
    stepped.step()
    assert stepped.counts().delivered == 1


def test_a_failing_workspace_lookup_is_returned_and_stays_pending(
    stepped, sender, client
):
    client.lookup_failures = [StatusError(401)]
    assert isinstance(stepped.deliver_now(report(sender), sender), StatusError)
    assert stepped.counts().parked == 1
    assert sent(client) == 0


def test_a_synchronous_caller_is_not_held_up_by_backoff_or_pace(
    stepped, sender, client
):
    client.failures = [StatusError(503)]
    stepped.deliver(report(sender), sender)
    stepped.step()
    for _ in range(12):
        assert stepped.deliver_now(report(sender), sender) is None
    assert stepped.counts().delivered == 12
    stepped.step()  # a success ends the backoff: the first one is sent as well
    assert stepped.counts().delivered == 13


def test_a_synchronous_report_over_512_kb_goes_out_whole(stepped, sender, client):
    best = {f"class {index:06d}": 0.5 for index in range(9_000)}
    assert stepped.deliver_now(report(sender, **best), sender) is None
    names = [x["class_name"] for r in client.reports() for x in r["inference_results"]]
    assert names == list(best)
    assert sent(client) > 1


def test_the_rest_of_a_large_report_stays_pending_when_a_part_fails(
    stepped, sender, client, clock
):
    best = {f"class {index:06d}": 0.5 for index in range(12_000)}
    client.failures = [None, StatusError(503)]
    assert stepped.deliver_now(report(sender, **best), sender) is not None
    assert stepped.counts().delivered == 1
    clock.now += stepped.step()
    for _ in range(5):
        stepped.step()
    names = [x["class_name"] for r in client.reports() for x in r["inference_results"]]
    assert sorted(set(names)) == list(best)
    assert stepped.counts().pending == 0
    assert conserved(stepped.counts())


@pytest.mark.parametrize("status", [400, 405, 413])
def test_a_refused_lookup_is_returned_and_stays_pending(
    stepped, sender, client, clock, status
):
    client.lookup_failures = [StatusError(status)]
    error = stepped.deliver_now(report(sender), sender)
    assert error.status == status
    counts = stepped.counts()
    assert (counts.parked, counts.dead, counts.dropped) == (1, 0, {})
    clock.now += stepped.step()
    stepped.step()
    assert stepped.counts().delivered == 1
