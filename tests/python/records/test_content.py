"""Request bodies: the contract's keys, made once, and never too long."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import datetime

import pytest
from stand_ins import window_of

from peakhold import PeakAggregator
from peakhold.records import (
    DestinationKey,
    MetadataEntry,
    Span,
    UnencodableError,
    merge_reports,
    seal_metadata,
    seal_report,
)
from peakhold.records.content import ENCODING_VERSION, decode, period_of
from peakhold.records.metadata import MetadataBatch
from peakhold.testing import RecordingClient

HERE = DestinationKey("http://here", "0123456789abcdef")
THERE = DestinationKey("http://there", "0123456789abcdef")
RESULTS = "inference_results"
FACTS = {
    "device_id": None,
    "inference_server_version": "1.2.3",
    **RecordingClient().get_system_info(),
}


def sealed(classes, facts=FACTS):
    best = {name: index / classes for index, name in enumerate(names(classes))}
    return described(seal_report(HERE, "window", window_of(best)), facts)


def described(record, facts=FACTS):
    return replace(record, content=record.content.described(facts))


def in_parts(record):
    return record.divided(record.content.parts())


def names(count):
    return [f"class {index:06d}" for index in range(count)]


def test_a_report_has_the_keys_of_the_contract_in_order():
    record = sealed(2)
    body = json.loads(record.body)
    assert list(body) == [
        "timestamp",
        "source",
        "source_info",
        "device_id",
        "inference_server_version",
        "platform",
        "platform_release",
        "platform_version",
        "architecture",
        "hostname",
        "ip_address",
        "mac_address",
        "processor",
        "inference_results",
    ]
    assert body["source"] == "workflow"
    assert body["source_info"] == "ModelMonitoringInferenceAggregatorBlockV1"
    assert body["device_id"] is None
    assert [result["class_name"] for result in body["inference_results"]] == names(2)


def test_the_timestamp_is_local_iso_time_of_sealing():
    before = datetime.now()  # noqa: DTZ005 - the contract's times are local
    record = sealed(1)
    after = datetime.now()  # noqa: DTZ005
    stamp = datetime.fromisoformat(json.loads(record.body)["timestamp"])
    assert stamp.tzinfo is None
    assert before <= stamp <= after


def test_an_empty_window_has_an_empty_list_of_results():
    (record,) = in_parts(sealed(0))
    assert json.loads(record.body)["inference_results"] == []


def test_one_part_keeps_the_record_s_id():
    record = sealed(3)
    assert in_parts(record) == [record]


def test_a_report_over_512_kb_becomes_several_with_ids_of_their_own():
    record = sealed(9_000)
    parts = in_parts(record)
    assert len(parts) > 1
    assert all(len(part.body) <= 524_288 for part in parts)
    ids = [part.id for part in parts]
    assert len(set(ids)) == len(parts)
    # Who seals it again after a crash names its parts as before.
    assert [part.id for part in in_parts(record)] == ids
    found = [
        result["class_name"]
        for part in parts
        for result in json.loads(part.body)["inference_results"]
    ]
    assert found == names(9_000)
    heads = [json.loads(part.body) for part in parts]
    assert len({head["timestamp"] for head in heads}) == 1
    # The control: as few parts as the limit allows, so the limit was the cause.
    total = sum(len(part.body) for part in parts)
    assert len(parts) == total // 524_288 + 1


def test_hostile_text_is_encoded_as_json():
    name = 'quote " \\ \x01 \x7f \u2028 é 😀'
    window = PeakAggregator()
    entry = {"class": name, "confidence": 0.1}
    window.observe({"predictions": [entry], "inference_id": "\ud800"}, "m/1")
    record = described(seal_report(HERE, "window", window.snapshot()))
    (result,) = json.loads(record.body)["inference_results"]
    assert (result["class_name"], result["confidence"]) == (name, 0.1)


def test_nan_is_never_sent():
    facts = {**FACTS, "load": float("nan")}
    with pytest.raises(UnencodableError, match="not JSON compliant"):
        sealed(1, facts)


def test_a_report_too_large_for_the_server_is_halved():
    record = sealed(5)
    first, second = record.halves()
    halves = [json.loads(part.body)["inference_results"] for part in (first, second)]
    assert [len(half) for half in halves] == [2, 3]
    assert [*halves[0], *halves[1]] == json.loads(record.body)["inference_results"]
    assert len({record.id, first.id, second.id}) == 3


def test_one_result_cannot_be_halved():
    assert sealed(1).halves() == []


def entry(count, value="v", prefix="id"):
    ids = tuple(f"{prefix}{index}" for index in range(count))
    return MetadataEntry(ids, "field", value)


def metadata(*entries):
    return seal_metadata(HERE, entries)


def test_metadata_has_the_keys_of_the_contract():
    record = metadata(entry(2), entry(1, "w"))
    assert json.loads(record.body) == {
        "data": [
            {
                "inference_ids": ["id0", "id1"],
                "field_name": "field",
                "field_value": "v",
            },
            {"inference_ids": ["id0"], "field_name": "field", "field_value": "w"},
        ]
    }


def test_metadata_is_halved_by_ids():
    record = metadata(entry(1), entry(3, "w"))
    first, second = record.halves()
    assert json.loads(first.body)["data"] == [
        {"inference_ids": ["id0"], "field_name": "field", "field_value": "v"},
        {"inference_ids": ["id0"], "field_name": "field", "field_value": "w"},
    ]
    assert json.loads(second.body)["data"] == [
        {"inference_ids": ["id1", "id2"], "field_name": "field", "field_value": "w"}
    ]
    assert metadata(entry(1)).halves() == []


def test_metadata_is_divided_by_its_entries():
    record = metadata(entry(2), entry(3, "w"), entry(1, "x"))
    parts = record.by_entry()
    assert [part.entries for part in parts] == [
        [entry(2)],
        [entry(3, "w")],
        [entry(1, "x")],
    ]
    assert {part.created for part in parts} == {record.created}
    assert len({record.id, *(part.id for part in parts)}) == 4
    assert [part.seals for part in parts] == [1, 1, 1]
    first, second = record.halves(whole_entries=True)
    assert first.entries == [entry(2)]
    assert second.by_entry() == parts[1:]
    assert record.by_entry(rest=True) == [first, second]
    assert parts[0].by_entry() == [parts[0]]


def test_one_entry_is_not_divided_between_entries():
    record = metadata(entry(2))
    assert record.by_entry() == [record]
    assert record.halves(whole_entries=True) == []


def filled(batch, *args):
    return list(batch.add(*args))


def test_ids_of_one_field_and_value_become_one_entry_in_first_seen_order():
    batch = MetadataBatch()
    assert filled(batch, ["b", "a"], "f", "v") == []
    assert filled(batch, ["a", "c"], "f", "v") == []
    assert filled(batch, ["a"], "f", "w") == []
    assert len(batch) == 4
    assert batch.seal() == (
        MetadataEntry(("b", "a", "c"), "f", "v"),
        MetadataEntry(("a",), "f", "w"),
    )
    assert len(batch) == 0


def kept(entries):
    """What a receiver keeps that takes entries one after the other."""
    return {
        (inference_id, entry.field_name): entry.field_value
        for entry in entries
        for inference_id in entry.inference_ids
    }


def test_of_several_values_of_a_field_the_last_one_comes_last():
    batch = MetadataBatch()
    for value in ("x", "y", "x", "x"):
        assert filled(batch, ["a"], "f", value) == []
    for value in ("y", "x"):  # joins the newest entry of a value
        assert filled(batch, ["b"], "f", value) == []
    assert filled(batch, ["a"], "g", "x") == []  # another field
    assert batch.seal() == (
        MetadataEntry(("a",), "f", "x"),
        MetadataEntry(("a", "b"), "f", "y"),
        MetadataEntry(("a", "b"), "f", "x"),
        MetadataEntry(("a",), "g", "x"),
    )


def test_an_id_that_has_its_value_is_not_sent_again_when_another_id_changes():
    batch = MetadataBatch()
    for frame in range(100):
        assert list(batch.add([f"id{n}" for n in range(50)], "state", "ok")) == []
        alternating = "bad" if frame % 2 else "ok"
        assert list(batch.add(["other"], "state", alternating)) == []
    sent = [
        (inference_id, entry.field_value)
        for entry in batch.seal()
        for inference_id in entry.inference_ids
    ]
    assert len(sent) == 50 + 100
    assert dict(sent) == {f"id{n}": "ok" for n in range(50)} | {"other": "bad"}


@pytest.mark.parametrize("seed", range(8))
def test_the_last_value_wins_however_entries_are_packed_and_split(seed):
    draw = random.Random(seed)
    batch, given, sealed = MetadataBatch(), [], []
    for _ in range(1_500):
        ids = draw.sample("abcdefgh", draw.randint(1, 3))
        field, value = draw.choice("fg"), draw.choice("xyz") * draw.choice((1, 500))
        given.append(MetadataEntry(tuple(ids), field, value))
        sealed += filled(batch, ids, field, value)
    sealed.append(batch.seal())
    assert kept(entry for entries in sealed for entry in entries) == kept(given)
    assert len(sealed) > 1
    for entries in sealed:
        records = [metadata(*entries)]
        while len(records) < 16:
            records = [part for each in records for part in each.halves() or [each]]
        sent = [entry for record in records for entry in record.entries]
        assert kept(sent) == kept(entries)


def test_a_batch_is_full_at_a_thousand_ids():
    batch = MetadataBatch()
    ids = [f"{index}" for index in range(1_000)]
    assert filled(batch, ids, "f", "v") == []
    ((full,),) = filled(batch, ["one more"], "f", "v")
    assert full.inference_ids == tuple(ids)
    assert batch.seal() == (MetadataEntry(("one more",), "f", "v"),)


@pytest.mark.parametrize("letter", ["a", "é", "😀", '"', "\x00"])
def test_a_batch_is_full_before_256_kb_however_the_text_is_escaped(letter):
    batch = MetadataBatch()
    bodies = [
        metadata(*entries).body
        for index in range(300)
        for entries in filled(batch, [f"{index}" + letter * 900], "f", letter * 500)
    ]
    bodies.append(metadata(*batch.seal()).body)
    assert all(len(body) <= 262_144 for body in bodies)
    # The control: batches are filled until the next id would be too much.
    longest = len(json.dumps("299" + letter * 900)) + len(",")
    assert all(len(body) > 262_144 - longest for body in bodies[:-1])
    found = [
        inference_id
        for body in bodies
        for sent in json.loads(body)["data"]
        for inference_id in sent["inference_ids"]
    ]
    assert found == [f"{index}" + letter * 900 for index in range(300)]


def test_more_ids_than_a_request_takes_become_several_records():
    parts = in_parts(metadata(entry(2_500)))
    counts = [len(json.loads(p.body)["data"][0]["inference_ids"]) for p in parts]
    assert counts == [1_000, 1_000, 500]


def test_the_api_key_s_fingerprint_is_all_a_record_knows():
    assert set(vars(HERE)) == {"endpoint", "api_key_fingerprint", "client"}


@pytest.mark.parametrize(
    "record",
    [
        sealed(0),
        sealed(7, {**FACTS, "odd": {1: [float("1e300"), "\ud800"]}}),
        metadata(entry(3), entry(2, "\u2028 \ud800")),
    ],
    ids=["empty", "report", "metadata"],
)
def test_what_is_read_back_makes_the_same_bodies(record):
    content = decode(record.kind, ENCODING_VERSION, record.content.encode())
    again = replace(record, content=content)
    assert again.body == record.body
    halves = [part.body for part in record.halves()]
    assert [part.body for part in again.halves()] == halves
    assert again.size == pytest.approx(record.size, rel=0.5)


def span(period):
    return Span("key", None, ended=0, frequency=period)


def test_a_period_is_kept_and_changes_no_body():
    window = window_of({"a": 0.5})
    closed_at = datetime(2026, 1, 2, 3, 4, 5)  # noqa: DTZ001 - as in the request
    plain = described(seal_report(HERE, "w", window, closed_at))
    record = described(seal_report(HERE, "w", window, closed_at, span(5)))
    encoded = record.content.encode()
    assert record.body == plain.body
    assert (record.period, plain.period) == (5, None)
    assert decode("report", ENCODING_VERSION, encoded).period == 5
    assert decode("report", ENCODING_VERSION, plain.content.encode()).period is None
    assert (period_of(encoded), period_of(plain.content.encode())) == (5, None)
    later = described(seal_report(HERE, "w", window, closed_at, span(7)))
    _, (merged,) = merge_reports([record, later])
    assert merged.period == 7


@pytest.mark.parametrize(
    ("kind", "version", "encoded"),
    [
        ("report", ENCODING_VERSION + 1, sealed(1).content.encode()),
        ("heatmap", ENCODING_VERSION, sealed(1).content.encode()),
        ("report", ENCODING_VERSION, sealed(1).content.encode()[:-1]),
        ("report", ENCODING_VERSION, b"{}\n"),
        ("report", ENCODING_VERSION, b""),
        ("metadata", ENCODING_VERSION, b'{"data":[{}]}'),
    ],
)
def test_what_is_no_content_of_this_version_is_not_read(kind, version, encoded):
    with pytest.raises(ValueError, match=r"."):
        decode(kind, version, encoded)


def test_reports_of_one_window_become_one_with_the_best_of_each_class():
    older = described(seal_report(HERE, "w", window_of({"a": 0.5, "b": 0.9})))
    newer = described(seal_report(HERE, "w", window_of({"b": 0.8, "c": 0.1, "a": 0.6})))
    old, (merged,) = merge_reports([older, newer])
    assert old == [older, newer]
    body = json.loads(merged.body)
    best = {
        each["class_name"]: each["confidence"] for each in body["inference_results"]
    }
    assert list(best.items()) == [("a", 0.6), ("b", 0.9), ("c", 0.1)]
    assert body["timestamp"] == newer.content.closed_at
    assert merged.seals == 2
    assert merged.id not in {older.id, newer.id}


def test_reports_of_one_window_to_two_destinations_are_one_content_when_merged():
    records = [described(seal_report(HERE, "w", window_of({"a": 0.5}))) for _ in "ab"]
    others = [
        replace(each, destination=THERE, id=f"{each.id}.there") for each in records
    ]
    _, (here,) = merge_reports(records)
    _, (there,) = merge_reports(others)
    assert here.content_id == there.content_id == here.id
    assert there.id == f"{here.id}.there"
    assert there.body == here.body


def test_a_window_of_which_a_part_is_gone_is_not_merged():
    """The whole would repeat what was sent."""
    first = described(seal_report(HERE, "w", window_of({"a": 0.5, "b": 0.9})))
    whole = described(seal_report(HERE, "w", window_of({"a": 0.6, "c": 0.1})))
    later = described(seal_report(HERE, "w", window_of({"a": 0.1})))
    _, part = whole.halves()
    old, merged = merge_reports([first, part, later])
    assert old == [first, later]
    assert len(merged) == 1
    old, merged = merge_reports([first, *whole.halves(), later])  # the control
    assert len(old) == 4
    assert [each["class_name"] for each in json.loads(merged[0].body)[RESULTS]] == [
        *("a", "b", "c")
    ]
