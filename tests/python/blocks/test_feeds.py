"""Feeds: a window each, up to a bound, and their names as custom metadata."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections import defaultdict
from datetime import datetime
from enum import Enum

import pytest
from stand_ins import DictCache, eventually

from peakhold.blocks import windows
from peakhold.blocks.interval import ReportInterval
from peakhold.blocks.windows import REGISTRY
from peakhold.delivery import Dispatcher, process
from peakhold.delivery.health import health
from peakhold.delivery.settings import DeliverySettings
from peakhold.testing import RecordingClient

SENT = "Data sent successfully"
NOT_IN_RANGE = "Not in reporting range, skipping report. (Ok)"
MOST = 3


def long_ago(block):
    """Have every window of a block due."""
    for window in block._windows.values():
        window.interval.last_report = time.monotonic() - 3600


def feeds(block):
    return {window.key.partition for window in block._windows.values()}


def reported(client):
    """The classes of each report."""
    return sorted(
        sorted(line["class_name"] for line in report["inference_results"])
        for report in client.reports()
    )


def registered(client):
    """The inference ids of each value of the field `feed`."""
    found = defaultdict(set)
    for _, call in client.named("add_custom_metadata"):
        assert call["field_name"] == "feed"
        found[call["field_value"]].update(call["inference_ids"])
    return dict(found)


@pytest.fixture
def bounded(monkeypatch):
    """The process's dispatcher, for few feeds."""
    settings = DeliverySettings(max_feeds=MOST, metadata_rate=1000.0)
    fresh = Dispatcher(settings=settings)
    monkeypatch.setattr(process, "_current", fresh)
    yield fresh
    fresh.close(0)


@pytest.fixture
def on_disk(monkeypatch, state):
    """The process's dispatcher, with an outbox and a journal on disk."""
    fresh = Dispatcher(state, DeliverySettings(metadata_rate=1000.0))
    monkeypatch.setattr(process, "_current", fresh)
    yield fresh
    fresh.close(0)


# Windows --------------------------------------------------------------------------


def test_every_feed_has_a_window_and_an_interval_of_its_own(
    aggregator, run, client, frame
):
    block = aggregator(platform_client=client)
    for name in ("gate", "yard", None):
        for best in (0.5, 0.25):
            assert run(block, frame(f"of {name}", best), feed=name)["message"] == (
                NOT_IN_RANGE
            )
    assert feeds(block) == {"gate", "yard", None}
    long_ago(block)
    for name in ("gate", "yard", None):
        # None waits for the report of another.
        assert run(block, frame(f"of {name}", 0.1), feed=name)["message"] == SENT
    assert reported(client) == [["of None"], ["of gate"], ["of yard"]]
    assert {
        line["confidence"]
        for each in client.reports()
        for line in each["inference_results"]
    } == {0.5}


def test_the_control_without_feeds_has_one_window(aggregator, run, client, frame):
    block = aggregator(platform_client=client)
    for name in ("gate", "yard"):
        run(block, frame(f"of {name}"))
    long_ago(block)
    assert run(block)["message"] == SENT
    assert run(block)["message"] == NOT_IN_RANGE
    assert reported(client) == [["dog", "of gate", "of yard"]]


class Camera(str, Enum):
    """Its members are texts, and not equal in ``str`` to them."""

    GATE = "gate"


def test_what_is_no_text_counts_as_its_text_and_an_empty_one_as_none(
    aggregator, run, client
):
    block = aggregator(platform_client=client)
    for feed in (0, "0", Camera.GATE, "gate", None, "", " "):
        run(block, feed=feed)
    assert feeds(block) == {"0", "gate", None, " "}
    assert len(block._windows) == 4


def test_blocks_of_one_key_share_the_windows_of_feeds(aggregator, run, client, frame):
    """As a host makes a block per request."""
    for number in range(4):
        block = aggregator(platform_client=client)
        run(block, frame(f"c{number}"), feed="gate")
        (window,) = block._windows.values()
    window.interval.last_report = time.monotonic() - 3600
    assert run(aggregator(platform_client=client), feed="gate")["message"] == SENT
    assert reported(client) == [["c0", "c1", "c2", "c3", "dog"]]


