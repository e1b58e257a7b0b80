"""Reports and metadata: what is kept of them, and what counts as a repeat."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from threading import Barrier, Thread

import pytest

from peakhold.monitor import MonitorServer


def rows_of(data_file, query):
    with closing(sqlite3.connect(data_file)) as connection:
        return connection.execute(query).fetchall()


def test_the_workspace_lookup_names_the_workspace(api):
    answer = api.send("GET", "/?api_key=any&nocache=true")
    assert answer.status == 200
    assert answer.json == {"workspace": "local", "peakhold_monitor": {"windows": 1}}


def test_the_workspace_can_have_another_name(make_api, report, row):
    with MonitorServer(workspace="plant-4") as monitor:
        api = make_api(monitor.url, workspace="plant-4")
        assert api.send("GET", "/?api_key=any").json["workspace"] == "plant-4"
        assert api.report(report(row())).status == 200
        assert make_api(monitor.url).report(report(row())).status == 404


def test_a_report_is_kept_byte_for_byte(monitor, api, clock):
    body = (
        b'{ "inference_results" :[{"model_id":"a/1","class_name":"caf\\u00e9",\n'
        b'"confidence":1e-1,"inference_id":"","model_type":""}],\t"extra": [null] }\r\n'
    )
    answer = api.report(body, Idempotency_Key="key-1")
    assert answer.status == 200
    assert answer.json == {"status": "ok", "stored": True}
    (kept,) = monitor.store.requests("report")
    assert kept.body == body
    assert kept.workspace == "local"
    assert kept.idempotency_key == "key-1"
    assert kept.received == clock.now
    assert monitor.store.requests("metadata") == []


def test_a_metadata_request_is_kept_byte_for_byte(monitor, api, clock):
    body = b'{"data":[{"inference_ids": ["x"],"field_name":"f","field_value":""}]} '
    assert api.metadata(body).status == 200
    (kept,) = monitor.store.requests("metadata")
    assert (kept.body, kept.idempotency_key) == (body, None)
    assert kept.received == clock.now


def test_every_result_of_a_report_becomes_a_row(api, report, row, data_file):
    api.report(
        report(
            row("cat", 0.25, inference_id="i1"),
            row("dog", 1, model_id="pets", inference_id="i2"),
        )
    )
    rows = rows_of(
        data_file,
        "SELECT model_id, project, class_name, confidence, inference_id"
        " FROM results JOIN series ON series.id = series_id ORDER BY confidence",
    )
    assert rows == [
        ("animals/3", "animals", "cat", 0.25, "i1"),
        ("pets", "pets", "dog", 1.0, "i2"),
    ]


def test_an_empty_report_is_kept(monitor, api, report):
    assert api.report(report()).json == {"status": "ok", "stored": True}
    assert len(monitor.store.requests("report")) == 1
    assert api.counts() == 0


def test_a_repeat_is_acknowledged_and_not_stored_again(monitor, api, report, row):
    first = api.report(report(row()), Idempotency_Key="window-1")
    repeat = api.report(report(row()), Idempotency_Key="window-1")
    assert (first.status, first.json["stored"]) == (200, True)
    assert (repeat.status, repeat.json["stored"]) == (200, False)
    assert len(monitor.store.requests("report")) == 1
    assert api.counts() == 1
    # Control: it is the key that makes a repeat, not the body.
    assert api.report(report(row()), Idempotency_Key="window-2").json["stored"]
    assert api.report(report(row())).json["stored"]
    assert api.report(report(row())).json["stored"]
    assert api.counts() == 4


def test_a_key_that_comes_with_another_body_is_a_repeat_that_is_logged(
    api, report, row, caplog
):
    api.report(report(row("cat")), Idempotency_Key="window-1")
    assert not api.report(report(row("cat")), Idempotency_Key="window-1").json["stored"]
    assert caplog.records == []
    other = api.report(report(row("dog")), Idempotency_Key="window-1")
    assert (other.status, other.json["stored"]) == (200, False)
    assert "another body" in caplog.text
    assert "window-1" not in caplog.text
    assert api.counts() == 1


def test_a_repeat_is_known_for_seven_days_and_no_longer(api, clock, report, row):
    api.report(report(row()), Idempotency_Key="window-1")
    clock.advance(days=7, seconds=-1)
    assert not api.report(report(row()), Idempotency_Key="window-1").json["stored"]
    clock.advance(seconds=1)
    assert api.report(report(row()), Idempotency_Key="window-1").json["stored"]
    # ... and from then on for another seven.
    clock.advance(days=7, seconds=-1)
    assert not api.report(report(row()), Idempotency_Key="window-1").json["stored"]
    assert api.counts() == 2


def test_a_repeated_metadata_request_is_not_stored_again(monitor, api, metadata):
    body = metadata((["i1"], "shift", "night"))
    assert api.metadata(body, Idempotency_Key="k").json["stored"]
    assert not api.metadata(body, Idempotency_Key="k").json["stored"]
    assert len(monitor.store.requests("metadata")) == 1


def test_a_key_of_a_report_does_not_hide_metadata(api, report, metadata, row):
    assert api.report(report(row()), Idempotency_Key="k").json["stored"]
    body = metadata((["i1"], "shift", "night"))
    assert api.metadata(body, Idempotency_Key="k").json["stored"]


def test_a_rejected_request_does_not_use_up_its_key(api, report, row):
    assert api.report(report({}), Idempotency_Key="k").status == 400
    assert api.report(report(row()), Idempotency_Key="k").json["stored"]


@pytest.mark.parametrize("key", ["", " ", "two words", "x" * 256, "\xe9"])
def test_an_idempotency_key_is_1_to_255_visible_ascii_characters(
    refusing_api, report, key
):
    answer = refusing_api.report(report(), Idempotency_Key=key)
    assert answer.status == 400
    assert answer.json["field"] == "Idempotency-Key"


def test_an_idempotency_key_of_255_characters_is_taken(api, report):
    key = "".join(map(chr, range(0x21, 0x7F))).ljust(255, "x")
    assert api.report(report(), Idempotency_Key=key).json["stored"]
    assert not api.report(report(), Idempotency_Key=key).json["stored"]


def test_several_entries_of_one_request_are_all_stored(api, metadata, data_file):
    answer = api.metadata(
        metadata((["i1", "i2"], "shift", "night"), (["i1"], "line", "7"))
    )
    assert answer.status == 200
    assert rows_of(
        data_file,
        "SELECT inference_id, field_name, field_value FROM metadata ORDER BY 1, 2",
    ) == [("i1", "line", "7"), ("i1", "shift", "night"), ("i2", "shift", "night")]


def test_the_last_value_of_a_field_is_the_one_it_has(api, metadata, data_file, monitor):
    api.metadata(metadata((["i1"], "shift", "night")))
    api.metadata(metadata((["i1"], "shift", "day")))
    values = rows_of(data_file, "SELECT field_value FROM metadata")
    assert values == [("day",)]
    assert len(monitor.store.requests("metadata")) == 2


@pytest.mark.parametrize("order", ["before", "after", "without"])
def test_metadata_finds_its_inference_in_any_order(
    monitor, api, report, metadata, row, order
):
    attached = metadata((["i1"], "shift", "night"))
    if order == "before":
        api.metadata(attached)
    if order != "without":
        api.report(report(row(inference_id="i1")))
    if order != "before":
        api.metadata(attached)
    (value,) = monitor.store.overview("local").metadata
    assert (value.field_name, value.field_value) == ("shift", "night")
    assert value.inferences == 1
    assert value.reported == (0 if order == "without" else 1)


def test_concurrent_senders_lose_and_double_nothing(monitor, api, report, row):
    senders, each = 8, 25
    ready = Barrier(senders)
    answers = []

    def send(sender):
        ready.wait()
        for number in range(each):
            own = api.report(
                report(row(f"class-{number % 5}", inference_id=f"{sender}-{number}")),
                Idempotency_Key=f"{sender}-{number}",
            )
            shared = api.report(report(row()), Idempotency_Key=f"shared-{number}")
            answers.append((own.json["stored"], shared.json["stored"]))

    threads = [Thread(target=send, args=(sender,)) for sender in range(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(own for own, _ in answers) == senders * each
    # Everyone sent the shared ones; one of each was stored.
    assert sum(shared for _, shared in answers) == each
    assert len(monitor.store.requests("report")) == senders * each + each
    assert api.counts() == senders * each + each


def test_the_time_of_receipt_is_kept_to_the_microsecond(monitor, api, clock, report):
    clock.advance(microseconds=1_000)
    api.report(report())
    (kept,) = monitor.store.requests("report")
    assert abs(kept.received - clock.now) <= timedelta(microseconds=1)
