"""Scrapes over HTTP, read by Prometheus' own parser."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, Gauge, start_http_server
from prometheus_client.parser import text_string_to_metric_families
from stand_ins import StatusError, report

import peakhold
from peakhold import ModelMonitoringInferenceAggregatorBlockV1
from peakhold.delivery import Dispatcher, process
from peakhold.delivery.destinations import UPKEEP
from peakhold.delivery.settings import METADATA_RATE_VARIABLE
from peakhold.metrics.figures import MOST_ENDPOINTS, OTHER
from peakhold.metrics.prometheus import register
from peakhold.outbox import admin
from peakhold.outbox.outbox import PATIENCE
from peakhold.testing import RecordingClient


@pytest.fixture
def registry():
    made = CollectorRegistry()
    register(made)
    return made


@pytest.fixture
def scraped(registry):
    """Makes a scrape; returns its text."""
    server, thread = start_http_server(0, "127.0.0.1", registry)

    def scrape():
        with urlopen(f"http://127.0.0.1:{server.server_port}/metrics") as answer:
            assert answer.status == 200
            return answer.read().decode()

    yield scrape
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def scrape(scraped):
    """Makes a scrape; returns values by name and, where there are any, labels."""

    def parse():
        found = {}
        for family in text_string_to_metric_families(scraped()):
            for sample in family.samples:
                key = (sample.name, *sample.labels.values())
                assert key not in found  # Prometheus would refuse the whole scrape
                found[key] = sample.value
        return found

    return parse


def test_a_scrape_tells_what_health_tells(troubled, aged, scrape):
    found = scrape()
    counts = peakhold.health()["counts"]
    assert counts["sealed"] == found["peakhold_records_sealed_total",] == 4
    assert counts["delivered"] == found["peakhold_records_delivered_total",] == 1
    for state in admin.STATES:
        assert counts[state] == found["peakhold_outbox_records", state] == 1
        key = ("peakhold_destination_records", "http://recording.invalid", state)
        assert found[key] == 1
    assert found["peakhold_outbox_records", "uncommitted"] == 0
    age = found["peakhold_destination_oldest_age_seconds", "http://recording.invalid"]
    assert 10 <= age < 20
    assert found["peakhold_outbox_disk_failing",] == 0
    assert found["peakhold_warnings_total", "park"] == 1
    dropped = {
        name: value for name, value in found.items() if "dropped_total" in name[0]
    }
    assert dropped
    assert set(dropped.values()) == {0}


def test_reports_that_wait_for_too_long_show(dispatcher, sender, client, clock, scrape):
    client.failures = [StatusError(503, retry_after=3600)]
    dispatcher.deliver(report(sender), sender)
    dispatcher.step()
    key = ("peakhold_destination_behind", "http://recording.invalid")
    clock.now += 59
    assert scrape()[key] == 0
    clock.now += 2
    assert scrape()[key] == 1
    clock.now += 3600
    dispatcher.step()
    assert key not in scrape()  # nothing waits


def without_ages(found):
    return {name: value for name, value in found.items() if "_age" not in name[0]}


def test_what_happens_between_two_scrapes_shows(troubled, state, sender, scrape):
    before = without_ages(scrape())
    assert without_ages(scrape()) == before  # the control: nothing has happened
    admin.drop(state, record_state="parked")
    troubled.deliver(report(sender, "late"), sender)
    after = without_ages(scrape())
    changed = {
        name: value - before.get(name, 0)
        for name, value in after.items()
        if value != before.get(name)
    }
    where = "http://recording.invalid"
    assert changed == {
        ("peakhold_records_dropped_total", "by hand"): 1,
        ("peakhold_outbox_records", "parked"): -1,
        ("peakhold_destination_records", where, "parked"): -1,
        ("peakhold_outbox_records", "uncommitted"): 1,
    }
    troubled.committer.commit()
    admin.retry(state)
    assert scrape()["peakhold_records_sealed_total",] == 5


def test_what_a_window_rejects_shows(dispatcher, client, scrape, api_key):
    block = ModelMonitoringInferenceAggregatorBlockV1(
        api_key=api_key, platform_client=client
    )
    window = {"unique_aggregator_key": "rejects", "model_id": "m/1", "frequency": 60}

    def observe(confidence):
        predictions = {
            "inference_id": "id",
            "prediction_type": "classification",
            "predictions": [{"class": "a", "confidence": confidence}],
        }
        block.run(predictions=predictions, fire_and_forget=True, **window)

    observe(0.5)
    rejected = ("peakhold_windows_rejected", "confidence_nan")
    before = scrape().get(rejected, 0)  # of windows that other tests left open
    observe(float("nan"))
    observe(float("nan"))
    assert scrape()[rejected] == before + 2


def test_no_secret_is_in_a_scrape(dispatcher, lend, client, api_key, scraped):
    client.endpoint = f"https://user:{api_key}@api.invalid:8443/v1?api_key={api_key}#x"
    client.lookup_failures = [StatusError(402, text=f"?api_key={api_key}")]
    sender = lend(client)
    dispatcher.deliver(report(sender), sender)
    dispatcher.step()
    text = scraped()
    assert 'endpoint="https://api.invalid:8443/v1"' in text
    assert api_key not in text
    assert "user" not in text.replace("peakhold", "")
    (destination,) = peakhold.health()["destinations"]
    assert destination["api_key_fingerprint"] not in text
    assert (
        api_key in destination["endpoint"]
    )  # the control: there was something to hide


def test_destinations_that_differ_in_key_only_are_one_series(dispatcher, lend, scrape):
    for key in ("one", "two"):
        sender = lend(RecordingClient(), key)
        dispatcher.deliver(report(sender), sender)
    dispatcher.committer.commit()
    assert len(peakhold.health()["destinations"]) == 2  # the control
    where = "http://recording.invalid"
    assert scrape()["peakhold_destination_records", where, "pending"] == 2


def test_the_series_are_bounded(dispatcher, lend, scrape):
    for number in range(MOST_ENDPOINTS + 7):
        client = RecordingClient()
        client.endpoint = f"http://host-{number}.invalid"
        sender = lend(client)
        dispatcher.deliver(report(sender), sender)
    dispatcher.committer.commit()
    pending = {
        name[1]: value
        for name, value in scrape().items()
        if name[0] == "peakhold_destination_records" and name[2] == "pending"
    }
    assert len(pending) == MOST_ENDPOINTS + 1
    assert pending[OTHER] == 7
    assert sum(pending.values()) == MOST_ENDPOINTS + 7


def of_the_outbox(found):
    return {
        name: value
        for name, value in found.items()
        if name[0].startswith(("peakhold_records", "peakhold_outbox_records"))
    }


def test_an_outbox_that_cannot_be_read_leaves_a_gap(
    troubled, sender, clock, newer_version, scrape
):
    before = scrape()
    newer_version(True)
    found = scrape()
    assert of_the_outbox(found) == {}
    assert found["peakhold_outbox_disk_failing",] == 1
    # The control: who took these figures would see counters fall, and rise again.
    assert peakhold.health()["counts"]["sealed"] == 0
    newer_version(False)
    troubled.deliver(report(sender, "late"), sender)
    clock.now += PATIENCE
    troubled.committer.commit()
    after = scrape()
    assert after["peakhold_outbox_disk_failing",] == 0
    name = ("peakhold_records_sealed_total",)
    assert after[name] == before[name] + 1


def test_a_full_disk_leaves_no_gap(troubled, sender, scrape, clock):
    database = troubled.outbox._disk.transaction(lambda database: database)
    pages = database.execute("PRAGMA page_count").fetchone()[0]
    database.execute(f"PRAGMA max_page_count = {pages}")
    for index in range(200):
        troubled.deliver(report(sender, f"w{index}", **{f"c{index}": 0.5}), sender)
    troubled.committer.commit()
    found = scrape()
    assert found["peakhold_outbox_disk_failing",] == 1
    assert found["peakhold_records_sealed_total",] == 204
    database.execute("PRAGMA max_page_count = 1000000")
    clock.now += max(PATIENCE, UPKEEP)
    troubled._destinations.upkeep(clock.now)
    found = scrape()
    assert found["peakhold_outbox_disk_failing",] == 0  # the control: all has moved
    assert found["peakhold_records_sealed_total",] == 204


def test_a_record_on_its_way_to_the_outbox_is_sealed_once(dispatcher, sender, scrape):
    seen = []

    def look():
        seen.append((peakhold.health()["counts"]["sealed"], scrape()))

    record = report(sender)
    record = record.__class__(**{**record.__dict__, "on_committed": look})
    dispatcher.deliver(record, sender)
    dispatcher.committer.commit()
    ((everything, found),) = seen
    assert found["peakhold_records_sealed_total",] == 1
    # The control: while it is handed over it is in two places, so that the sum falls.
    assert (everything, dispatcher.counts().sealed) == (2, 1)


def test_a_scrape_that_waits_for_the_disk_holds_up_no_frame(
    state, sender, scrape, monkeypatch, client, api_key
):
    """The disk hangs for as long as the test holds the store's lock."""
    working = Dispatcher(state)
    monkeypatch.setattr(process, "_current", working)
    block = ModelMonitoringInferenceAggregatorBlockV1(
        api_key=api_key, platform_client=client
    )
    predictions = {
        "inference_id": "id",
        "prediction_type": "classification",
        "predictions": [{"class": "a", "confidence": 0.5}],
    }
    window = {"unique_aggregator_key": "scraped", "model_id": "m/1", "frequency": 1}

    def frame():
        block.run(predictions=predictions, fire_and_forget=True, **window)

    frame()
    working.committer.commit()
    answers = []
    scraping = threading.Thread(target=lambda: answers.append(scrape()))
    with working.outbox._disk._database._lock:
        scraping.start()
        slowest, started = 0.0, time.monotonic()
        while time.monotonic() < started + 2.2:  # some windows close meanwhile
            begun = time.monotonic()
            frame()
            slowest = max(slowest, time.monotonic() - begun)
            time.sleep(0.002)
        assert answers == []  # the control: the scrape hangs
        assert working.committer.counts().pending > 0
    scraping.join(10)
    assert slowest < 0.5
    assert answers[0]["peakhold_outbox_disk_failing",] == 0
    working.close(2)