def test_only_the_common_window_has_the_contract_s_key_in_the_hosts_cache(
    aggregator, run, cache, cache_key, key
):
    block = aggregator()
    run(block)
    assert eventually(lambda: set(cache.values) == {cache_key})
    run(block, feed="gate")
    own = (
        "workflows:steps_cache:peakhold/model_monitoring_inference_aggregator@v2:"
        f"{len(key)}:{key}:gate:last_report_time"
    )
    assert eventually(lambda: set(cache.values) == {cache_key, own})


def test_keys_and_feeds_with_colons_have_different_keys_in_the_cache():
    names = ["", "a", ":", "a:b", "b", "a:", ":b", "1:a"]
    keys = [ReportInterval(key, feed).cache_key for key in names for feed in names[1:]]
    keys += [ReportInterval(key).cache_key for key in names]
    assert len(set(keys)) == len(keys)
    # The control: joined by colons alone some would be one.
    assert len({f"{key}:{feed}" for key in names for feed in names}) < len(names) ** 2


def test_a_report_of_another_process_is_honoured_for_its_feed_alone(
    aggregator, run, client, key
):
    cache = DictCache()
    block = aggregator(platform_client=client, cache=cache)
    for feed in ("gate", "yard"):
        run(block, feed=feed)
    assert eventually(lambda: len(cache.values) == 2)
    window = block._windows[key, "yard"]
    long_ago(block)
    # Another process has reported the yard just now.
    REGISTRY.forget(block._windows[key, "yard"])
    del block._windows[key, "yard"]
    cache.values[window.interval.cache_key] = _now()
    assert run(block, feed="yard")["message"] == NOT_IN_RANGE
    assert run(block, feed="gate")["message"] == SENT


def _now():
    return datetime.now().isoformat()  # noqa: DTZ005 - as hosts write it


# The bound ------------------------------------------------------------------------


@pytest.mark.usefixtures("bounded")
def test_feeds_beyond_the_bound_have_the_common_window_and_are_counted(
    aggregator, run, client, frame, caplog
):
    block = aggregator(platform_client=client)
    for name in "abcdea":
        run(block, frame(f"of {name}"), feed=name)
    run(block, frame("of none"))
    assert feeds(block) == {"a", "b", "c", None}
    assert health()["warnings"]["feeds"] == 2
    warned = [each for each in caplog.messages if "PEAKHOLD_MAX_FEEDS" in each]
    assert len(warned) == 1
    assert f"{MOST} feeds" in warned[0]
    long_ago(block)
    for name in "abcd":
        assert run(block, frame(f"of {name}"), feed=name)["message"] == SENT
    assert reported(client) == [
        ["of a"],
        ["of b"],
        ["of c"],
        ["of d", "of e", "of none"],
    ]
    # Nothing names the feeds of the common window.
    REGISTRY.flush_all()
    assert process._current.flush(5)
    assert set(registered(client)) == {"a", "b", "c"}


@pytest.mark.usefixtures("bounded")
def test_the_bound_is_of_one_aggregator_key_and_endpoint(aggregator, run, client):
    block = aggregator(platform_client=client)
    other = aggregator(platform_client=client, api_key="another")
    for name in "abc":
        run(block, feed=name)
        run(block, feed=name, unique_aggregator_key="another key")
        run(other, feed=name)
    assert health()["warnings"] == {}
    run(block, feed="d")  # the control
    assert health()["warnings"] == {"feeds": 1}


@pytest.mark.usefixtures("bounded")
def test_a_feed_that_is_released_leaves_its_place(aggregator, run, client, frame):
    block = aggregator(platform_client=client)
    for name in "abcd":
        run(block, frame(f"of {name}"), feed=name)
    assert "d" not in feeds(block)
    (window,) = (each for each in block._windows.values() if each.key.partition == "b")
    window.last_used = time.monotonic() - 3600
    assert window.check(time.monotonic()) is None
    run(block, frame("of d"), feed="d")
    assert "d" in {key.partition for key in REGISTRY._windows}
    # The control: the place is taken again, after a frame that met the release.
    run(block, feed="b")
    assert health()["warnings"]["feeds"] == 1
    run(block, feed="b")
    assert health()["warnings"]["feeds"] == 2
    # What the released one held was reported.
    assert eventually(lambda: ["of b"] in reported(client))


