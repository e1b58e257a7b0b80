"""Windows that processes share: when a process closes its part, and what `run` says."""

from __future__ import annotations

import json
import logging
import time
from datetime import datetime, timedelta

import pytest
from stand_ins import eventually, results_of

import peakhold
from peakhold.blocks import adoption, epochs
from peakhold.blocks.model_monitoring import IN_BACKGROUND, NOT_IN_RANGE
from peakhold.blocks.windows import REGISTRY, WindowKey
from peakhold.delivery import Dispatcher, process
from peakhold.delivery.health import health
from peakhold.delivery.settings import DeliverySettings
from peakhold.outbox import StateDirectory
from peakhold.records.share import epoch_at

SHARED = DeliverySettings(share="host")


@pytest.fixture
def start(state, monkeypatch):
    """Makes dispatchers of this process, which share windows."""
    started = []

    def make(settings=SHARED, directory=state):
        started.append(Dispatcher(directory, settings, jitter=lambda *_: 0.05))
        monkeypatch.setattr(process, "_current", started[-1])
        return started[-1]

    yield make
    for dispatcher in started:
        dispatcher.close(0)


@pytest.fixture
def sharing(start):
    return start()


@pytest.fixture
def other(state):
    """Another process that shares the state directory."""
    directory = StateDirectory(state.path)
    dispatcher = Dispatcher(directory, SHARED, jitter=lambda *_: 0.05, worker=False)
    yield dispatcher
    dispatcher.close(0)
    directory.release()


def wait_for_an_epoch(frequency=1):
    """Sleep until shortly after an epoch began; returns its number."""
    time.sleep(frequency - time.time() % frequency + 0.15)
    return epoch_at(time.time(), frequency)


def ends(frequency=1):
    """Sleep until shortly after the epoch has ended."""
    time.sleep(frequency - time.time() % frequency + 0.05)


def shared_reports(api):
    return [
        {each["class_name"] for each in results_of(request)}
        for request in api.accepted(kind="report")
    ]


def test_the_first_run_begins_an_epoch_and_the_next_after_its_end_closes_it(
    sharing, api, aggregator, run, overdue, frame
):
    block = aggregator()
    wait_for_an_epoch()
    assert run(block, frequency=1, fire_and_forget=True)["message"] == NOT_IN_RANGE
    ends()
    assert run(block, frequency=1, fire_and_forget=True)["message"] == IN_BACKGROUND
    assert run(block, frequency=1, fire_and_forget=True)["message"] == NOT_IN_RANGE
    assert overdue.reads == []  # the control, `overdue`, would be in range
    assert eventually(lambda: api.accepted(kind="report"))
    assert shared_reports(api)[0] == {"dog"}


def test_the_control_without_sharing_the_first_run_is_in_range(
    start, api, aggregator, run, overdue
):
    start(DeliverySettings())
    assert run(aggregator(), frequency=1)["message"] != NOT_IN_RANGE
    assert overdue.reads


def test_the_closer_has_the_host_s_cache_know_the_end_of_the_epoch(
    sharing, api, aggregator, run, cache, cache_key
):
    epoch = wait_for_an_epoch(1)
    block = aggregator()
    run(block, frequency=1)
    ends()
    run(block, frequency=1)
    assert eventually(lambda: cache_key in cache.values)
    assert cache.values[cache_key] == datetime.fromtimestamp(epoch).isoformat()  # noqa: DTZ006


def test_the_end_of_a_feed_s_epoch_is_kept_under_the_feed_s_own_key(
    sharing, api, aggregator, run, cache, cache_key
):
    """Else a window without a feed would take it for its own report."""
    wait_for_an_epoch(1)
    run(aggregator(), frequency=1, feed="camera 7")
    assert eventually(lambda: [key for key in cache.values if "camera 7" in key])
    assert cache_key not in cache.values


