"""Windows: shared by blocks, closed by the clock, released when idle."""

from __future__ import annotations

import copy
import pickle
import threading
import time
import uuid
from datetime import datetime, timedelta
from enum import Enum

import pytest
from stand_ins import DictCache, StatusError, eventually

from peakhold.blocks import ModelMonitoringInferenceAggregatorBlockV1, windows
from peakhold.blocks.windows import REGISTRY, WindowKey
from peakhold.outbox import Limits
from peakhold.testing import RecordingClient

CACHE_KEY = (
    "workflows:steps_cache:"
    "roboflow_core/model_monitoring_inference_aggregator@v1:{}:last_report_time"
)
SENT = "Data sent successfully"
NOT_IN_RANGE = "Not in reporting range, skipping report. (Ok)"


def ago(**delta):
    return (datetime.now() - timedelta(**delta)).isoformat()  # noqa: DTZ005


def only_window(block):
    (window,) = block._windows.values()
    return window


def classes(client):
    return [[x["class_name"] for x in r["inference_results"]] for r in client.reports()]


def test_blocks_built_per_request_share_one_window(
    aggregator, run, cache, cache_key, client, frame
):
    cache.values[cache_key] = ago(seconds=0)
    for index in range(5):
        block = aggregator(platform_client=client)
        run(block, frame(f"c{index}"))
    only_window(block).interval.last_report = float("-inf")
    cache.values[cache_key] = ago(hours=1)
    assert run(aggregator(platform_client=client), frame("last"))["message"] == SENT
    assert classes(client) == [["c0", "c1", "c2", "c3", "c4", "last"]]


def test_keys_endpoints_and_api_keys_have_windows_of_their_own(aggregator, run, client):
    other = RecordingClient()
    other.endpoint = "http://elsewhere.invalid"
    block = aggregator(platform_client=client)
    run(block)
    run(block, unique_aggregator_key="another")
    found = {
        *block._windows.values(),
        *_windows_of(aggregator(platform_client=client, api_key="other"), run),
        *_windows_of(aggregator(platform_client=other), run),
        *_windows_of(aggregator(platform_client=client), run),
    }
    assert len(found) == 4
    key = only_window(aggregator_of(aggregator, client, run)).key
    assert key.partition is None
    assert isinstance(hash(key), int)