@pytest.mark.usefixtures("bounded")
def test_a_frame_that_meets_the_release_of_its_window_is_not_lost(
    aggregator, run, client, frame, key
):
    block = aggregator(platform_client=client)
    run(block, frame("early"), feed="a")
    window = block._windows[key, "a"]
    window.release()
    run(block, frame("late"), feed="a")
    assert (key, "a") not in block._windows
    run(block, frame("later"), feed="a")
    assert block._windows[key, "a"] is not window
    assert eventually(lambda: reported(client) == [["early"], ["late"]])


def test_many_names_cost_no_more_memory_than_the_bound(aggregator, run, bounded):
    block = aggregator(platform_client=RecordingClient())
    before = len(REGISTRY._windows)
    for number in range(300):
        run(block, feed=f"feed {number}")
    assert len(block._windows) == MOST + 1
    assert len(REGISTRY._windows) - before <= MOST + 1
    assert bounded.notices.counts["feeds"] == 300 - MOST


@pytest.mark.usefixtures("bounded")
def test_the_bound_holds_for_threads_that_come_together(aggregator, run, client, key):
    blocks = [aggregator(platform_client=client) for _ in range(8)]
    together = threading.Barrier(len(blocks))

    def observe(block, first):
        together.wait()
        for number in range(20):
            run(block, feed=f"{first} {number}")

    threads = [
        threading.Thread(target=observe, args=pair)
        for pair in zip(blocks, "abcdefgh", strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    keys = [each for each in REGISTRY._windows if each.unique_aggregator_key == key]
    assert len(keys) == MOST + 1
    assert health()["warnings"]["feeds"] == 8 * 20 - MOST


@pytest.mark.parametrize("value", ["0", "-1", "2.5", "many", "1e3", "9" * 30])
def test_a_bound_that_is_no_number_is_refused(environment, aggregator, value):
    environment.setenv("PEAKHOLD_MAX_FEEDS", value)
    environment.setattr(process, "_current", None)
    with pytest.raises(ValueError, match="PEAKHOLD_MAX_FEEDS must be a whole number"):
        aggregator()
    # The control.
    environment.setenv("PEAKHOLD_MAX_FEEDS", " 12 ")
    assert DeliverySettings.from_environment().max_feeds == 12


# Custom metadata ------------------------------------------------------------------


def test_the_feed_is_registered_for_the_inferences_of_the_peaks(
    aggregator, run, client, frame, bounded
):
    block = aggregator(platform_client=client)
    for name in ("gate", "yard"):
        run(block, frame("dog", 0.9, f"best {name}"), feed=name)
        run(block, frame("dog", 0.5, f"worse {name}"), feed=name)
        run(block, frame("cat", 0.4, f"cat {name}"), feed=name)
        run(block, frame("owl", 0.4, ""), feed=name)
    run(block, frame("dog", 0.9, "of none"))
    REGISTRY.flush_all()
    assert bounded.flush(5)
    assert len(client.reports()) == 3
    assert registered(client) == {
        name: {f"best {name}", f"cat {name}"} for name in ("gate", "yard")
    }


@pytest.mark.parametrize("fire_and_forget", [True, False])
def test_the_feed_is_registered_however_the_report_goes_out(
    aggregator, run, client, frame, bounded, fire_and_forget
):
    block = aggregator(platform_client=client)
    run(block, frame("dog", 0.9, "best"), feed="gate")
    long_ago(block)
    arguments = {"fire_and_forget": fire_and_forget, "feed": "gate"}
    run(block, frame("dog", 0.1, "last"), **arguments)
    assert bounded.flush(5)
    assert registered(client) == {"gate": {"best"}}


def test_a_window_without_inference_ids_registers_nothing(
    aggregator, run, client, frame, bounded
):
    block = aggregator(platform_client=client)
    run(block, frame("dog", 0.9, ""), feed="gate")
    REGISTRY.flush_all()
    assert bounded.flush(5)
    assert len(client.reports()) == 1
    assert registered(client) == {}


def test_a_feed_that_is_to_stay_out_of_the_metadata_does(
    aggregator, run, client, monkeypatch
):
    monkeypatch.setenv("PEAKHOLD_FEED_METADATA", "off")
    fresh = Dispatcher(settings=DeliverySettings.from_environment())
    monkeypatch.setattr(process, "_current", fresh)
    block = aggregator(platform_client=client)
    run(block, feed="gate")
    REGISTRY.flush_all()
    assert fresh.flush(5)
    assert len(client.reports()) == 1
    assert registered(client) == {}
    fresh.close(0)


def test_the_feeds_of_many_windows_go_in_few_requests(
    api, aggregator, run, frame, monkeypatch
):
    """Forty cameras that report every second would need forty requests."""
    quick = Dispatcher(settings=DeliverySettings(rate=200.0))
    monkeypatch.setattr(process, "_current", quick)
    block = aggregator()
    for number in range(40):
        run(block, frame("dog", 0.5, f"id {number}"), feed=f"camera {number}")
    REGISTRY.flush_all()
    assert quick.flush(30)
    quick.close(0)
    found = [each for each in api.accepted() if each.path.endswith("/metadata")]
    assert len(found) < 20
    entries = [entry for each in found for entry in _json(each)["data"]]
    assert {(entry["field_value"], *entry["inference_ids"]) for entry in entries} == {
        (f"camera {number}", f"id {number}") for number in range(40)
    }


def _json(request):
    return json.loads(request.body)


def test_a_feed_that_is_no_unicode_stops_no_report(aggregator, run, client, on_disk):
    block = aggregator(platform_client=client)
    run(block, feed="\ud800")
    REGISTRY.flush_all()
    assert on_disk.flush(5)
    assert len(client.reports()) == 1
    assert registered(client) == {"\ud800": {"id"}}


def test_what_is_open_at_exit_has_its_feed_registered_too(
    aggregator, run, client, frame, bounded
):
    block = aggregator(platform_client=client)
    run(block, frame("dog", 0.9, "last"), fire_and_forget=True, feed="gate")
    bounded.close(5)
    assert registered(client) == {"gate": {"last"}}
    counts = bounded.counts()
    assert (counts.sealed, counts.delivered) == (2, 2)


KILLED = """
import os, sys
import peakhold
from peakhold.blocks.windows import REGISTRY
from peakhold.delivery import current

key, killed = sys.argv[1:]
block = peakhold.ModelMonitoringInferenceAggregatorBlockV1(api_key="canary-key")
for feed in ("gate", None):
    block.run(
        fire_and_forget=True,
        predictions={
            "inference_id": f"of {feed}",
            "prediction_type": "classification",
            "predictions": [{"class": "dog", "confidence": 0.5}],
        },
        frequency=10**9,
        unique_aggregator_key=key,
        model_id="m/1",
        feed=feed,
    )
outbox = current().outbox
add = outbox.add

def add_and_die(*arguments, **others):
    add(*arguments, **others)
    os._exit(9)

if killed == "just after its commit":
    outbox.add = add_and_die
if killed != "while it is open":
    REGISTRY.flush_all()
    current().committer.commit()
os._exit(9)
"""


@pytest.mark.parametrize(
    "killed", ["while it is open", "just after its commit", "later"]
)
@pytest.mark.usefixtures("state_directory")
def test_after_a_kill_the_next_process_registers_the_feed(api, killed):
    variables = {**os.environ, "OFFLINE_MODE": "True"}
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, uuid.uuid4().hex, killed],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (9, "")
    heir = (
        "import peakhold\n"
        "peakhold.ModelMonitoringInferenceAggregatorBlockV1(api_key='canary-key').run("
        "fire_and_forget=True, predictions=None, frequency=5, model_id='m/1', "
        "unique_aggregator_key='heir')\n"
        "import time\n"
        "for _ in range(50):\n"
        "    time.sleep(0.1)\n"
        "    if peakhold.health()['counts']['delivered'] >= 3: break\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", heir],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode, ran.stderr) == (0, "")
    posts = [each for each in api.accepted() if each.path.endswith("/metadata")]
    entries = [entry for each in posts for entry in _json(each)["data"]]
    assert entries == [
        {"inference_ids": ["of gate"], "field_name": "feed", "field_value": "gate"}
    ]
    reports = [each for each in api.accepted() if each not in posts]
    ids = [
        line["inference_id"]
        for each in reports
        for line in _json(each).get("inference_results", ())
    ]
    assert sorted(ids) == ["of None", "of gate"]


def test_idle_windows_of_feeds_are_released_early_like_all_others(
    aggregator, run, client, monkeypatch, dispatcher
):
    monkeypatch.setattr(windows, "MOST", len(REGISTRY._windows) + 2)
    block = aggregator(platform_client=client)
    for number in range(4):
        run(block, feed=f"feed {number}")
    assert dispatcher.notices.counts["windows"] > 0
    assert all(REGISTRY._feeds.values())