@pytest.mark.parametrize(("minutes", "stays"), [(-1, False), (0, True), (60, False)])
def test_a_later_time_in_the_cache_stays_unless_it_is_of_the_future(
    sharing, api, aggregator, run, cache, cache_key, minutes, stays
):
    wait_for_an_epoch(1)
    block = aggregator()
    run(block, frequency=1)
    ends()
    run(block, frequency=1)
    written = datetime.now() + timedelta(minutes=minutes)  # noqa: DTZ005
    cache.values[cache_key] = written.isoformat()
    assert eventually(lambda: api.accepted(kind="report"))
    sharing.flush(5)
    assert (cache.values[cache_key] == written.isoformat()) is stays


def test_a_synchronous_run_answers_when_its_part_is_durable(
    sharing, aggregator, run, other
):
    wait_for_an_epoch()
    block = aggregator()
    assert run(block, frequency=1)["message"] == NOT_IN_RANGE
    ends()
    answer = run(block, frequency=1)
    assert answer == {"error_status": False, "message": IN_BACKGROUND}
    assert other.counts().pending == 1  # as another process sees it


def test_frequencies_have_windows_of_their_own(sharing, aggregator, run, key):
    block = aggregator()
    for frequency in (1, 2, "2", 1):
        run(block, frequency=frequency)
    keys = [each for each in REGISTRY._windows if each.unique_aggregator_key == key]
    assert sorted(each.frequency for each in keys) == [1, 2]


def test_the_control_without_sharing_they_have_one(start, aggregator, run, key):
    start(DeliverySettings())
    block = aggregator()
    for frequency in (60, 120):
        run(block, frequency=frequency)
    keys = [each for each in REGISTRY._windows if each.unique_aggregator_key == key]
    assert [each.frequency for each in keys] == [None]


def test_a_stream_that_stopped_is_closed_in_its_own_epoch(
    sharing, api, aggregator, run, frame
):
    wait_for_an_epoch()
    run(aggregator(), frame("last"), frequency=1)
    assert eventually(lambda: shared_reports(api) == [{"last"}])
    assert sharing.sharing() == {
        "share": "host",
        "parts": 1,
        "late": 0,
        "alone": 0,
        "unsure": 0,
        "reports": 1,
    }


def test_a_frame_after_a_pause_is_not_late(sharing, api, aggregator, run, frame):
    block = aggregator()
    wait_for_an_epoch()
    run(block, frame("before"), frequency=1)
    assert eventually(lambda: shared_reports(api) == [{"before"}])
    time.sleep(1.5)
    assert run(block, frame("after"), frequency=1)["message"] == IN_BACKGROUND
    assert eventually(lambda: shared_reports(api) == [{"before"}, {"after"}])
    assert sharing.sharing()["late"] == 0


def test_a_flush_of_the_only_process_delivers_at_once(
    sharing, api, aggregator, run, frame
):
    run(aggregator(), frame("a"), frequency=3600)
    begin = time.monotonic()
    assert peakhold.flush(10)
    assert time.monotonic() - begin < 5
    assert shared_reports(api) == [{"a"}]


def test_a_flush_leaves_its_part_to_a_process_that_shares(
    sharing, api, aggregator, run, frame, other, sender, key
):
    block = aggregator()
    run(block, frame("a"), frequency=3600)
    (key,) = (each for each in REGISTRY._windows if each.unique_aggregator_key == key)
    window = epochs.SharedWindow(key, block._sender, 3600, other)
    window.aggregator.observe(frame("b"), "m/1")
    window._watcher = other
    window.flush()
    other.committer.commit()
    assert peakhold.flush(10)
    assert shared_reports(api) == []
    assert other.counts().pending == 2
    assert other.flush(10)  # and the last to leave delivers both
    assert shared_reports(api) == [{"a", "b"}]