class Feed(str, Enum):
    """Its members are texts, and neither equal in hash nor in ``str`` to them."""

    GATE = "gate-3"


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (5, "5"),
        (5.0, "5.0"),
        (None, "None"),
        (["gate", 3], "['gate', 3]"),
        (Feed.GATE, "gate-3"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_key_counts_as_its_text(aggregator, run, cache, client, key, text):
    block = aggregator(platform_client=client)
    for given in (key, text, key):
        assert run(block, unique_aggregator_key=given)["message"] == NOT_IN_RANGE
    assert only_window(block).key.unique_aggregator_key == text
    assert eventually(lambda: list(cache.values) == [CACHE_KEY.format(text)])
    # The control: a key of another text has a window of its own, equal or not.
    run(block, unique_aggregator_key=f"{text}.0")
    assert len(block._windows) == 2


def test_keys_that_are_equal_but_read_differently_have_windows_of_their_own(
    aggregator, run, client
):
    block = aggregator(platform_client=client)
    for key in (1, 1.0, True):
        run(block, unique_aggregator_key=key)
    assert list(block._windows) == ["1", "1.0", "True"]


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_of_a_block_shares_its_window_and_its_sender(
    aggregator, run, cache, cache_key, client, frame, copied
):
    class Named(ModelMonitoringInferenceAggregatorBlockV1):
        __slots__ = ("__private", "unset")
        name = "step"

        def mark(self):
            self.__private = "slotted"
            return self

        def marked(self):
            return self.__private

    block = Named(api_key="k", platform_client=client, cache=cache).mark()
    run(block, frame("before"))
    other = (
        copied({"step": block})["step"] if copied is copy.deepcopy else copied(block)
    )
    assert (type(other), other.name, other.marked()) == (Named, "step", "slotted")
    assert not hasattr(other, "unset")
    assert other is not block
    run(other, frame("after"))
    cache.values[cache_key] = ago(hours=1)
    only_window(block).interval.last_report = float("-inf")
    assert run(other)["message"] == SENT
    assert classes(client) == [["before", "after", "dog"]]
    assert run(block)["message"] == NOT_IN_RANGE


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_block_cannot_be_pickled_and_the_error_says_what_to_do(
    aggregator, metadata_block, protocol
):
    for block in (aggregator(), metadata_block()):
        with pytest.raises(TypeError, match="make the block in the process that uses"):
            pickle.dumps(block, protocol)


def _windows_of(block, run):
    run(block)
    return block._windows.values()


def aggregator_of(aggregator, client, run):
    block = aggregator(platform_client=client)
    run(block)
    return block


def test_the_caller_that_closes_a_window_lends_its_client_and_cache(
    aggregator, run, cache, cache_key, client, frame
):
    cache.values[cache_key] = ago(seconds=0)
    run(aggregator(platform_client=client), frame("early"))
    closer, its_cache = RecordingClient(), DictCache()
    its_cache.values[cache_key] = ago(hours=1)
    block = aggregator(platform_client=closer, cache=its_cache)
    window = REGISTRY.acquire(
        only_window(aggregator_of(aggregator, client, run)).key, block._sender, 5
    )
    window.interval.last_report = float("-inf")
    assert run(block, None)["message"] == SENT
    assert client.reports() == []
    assert classes(closer) == [["early", "dog"]]
    assert its_cache.values[cache_key] > ago(seconds=60)


def test_windows_of_two_keys_with_one_name_are_both_reported(aggregator, run, client):
    blocks = [aggregator(platform_client=client, api_key=key) for key in ("a", "b")]
    for block in blocks:
        run(block)
    for _ in range(3):
        for block in blocks:
            only_window(block).interval.last_report = time.monotonic() - 60
            assert run(block)["message"] == SENT
    assert len(client.reports()) == 6


def test_the_clock_goes_by_the_frequency_that_is_in_use(aggregator, run, client):
    run(aggregator(platform_client=client), frequency=1)
    block = aggregator(platform_client=client)
    run(block, frequency=60)
    window = only_window(block)
    now = window.interval.last_report + 3
    window.check(now)
    assert window.aggregator.peaks == 1
    run(block, frequency=1)  # control
    window.check(now)
    assert window.aggregator.peaks == 0


def test_a_window_whose_stream_stopped_is_closed_a_second_after_its_deadline(
    aggregator, run, client, cache, cache_key, dispatcher
):
    block = aggregator(platform_client=client)
    started = time.monotonic()
    assert run(block, frequency=1)["message"] == NOT_IN_RANGE
    assert eventually(client.reports, 10)
    assert time.monotonic() - started > 1.9  # frequency and one second
    assert classes(client) == [["dog"]]
    assert client.threads[-1].name == "peakhold"
    assert eventually(lambda: cache.values[cache_key] > ago(seconds=2))
    # Only run reports an empty window.
    sealed = dispatcher.counts().sealed
    only_window(block).interval.last_report = time.monotonic() - 60
    cache.values[cache_key] = ago(seconds=60)
    only_window(block).check(time.monotonic())
    assert dispatcher.counts().sealed == sealed == 1


def test_the_clock_honours_another_process_s_report(
    aggregator, run, client, cache, cache_key
):
    block = aggregator(platform_client=client)
    run(block)
    window = only_window(block)
    now = time.monotonic()
    window.interval.last_report = now - 7
    cache.values[cache_key] = ago(seconds=3)
    again = window.check(now)
    assert again == pytest.approx(now + 3, abs=0.2)
    assert window.aggregator.peaks == 1
    cache.values[cache_key] = ago(seconds=30)
    window.interval.last_report = now - 30
    window.check(now)
    assert window.aggregator.peaks == 0


def idle(window, seconds):
    window.last_used = time.monotonic() - seconds


def test_an_idle_window_is_flushed_then_released(
    aggregator, run, client, cache, cache_key, dispatcher
):
    block = aggregator(platform_client=client)
    run(block)
    window = only_window(block)
    # Others report all the time, so the interval alone would never close it.
    cache.values[cache_key] = ago(seconds=0)
    idle(window, 599)
    assert window.check(time.monotonic()) is not None
    assert not window.released
    idle(window, 601)
    assert window.check(time.monotonic()) is None
    assert window.released
    assert dispatcher.flush(5)
    assert classes(client) == [["dog"]]
    run(block)  # finds the mark,
    run(block)  # and this one gets a new window
    assert only_window(block) is not window


def test_a_long_frequency_keeps_a_window_for_three_times_as_long(aggregator, run):
    block = aggregator()
    run(block, frequency=1_000)
    window = only_window(block)
    idle(window, 2_999)
    assert window.check(time.monotonic()) is not None
    idle(window, 3_001)
    assert window.check(time.monotonic()) is None


def test_a_frame_that_meets_the_release_is_not_lost(
    aggregator, run, client, frame, dispatcher
):
    block = aggregator(platform_client=client)
    run(block, frame("before"))
    window = only_window(block)

    class Racing:
        """Has the window released between the observation's start and its end."""

        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def observe(self, *args):
            idle(window, 10_000)
            assert window.check(time.monotonic()) is None
            return self.inner.observe(*args)

    window.aggregator = Racing(window.aggregator)
    run(block, frame("racing"))
    run(block, frame("after"))
    assert window.released
    assert only_window(block) is not window
    assert dispatcher.flush(5)
    assert classes(client) == [["before"], ["racing"]]
    assert only_window(block).aggregator.peaks == 1


class Meeting:
    """An aggregator that a frame comes to with each look at it."""

    def __init__(self, aggregator, frame):
        self._aggregator = aggregator
        self._frame = frame
        self.came = []

    def __getattr__(self, name):
        found = getattr(self._aggregator, name)
        self.came.append(f"late {len(self.came)}")
        self._aggregator.observe(self._frame(self.came[-1]), "m/1")
        return found


def test_frames_that_meet_the_last_flush_are_not_lost(
    aggregator, run, client, frame, dispatcher
):
    block = aggregator(platform_client=client)
    run(block)
    window = only_window(block)
    window.flush()
    real = window.aggregator
    assert real.peaks == 0  # the control: a look decides that there is nothing
    window.aggregator = Meeting(real, frame)
    window.flush()
    came, window.aggregator = window.aggregator.came, real
    window.flush()
    assert dispatcher.flush(5)
    assert came
    found = [name for names in classes(client) for name in names]
    assert sorted(found) == sorted(["dog", *came])


def test_released_windows_are_not_kept_by_blocks(aggregator, run):
    block = aggregator()
    for index in range(200):
        run(block, unique_aggregator_key=f"stream {index}")
        if index < 199:
            window = block._windows[f"stream {index}"]
            idle(window, 601)
            window.check(time.monotonic())
    assert len(block._windows) <= 16
    assert not block._windows["stream 199"].released  # the control


def test_beyond_a_number_of_windows_those_unused_for_longest_are_closed_early(
    aggregator, run, client, frame, dispatcher, monkeypatch
):
    monkeypatch.setattr(REGISTRY, "_windows", {})
    monkeypatch.setattr(windows, "MOST", 30)
    monkeypatch.setattr(windows, "_RELEASED", 10)
    block = aggregator(platform_client=client)
    names = [f"c{index}" for index in range(100)]
    for name in names:
        run(block, frame(name), unique_aggregator_key=name, fire_and_forget=True)
        run(block, frame("used"), unique_aggregator_key="used", fire_and_forget=True)
    assert len(REGISTRY._windows) <= windows.MOST
    assert not block._windows["used"].released  # the control: it is used all the time
    for destination in dispatcher._destinations.values():
        destination.pace._seconds = 0.0
    assert dispatcher.flush(10)
    early = sorted(name for report in classes(client) for name in report)
    assert early == sorted(names[: len(early)])
    assert 70 <= len(early) <= 90
    assert dispatcher.notices.counts["windows"] >= len(early) / 10


def test_a_window_of_a_very_long_interval_is_not_kept_for_ever():
    assert windows.time_kept(5) == 600
    assert windows.time_kept(10**9) == 24 * 3600


def test_a_new_key_costs_little_however_many_there_are(aggregator, run, client):
    block = aggregator(platform_client=client)

    def cost(first, count):
        started = time.perf_counter()
        for index in range(first, first + count):
            run(block, unique_aggregator_key=f"many {index}", fire_and_forget=True)
        return (time.perf_counter() - started) / count

    few = min(cost(index * 100, 100) for index in range(3))
    cost(1_000, 4_000)
    many = min(cost(10_000 + index * 100, 100) for index in range(3))
    for window in block._windows.values():
        REGISTRY.forget(window)
    assert many < max(5 * few, 1e-3)


def test_an_overflowing_outbox_merges_windows_and_loses_no_class(
    aggregator, run, client, frame, overdue, dispatcher
):
    memory = dispatcher.outbox._memory
    memory._room.limits = Limits(max_bytes=320 * 1024)
    dispatcher.jitter = lambda low, high: 60.0
    client.lookup_failures = [StatusError(503)] * 100
    block = aggregator(platform_client=client)
    for index in range(300):
        run(block, frame(f"c{index:03d}"), fire_and_forget=True)
        assert eventually(lambda: not dispatcher.committer.counts().pending)
        only_window(block).interval.last_report = float("-inf")
        overdue.values.update(dict.fromkeys(overdue.values, ago(hours=1)))
    assert eventually(lambda: dispatcher.committer.counts().pending == 0)
    counts = dispatcher.counts()
    assert counts.sealed == counts.pending == 300
    assert counts.dropped == {}
    client.lookup_failures.clear()
    for destination in dispatcher._destinations.values():
        destination.backoff.not_before = 0.0
        destination.pace._seconds = 0.0
        destination.arrange()
    assert dispatcher.flush(30)
    assert len(client.reports()) < 250
    found = sorted(name for report in classes(client) for name in report)
    assert found == [f"c{index:03d}" for index in range(300)]


def release_until(stop):
    while not stop.is_set():
        for window in list(REGISTRY._windows.values()):
            window.check(time.monotonic())


def test_eight_threads_and_a_fast_clock_lose_no_class(
    aggregator, run, client, frame, monkeypatch, dispatcher
):
    """Every frame has a class of its own; all of them must be reported once."""
    monkeypatch.setattr(windows, "time_kept", lambda period: -1.0)
    stop = threading.Event()
    releaser = threading.Thread(target=release_until, args=(stop,))
    block = aggregator(platform_client=client)
    run(block, frame("warm-up"))

    def stream(number):
        own = block if number % 2 else aggregator(platform_client=client)
        for index in range(50):
            run(own, frame(f"{number}-{index}"), fire_and_forget=True)
            if index % 10 == 0:
                time.sleep(0.001)  # the releaser has its turn on a busy machine, too

    threads = [threading.Thread(target=stream, args=(n,)) for n in range(8)]
    releaser.start()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stop.set()
    releaser.join()
    for window in list(REGISTRY._windows.values()):
        window.flush()
    for destination in dispatcher._destinations.values():
        destination.pace._seconds = 0.0
        destination.arrange()
    assert dispatcher.flush(20)
    found = sorted(name for report in classes(client) for name in report)
    expected = sorted(["warm-up", *(f"{n}-{i}" for n in range(8) for i in range(50))])
    assert found == expected
    assert len(client.reports()) >= 3  # the control: windows were released meanwhile


def test_a_window_key_is_frozen():
    key = WindowKey("http://a", "f", "k")
    assert key == WindowKey("http://a", "f", "k", None)
    with pytest.raises(AttributeError):
        key.partition = "feed"


def test_a_forked_child_s_window_starts_empty(aggregator, run, client, frame):
    block = aggregator(platform_client=client)
    run(block, frame("the parent's"))
    window = only_window(block)
    window.lock.acquire()  # as another thread of the parent may hold it
    REGISTRY.start_anew()
    assert window.aggregator.peaks == 0
    run(block, frame("the child's"))
    window.flush(0.1)
    assert eventually(lambda: classes(client) == [["the child's"]])
