"""Who shares over Redis, and ends: what a flush leaves, and what it reports at once."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack

import pytest
from redis_hosts import part
from redis_server import PROGRAM, WITHOUT, Line, RedisServer
from stand_ins import eventually

from peakhold.delivery import Dispatcher
from peakhold.delivery.redis_url import RedisUrl
from peakhold.delivery.settings import DeliverySettings
from peakhold.outbox import StateDirectory

pytestmark = pytest.mark.skipif(PROGRAM is None, reason=WITHOUT)
LONG = 3600
"""Seconds of a window that does not end during a test."""


@pytest.fixture
def line():
    """Leads to a server, until it is cut."""
    with RedisServer() as server, Line(server.port) as line:
        yield line


@pytest.fixture
def host(line, tmp_path):
    """Makes dispatchers, each on a host of its own."""
    with ExitStack() as stack:

        def make(name):
            state = StateDirectory(tmp_path / name)
            stack.callback(state.release)
            settings = DeliverySettings(share="redis", redis=RedisUrl(line.url))
            dispatcher = Dispatcher(state, settings)
            stack.callback(dispatcher.close, 0)
            return dispatcher

        yield make


@pytest.fixture
def seal(sender):
    """Hands a part of the window to a dispatcher."""

    def seal(dispatcher, *names, frequency=LONG):
        record = part(
            *names,
            frequency=frequency,
            wall=time.time(),
            destination=sender.destination,
        )
        dispatcher.deliver(record, sender)

    return seal


def reports_of(client):
    return [
        {each["class_name"] for each in body["inference_results"]}
        for body in client.reports()
    ]


def test_the_only_one_reports_at_once(host, seal, client):
    one = host("one")
    seal(one, "a")
    assert one.flush(5)
    assert reports_of(client) == [{"a"}]
    assert one.counts().pending == 0


def test_a_part_is_left_to_a_host_that_shares(host, seal, client):
    one, other = host("one"), host("other")
    seal(other, "b")
    assert eventually(lambda: other.outbox.has_parts() and there(other))
    seal(one, "a")
    assert one.flush(5)
    assert reports_of(client) == []
    assert other.flush(5)
    assert reports_of(client) == [{"a", "b"}]


def there(dispatcher):
    """Whether the server has every part of a dispatcher."""
    with dispatcher.outbox._disk._database._lock:
        database = dispatcher.outbox._disk._database._opened
        (left,) = database.execute(
            "SELECT count(*) FROM parts WHERE fate != 'there'"
        ).fetchone()
    return left == 0


def test_an_epoch_that_ends_is_one_report_of_both(host, seal, client):
    one, other = host("one"), host("other")
    if time.time() % 1 > 0.7:  # else they may be of two epochs
        time.sleep(0.4)
    seal(one, "a", frequency=1)
    seal(other, "b", frequency=1)
    assert eventually(lambda: reports_of(client) == [{"a", "b"}])
    assert one.flush(5)
    assert other.flush(5)
    assert reports_of(client) == [{"a", "b"}]
    assert one.counts().pending == other.counts().pending == 0


@pytest.mark.parametrize("had_it", [False, True])
def test_a_flush_waits_for_a_server_and_then_reports_at_once(
    had_it, host, line, seal, client
):
    one = host("one")
    if had_it:
        seal(one, "a")
        assert eventually(lambda: one.outbox.has_parts() and there(one))
    line.refuse()
    if not had_it:
        seal(one, "a")
    heals = threading.Timer(0.5, line.heal)
    heals.start()
    assert one.flush(10)
    heals.join()
    assert reports_of(client) == [{"a"}]


def test_a_flush_without_a_server_says_that_something_is_left(host, line, seal, client):
    one = host("one")
    line.refuse()
    seal(one, "a")
    assert not one.flush(0.5)
    assert reports_of(client) == []
    assert one.counts().pending == 1
