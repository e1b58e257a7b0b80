"""Collections by the SDK's reader; peakhold itself knows the API alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from stand_ins import StatusError, report

import peakhold
from peakhold.metrics.figures import FIGURES
from peakhold.metrics.opentelemetry import _Readings, register
from peakhold.outbox import admin


@pytest.fixture
def provide():
    """Makes a provider with some readers."""
    made = []

    def make(*readers):
        made.append(MeterProvider(readers, shutdown_on_exit=False))
        return made[-1]

    yield make
    for provider in made:
        provider.shutdown()


@pytest.fixture
def reader(provide):
    made = InMemoryMetricReader()
    register(provide(made))
    return made


def metrics_of(reader):
    data = reader.get_metrics_data()
    return [
        metric
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        if scope.scope.name == "peakhold"
        for metric in scope.metrics
    ]


def collected(reader):
    """Values by name and, where there are any, attributes."""
    return {
        (metric.name, *point.attributes.values()): point.value
        for metric in metrics_of(reader)
        for point in metric.data.data_points
    }


def test_a_collection_tells_what_health_tells(troubled, aged, reader):
    found = collected(reader)
    counts = peakhold.health()["counts"]
    assert counts["sealed"] == found["peakhold.records.sealed",] == 4
    assert counts["delivered"] == found["peakhold.records.delivered",] == 1
    where = "http://recording.invalid"
    for state in admin.STATES:
        assert counts[state] == found["peakhold.outbox.records", state] == 1
        assert found["peakhold.destination.records", where, state] == 1
    assert 10 <= found["peakhold.destination.oldest_age", where] < 20
    assert found["peakhold.destination.behind", where] == 0
    assert found["peakhold.outbox.disk_failing",] == 0
    assert found["peakhold.warnings", "park"] == 1
    for name in ("parts", "late", "alone", "unsure", "reports"):
        assert found[f"peakhold.sharing.{name}",] == 0


def without_ages(found):
    return {name: value for name, value in found.items() if "_age" not in name[0]}


def test_what_happens_between_two_collections_shows(troubled, state, sender, reader):
    before = without_ages(collected(reader))
    assert without_ages(collected(reader)) == before  # the control: nothing happened
    admin.drop(state, record_state="parked")
    troubled.deliver(report(sender, "late"), sender)
    after = without_ages(collected(reader))
    changed = {
        name: value - before.get(name, 0)
        for name, value in after.items()
        if value != before.get(name)
    }
    assert changed == {
        ("peakhold.records.dropped", "by hand"): 1,
        ("peakhold.outbox.records", "parked"): -1,
        ("peakhold.destination.records", "http://recording.invalid", "parked"): -1,
        ("peakhold.outbox.records", "uncommitted"): 1,
    }


def test_units_kinds_and_attributes_are_those_of_the_conventions(troubled, reader):
    found = {metric.name: metric for metric in metrics_of(reader)}
    sealed = found["peakhold.records.sealed"]
    assert (sealed.unit, sealed.data.is_monotonic) == ("{record}", True)
    waiting = found["peakhold.outbox.records"]
    assert (waiting.unit, waiting.data.is_monotonic) == ("{record}", False)
    age = found["peakhold.destination.oldest_age"]
    assert age.unit == "s"
    assert not hasattr(age.data, "is_monotonic")
    (point,) = age.data.data_points
    assert dict(point.attributes) == {"peakhold.endpoint": "http://recording.invalid"}


def test_the_instruments_of_a_collection_share_one_reading(troubled, reader, readings):
    assert len(collected(reader)) > len(FIGURES)
    assert len(readings) == 1
    collected(reader)  # the control: the next one has its own
    assert len(readings) == 2


def test_a_collection_is_not_mixed_with_that_of_another_thread(troubled, readings):
    found = _Readings()
    first = found.of("sealed")
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(found.of, "sealed").result()
    assert other is not first
    assert found.of("delivered") is first
    assert found.of("delivered") is not first  # the control: the next collection
    assert len(readings) == 3


def test_each_reader_of_a_provider_has_its_own_reading(troubled, provide, readings):
    readers = [InMemoryMetricReader() for _ in range(2)]
    register(provide(*readers))
    assert collected(readers[0]).keys() == collected(readers[1]).keys()
    assert len(readings) == 2


def test_no_secret_is_in_a_collection(dispatcher, lend, client, api_key, reader):
    client.endpoint = f"https://user:{api_key}@api.invalid/v1?api_key={api_key}"
    client.lookup_failures = [StatusError(402, text=f"?api_key={api_key}")]
    sender = lend(client)
    dispatcher.deliver(report(sender), sender)
    dispatcher.step()
    text = reader.get_metrics_data().to_json()
    assert '"https://api.invalid/v1"' in text
    assert api_key not in text
    # The control: there was something to hide.
    assert api_key in peakhold.health()["destinations"][0]["endpoint"]


def test_an_outbox_that_cannot_be_read_leaves_a_gap(troubled, newer_version, reader):
    before = collected(reader)
    newer_version(True)
    found = collected(reader)
    assert found["peakhold.outbox.disk_failing",] == 1
    assert not [name for name in found if name[0].startswith("peakhold.records")]
    assert peakhold.health()["counts"]["sealed"] == 0  # the control, as health has it
    newer_version(False)
    after = collected(reader)
    assert after["peakhold.records.sealed",] == before["peakhold.records.sealed",] == 4
