"""The reporting interval: own time, other processes, and caches that lie."""

from __future__ import annotations

import threading
import time
from datetime import datetime, timedelta, timezone

import pytest
from stand_ins import RaisingCache, eventually

from peakhold.blocks import interval, windows
from peakhold.blocks.cache import MemoryCache
from peakhold.blocks.interval import Due, ReportInterval, time_kept
from peakhold.delivery import cache as hosts_cache
from peakhold.delivery.cache import AVOIDED

SENT = "Data sent successfully"
NOT_IN_RANGE = "Not in reporting range, skipping report. (Ok)"


def ago(**delta):
    return (datetime.now() - timedelta(**delta)).isoformat()  # noqa: DTZ005


def only_window(block):
    (window,) = block._windows.values()
    return window


def make_due(block, seconds=3600.0):
    """As if the last report that this process knows of was so long ago."""
    only_window(block).interval.last_report = time.monotonic() - seconds


def test_between_reports_the_cache_is_not_read(aggregator, run, cache):
    block = aggregator()
    run(block)
    reads = len(cache.reads)
    for _ in range(200):
        assert run(block)["message"] == NOT_IN_RANGE
    assert len(cache.reads) == reads == 1


def test_two_threads_send_one_report(aggregator, run, cache, cache_key, client):
    cache.values[cache_key] = ago(seconds=0)
    block = aggregator(platform_client=client)
    run(block)
    messages = []
    for _ in range(20):
        make_due(block)
        cache.values[cache_key] = ago(hours=1)
        together = threading.Barrier(8)

        def report(together=together):
            together.wait()
            messages.append(run(block)["message"])

        threads = [threading.Thread(target=report) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert messages.count(SENT) == len(client.reports()) == 20
    assert messages.count(NOT_IN_RANGE) == 140


def test_a_report_of_another_process_is_honoured(
    aggregator, run, cache, cache_key, client
):
    block = aggregator(platform_client=client)
    run(block, frequency=5)
    make_due(block, 6)
    cache.values[cache_key] = ago(seconds=2)
    assert run(block, frequency=5)["message"] == NOT_IN_RANGE
    since = time.monotonic() - only_window(block).interval.last_report
    assert 1.9 < since < 2.5
    assert client.reports() == []
    # The control: without the other's report this one would have been sent.
    make_due(block, 6)
    cache.values[cache_key] = ago(seconds=6)
    assert run(block, frequency=5)["message"] == SENT


def test_a_report_of_another_process_in_another_time_zone_is_honoured(
    aggregator, run, cache, cache_key
):
    block = aggregator()
    run(block)
    make_due(block)
    zone = timezone(timedelta(hours=-9))
    cache.values[cache_key] = datetime.now(zone).isoformat()
    assert run(block)["message"] == NOT_IN_RANGE


def test_a_time_in_bytes_is_read(aggregator, run, cache, cache_key, client):
    cache.values[cache_key] = ago(hours=1).encode()
    assert run(aggregator(platform_client=client))["message"] == SENT


def test_a_time_in_the_future_counts_as_now(aggregator, run, cache, cache_key, client):
    block = aggregator(platform_client=client)
    cache.values[cache_key] = ago(days=-3650)
    assert run(block)["message"] == NOT_IN_RANGE
    assert eventually(
        lambda: datetime.fromisoformat(cache.values[cache_key]) <= datetime.now()  # noqa: DTZ005
    )
    # The control: one interval later the report goes out, not ten years later.
    make_due(block, 6)
    assert run(block)["message"] == SENT


@pytest.mark.parametrize("jump", [{"days": 3650}, {"hours": -1}, {"days": -3650}])
def test_own_reports_go_out_in_time_when_the_wall_clock_jumps(
    aggregator, run, cache, cache_key, client, monkeypatch, jump
):
    block = aggregator(platform_client=client)
    run(block)

    class Jumped(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(**jump)

    monkeypatch.setattr(interval, "datetime", Jumped)
    assert run(block)["message"] == NOT_IN_RANGE
    make_due(block, 6)
    assert run(block)["message"] == SENT


@pytest.mark.parametrize("poison", ["", "yesterday", b"\xff", 7, {"a": 1}, "9" * 4_000])
def test_poison_in_the_cache_is_counted_and_own_time_decides(
    aggregator, run, cache, cache_key, client, dispatcher, poison
):
    block = aggregator(platform_client=client)
    cache.values[cache_key] = poison
    assert run(block)["message"] == NOT_IN_RANGE  # own time unknown: counts as now
    assert dispatcher.notices.counts["cache"] == 1
    make_due(block)
    cache.values[cache_key] = poison
    assert run(block)["message"] == SENT
    assert dispatcher.notices.counts["cache"] == 2
    datetime.fromisoformat(cache.values[cache_key])  # repaired


def test_a_cache_that_raises_is_counted_and_own_time_decides(
    aggregator, run, client, dispatcher
):
    block = aggregator(platform_client=client, cache=RaisingCache())
    assert run(block)["message"] == NOT_IN_RANGE
    make_due(block)
    assert run(block)["message"] == SENT
    assert dispatcher.notices.counts["cache"] >= 2


def test_two_threads_send_one_report_where_the_cache_cannot_decide(
    aggregator, run, client
):
    block = aggregator(platform_client=client, cache=RaisingCache())
    run(block)
    for _ in range(20):
        make_due(block)
        together = threading.Barrier(8)

        def report(together=together):
            together.wait()
            run(block)

        threads = [threading.Thread(target=report) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(client.reports()) == 20


@pytest.mark.parametrize(("frequency", "expire"), [(5, 600), (1000, 3000)])
def test_the_cache_key_gets_an_expiry(
    aggregator, run, cache, cache_key, frequency, expire
):
    run(aggregator(), frequency=frequency)
    assert eventually(lambda: cache.expiries == {cache_key: expire})
    assert type(cache.expiries[cache_key]) is int  # Redis takes no float
    assert time_kept(frequency) == expire  # unless it is more than a day


def test_a_cache_that_takes_no_expiry_is_used_without(aggregator, run, client):
    class Plain(dict):
        def set(self, key, value):
            self[key] = value

    cache = Plain()
    block = aggregator(platform_client=client, cache=cache)
    run(block)
    make_due(block)
    assert run(block)["message"] == SENT
    assert len(cache) == 2


def test_a_newer_close_is_not_undone_by_a_late_success(aggregator, run, overdue):
    block = aggregator()
    run(block, fire_and_forget=True)
    window = only_window(block)
    older, newer = [], []
    for closed in (older, newer):
        window._close(closed)
    before = window.interval.last_report
    older[0].reported()
    assert window.interval.last_report == before
    newer[0].reported()
    assert window.interval.last_report > before


def test_a_slow_cache_holds_up_one_thread_only(aggregator, run, client, cache_key):
    class Slow(MemoryCache):
        def get(self, key):
            if key == cache_key and slow.is_set():
                held.set()
                let_go.wait(5)
            return super().get(key)

    slow, held, let_go = threading.Event(), threading.Event(), threading.Event()
    block = aggregator(platform_client=client, cache=Slow())
    run(block)
    make_due(block)
    slow.set()
    stuck = threading.Thread(target=run, args=(block,))
    stuck.start()
    assert held.wait(5)
    started = time.monotonic()
    for _ in range(50):
        assert run(block)["message"] == NOT_IN_RANGE
    assert time.monotonic() - started < 1
    let_go.set()
    stuck.join()
    assert len(client.reports()) == 1


class Hanging:
    """A cache that hangs in a call for a report's time until the test lets it go.

    The workspace is a matter of its destination, which a cache may hold up.
    """

    def __init__(self, call):
        self.call = call
        self.hangs, self.let_go = threading.Event(), threading.Event()

    def get(self, key):
        if key.endswith("last_report_time"):
            self.enter("get")
            return ago(hours=1)
        return None

    def set(self, key, value, expire=None):
        if key.endswith("last_report_time"):
            self.enter("set")

    def enter(self, call):
        if call == self.call:
            self.hangs.set()
            assert self.let_go.wait(30)


def test_a_cache_that_hangs_holds_up_no_frame_and_no_report(
    aggregator, run, client, frame, dispatcher
):
    started, hanging = time.monotonic(), Hanging("set")
    hung = aggregator(platform_client=client, cache=hanging)
    run(hung, frame("hung"), fire_and_forget=True, unique_aggregator_key="hung")
    assert hanging.hangs.wait(5)
    block = aggregator(platform_client=client, cache=Hanging(None))
    for index in range(3):
        run(block, frame(f"c{index}"), fire_and_forget=True)
        assert eventually(lambda count=index + 2: len(client.reports()) == count)
        (destination,) = dispatcher._destinations.values()
        assert eventually(lambda: destination.is_idle)  # noqa: B023 - it is one
        make_due(block)
    assert time.monotonic() - started < 2.0
    assert not dispatcher.flush(0.1)  # the control: it does hang
    hanging.let_go.set()
    assert dispatcher.flush(5)


def test_a_cache_that_hangs_for_the_clock_holds_up_no_other_window(
    aggregator, run, client, frame, dispatcher, monkeypatch
):
    """Windows of one destination, whose streams have stopped."""
    monkeypatch.setattr(windows, "CLOCK_GRACE", 0.05)
    hanging = Hanging(None)
    hung = aggregator(platform_client=client, cache=hanging)
    run(hung, frame("hung"), fire_and_forget=True, unique_aggregator_key="hung")
    assert eventually(lambda: len(client.reports()) == 1)
    hanging.call = "get"
    block = aggregator(platform_client=client)
    for each, key in ((hung, "hung"), (block, "other")):
        run(each, frame(key), fire_and_forget=True, unique_aggregator_key=key)
        make_due(each)
        dispatcher.watch(only_window(each).check, time.monotonic())
        if each is hung:
            assert hanging.hangs.wait(5)
    assert eventually(lambda: len(client.reports()) == 2)
    assert not hanging.let_go.is_set()  # the control: the first one hangs still
    hanging.let_go.set()


@pytest.mark.parametrize("meets", [True, False])
def test_a_frame_that_meets_the_clock_closes_no_second_window(
    aggregator, run, client, frame, dispatcher, meets
):
    """The clock closes the window while a frame reads the cache."""

    class Meeting(Hanging):
        def enter(self, call):
            if call == self.call and meets:
                self.call = None
                time.sleep(0.06)  # so long that the clock does without the cache
                only_window(block).check(time.monotonic())

    cache = Meeting(None)
    block = aggregator(platform_client=client, cache=cache)
    run(block, frame("first"), fire_and_forget=True)
    assert dispatcher.flush(5)
    make_due(block)
    cache.call = "get"
    answer = run(block, frame("second"), fire_and_forget=True)
    # The control: without the clock the frame closes it.
    assert (answer["message"] == NOT_IN_RANGE) is meets
    assert dispatcher.flush(5)
    found = [len(each["inference_results"]) for each in client.reports()]
    assert found == [1, 1]


def test_a_cache_that_was_slow_is_not_read_by_frames_for_a_minute(
    aggregator, run, client, dispatcher, monkeypatch
):
    class Slow(MemoryCache):
        reads = 0

        def get(self, key):
            if key.endswith("last_report_time"):
                type(self).reads += 1
                time.sleep(0.06)
            return super().get(key)

    block = aggregator(platform_client=client, cache=Slow())
    run(block)
    assert Slow.reads == 1
    for reports in (1, 2):
        make_due(block)
        assert run(block)["message"] == SENT
        assert len(client.reports()) == reports
    assert Slow.reads == 1
    assert dispatcher.notices.counts["cache"] == 2
    # The control: after a minute it is asked again.
    late = time.monotonic() + AVOIDED
    monkeypatch.setattr(hosts_cache.time, "monotonic", lambda: late)
    assert not dispatcher.caches.avoids(block._sender.cache)


def test_the_memory_cache_expires_and_stays_small():
    now = [0.0]
    cache = MemoryCache(lambda: now[0])
    assert cache.get("a") is None
    cache.set("a", 1, expire=10)
    cache.set("b", 2)
    now[0] = 9.9
    assert (cache.get("a"), cache.get("b")) == (1, 2)
    now[0] = 10.0
    assert (cache.get("a"), cache.get("b")) == (None, 2)
    for index in range(5_000):
        now[0] += 1
        cache.set(f"k{index}", index, expire=10)
    assert len(cache._values) <= 1_001
    assert cache.get("b") == 2


def test_an_interval_without_a_report_is_not_over(dispatcher):
    fresh = ReportInterval("k")
    assert fresh.now(dispatcher.caches, None, 5) is Due.BEGINS
    assert fresh.last_report > float("-inf")


class Forgetful:
    """A cache that keeps nothing."""

    def get(self, key):
        return None

    def set(self, key, value, expire=None):
        pass


class Refusing(Forgetful):
    """A cache that nobody may write to."""

    def set(self, key, value, expire=None):
        raise PermissionError


@pytest.mark.parametrize("kind", [Forgetful, Refusing])
def test_a_cache_that_keeps_nothing_stops_no_report(aggregator, run, client, kind):
    block = aggregator(platform_client=client, cache=kind())
    assert run(block)["message"] == NOT_IN_RANGE  # the first one never reports
    for reports in (1, 2):
        make_due(block)
        assert run(block)["message"] == SENT
        assert len(client.reports()) == reports
        assert run(block)["message"] == NOT_IN_RANGE


def test_blocks_without_a_cache_share_the_last_report(aggregator, run, client):
    """A host that makes a block per request still gets its reports."""
    for _ in range(3):
        assert run(aggregator(platform_client=client, cache=None))["message"] == (
            NOT_IN_RANGE
        )
    block = aggregator(platform_client=client, cache=None)
    run(block)
    make_due(block)
    late = aggregator(platform_client=client, cache=None)
    assert run(late)["message"] == SENT
    assert eventually(lambda: len(client.reports()) == 1)