def test_an_environment_that_cannot_be_used_costs_no_other_metric(
    environment, registry, scrape, caplog
):
    environment.setattr(process, "_current", None)
    environment.setenv(METADATA_RATE_VARIABLE, "four")
    Gauge("of_the_host", "Something else.", registry=registry).set(7)
    assert scrape() == {("of_the_host",): 7}
    assert scrape() == {("of_the_host",): 7}
    (record,) = caplog.records
    assert METADATA_RATE_VARIABLE in record.getMessage()
    with pytest.raises(ValueError, match=METADATA_RATE_VARIABLE):  # the control
        peakhold.health()


def test_registering_reads_nothing(environment):
    environment.setattr(process, "_current", None)
    registry = CollectorRegistry(auto_describe=True)
    register(registry)
    assert process._current is None
    list(registry.collect())
    assert process._current is not None  # the control
    process._current.close(0)


def test_it_is_registered_once_and_can_be_taken_back():
    registry = CollectorRegistry(auto_describe=True)
    collector = register(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        register(registry)
    registry.unregister(collector)
    register(registry)


def test_every_metric_says_what_it_is(troubled, scraped):
    families = list(text_string_to_metric_families(scraped()))
    assert Counter(family.type for family in families) == {"counter": 9, "gauge": 6}
    assert all(family.documentation.endswith(".") for family in families)
    assert json.dumps(peakhold.health())