def test_a_monitor_gets_one_window_with_the_statistics_of_each_part(
    sharing, api, aggregator, run, frame, other, key
):
    api.is_monitor = True
    block = aggregator()
    for _ in range(3):
        run(block, frame("a"), frequency=3600)
    (key,) = (each for each in REGISTRY._windows if each.unique_aggregator_key == key)
    window = epochs.SharedWindow(key, block._sender, 3600, other)
    window.aggregator.observe(frame("b"), "m/1")
    window._watcher = other
    window.flush()
    other.committer.commit()
    assert peakhold.flush(10)
    assert other.flush(10)
    (post,) = api.posts()
    assert post.path.endswith("/windows")
    (found,) = (each["window"] for each in post.json()["windows"])
    assert {peak["class_name"] for peak in found["peaks"]} == {"a", "b"}
    assert sorted(part["frames"] for part in found["parts"]) == [1, 3]
    assert len({part["id"] for part in found["parts"]}) == 2
    assert (found["frequency"], found["epoch"]) == (3600, epoch_at(time.time(), 3600))


def test_without_an_outbox_on_disk_windows_are_not_shared(
    environment, monkeypatch, api, aggregator, run, overdue, caplog
):
    environment.setenv("PEAKHOLD_SHARE", "host")
    environment.setenv("PEAKHOLD_DURABILITY", "memory")
    monkeypatch.setattr(process, "_current", None)
    assert run(aggregator(), frequency=1)["message"] != NOT_IN_RANGE
    assert "PEAKHOLD_SHARE needs the outbox on disk" in caplog.text
    assert health()["sharing"]["share"] == "off"
    process.current().close(0)


def test_while_the_disk_fails_parts_are_reported_alone(
    start, tmp_path, api, aggregator, run, frame, caplog
):
    (tmp_path / "file").touch()
    dispatcher = start(directory=StateDirectory(tmp_path / "file" / "state"))
    block = aggregator()
    wait_for_an_epoch()
    run(block, frame("a"), frequency=1)
    ends()
    run(block, frame("a"), frequency=1)
    assert eventually(lambda: shared_reports(api) == [{"a"}])
    assert health(dispatcher)["sharing"]["alone"] == 1
    assert dispatcher.counts().unaccounted == 0


def test_blocks_of_a_process_share_their_part(sharing, api, aggregator, run, frame):
    wait_for_an_epoch()
    for name in ("a", "b"):
        run(aggregator(), frame(name), frequency=1)
    assert eventually(lambda: shared_reports(api) == [{"a", "b"}])


@pytest.fixture
def neighbour(other, environment, key, frame):
    """Another process that has the window open, and does not share it."""
    observed = []

    def open_window(destination, name=key):
        names = WindowKey(
            destination.endpoint, destination.api_key_fingerprint, name
        ).names
        observed.append(other.journals.aggregator(destination, names))
        observed[-1].observe(frame("b"), "m/1")

    return open_window


@pytest.mark.parametrize(
    "case", [(None, "{}", True), (None, "another", False), ("off", "{}", False)]
)
def test_who_has_the_same_window_open_is_told_once_how_to_share(
    start, aggregator, run, key, neighbour, caplog, case
):
    share, name, warns = case
    dispatcher = start(DeliverySettings(share=share))
    block = aggregator()
    neighbour(block._sender.destination, name.format(key))
    run(block)
    looks = adoption.Adoption(dispatcher, REGISTRY._names_if_not_shared)
    with caplog.at_level(logging.WARNING):
        looks.adopt(0.0)
        assert "PEAKHOLD_SHARE" not in caplog.text  # one may be taking its place
        for _ in range(3):
            looks.adopt(0.0)
    assert (dispatcher.notices.counts["share"] == 1) is warns
    assert (f"{key} open, too" in caplog.text) is warns
    assert caplog.text.count("PEAKHOLD_SHARE=host") == warns


def test_health_can_be_said_as_json(sharing):
    assert json.loads(json.dumps(health(sharing)))["sharing"]["share"] == "host"
