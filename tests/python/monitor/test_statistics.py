"""The statistics call: periods, their twins, filters, and what is unknown."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest

from peakhold.monitor import Store
from peakhold.monitor.overview import read_overview
from peakhold.monitor.statistics import Period, read_statistics

HOUR = timedelta(hours=1)


def test_nothing_received_averages_to_null(api, clock):
    answer = api.statistics(clock.now - HOUR, clock.now)
    assert answer.status == 200
    assert answer.json == {
        "num_inferences": 0,
        "prev_num_inferences": 0,
        "num_errors": None,
        "prev_num_errors": None,
        "avg_confidence": None,
        "prev_avg_confidence": None,
        "avg_response_time": None,
        "prev_avg_response_time": None,
        "inference_stats": [],
    }


def test_results_are_summed_by_project_and_class(api, clock, report, row):
    api.report(
        report(
            row("cat", 0.25, model_id="animals/3"),
            row("dog", 1.0, model_id="animals/3"),
            row("cat", 0.5, model_id="street/1"),
        )
    )
    api.report(report(row("cat", 0.75, model_id="animals/4")))
    answer = api.statistics(clock.now - HOUR, clock.now + HOUR).json
    assert answer["num_inferences"] == 4
    assert answer["avg_confidence"] == pytest.approx(2.5 / 4)
    unknown = {"num_errors": None, "avg_response_time": None}
    assert answer["inference_stats"] == [
        {
            "model_name": "animals",
            "predicted_class": "cat",
            "num_inferences": 2,
            "avg_confidence": 0.5,
            "max_confidence": 0.75,
            **unknown,
        },
        {
            "model_name": "animals",
            "predicted_class": "dog",
            "num_inferences": 1,
            "avg_confidence": 1.0,
            "max_confidence": 1.0,
            **unknown,
        },
        {
            "model_name": "street",
            "predicted_class": "cat",
            "num_inferences": 1,
            "avg_confidence": 0.5,
            "max_confidence": 0.5,
            **unknown,
        },
    ]


def test_the_prev_twins_describe_the_period_before(api, clock, report, row):
    noon = clock.now
    for minutes, confidence in [(-90, 0.1), (-30, 0.2), (-20, 0.4), (30, 0.8)]:
        clock.now = noon + timedelta(minutes=minutes)
        api.report(report(row(confidence=confidence)))
    answer = api.statistics(noon, noon + HOUR).json
    assert answer["num_inferences"] == 1
    assert answer["avg_confidence"] == pytest.approx(0.8)
    assert answer["prev_num_inferences"] == 2
    assert answer["prev_avg_confidence"] == pytest.approx(0.3)
    # Control: a longer period has a longer twin.
    longer = api.statistics(noon, noon + 2 * HOUR).json
    assert longer["prev_num_inferences"] == 3


def test_a_period_holds_its_start_and_not_its_end(api, clock, report, row):
    api.report(report(row()))
    at = clock.now
    assert api.statistics(at, at + HOUR).json["num_inferences"] == 1
    before = api.statistics(at - HOUR, at).json
    assert (before["num_inferences"], before["prev_num_inferences"]) == (0, 0)
    # On the seam of the two periods it is in exactly one of them.
    after = api.statistics(at + HOUR, at + 2 * HOUR).json
    assert (after["num_inferences"], after["prev_num_inferences"]) == (0, 1)


FILTERS = {
    "": 4,
    "animals": 3,
    "animals/3": 2,
    "animals/4": 1,
    "street": 1,
    "animals/3,street": 3,
    "animals,animals/3": 3,
    "animal": 0,
    "animals/": 0,
    "ANIMALS": 0,
    "%": 0,
    ",animals/4,": 1,
}


def test_the_filter_takes_projects_and_whole_model_ids(api, clock, report, row):
    for model_id in ("animals/3", "animals/3", "animals/4", "street"):
        api.report(report(row(model_id=model_id)))
    start, end = clock.now - HOUR, clock.now + HOUR
    found = {
        models: api.statistics(start, end, models).json["num_inferences"]
        for models in FILTERS
    }
    twins = {
        models: api.statistics(end, end + 2 * HOUR, models).json["prev_num_inferences"]
        for models in FILTERS
    }
    assert found == FILTERS
    assert twins == FILTERS


@pytest.mark.parametrize(
    ("start", "end", "field"),
    [
        (None, "2026-01-02 00:00:00", "startTime"),
        ("2026-01-01 00:00:00", None, "endTime"),
        ("", "2026-01-02 00:00:00", "startTime"),
        ("2026-01-01T00:00:00", "2026-01-02 00:00:00", "startTime"),
        ("2026-1-1 0:0:0", "2026-01-02 00:00:00", "startTime"),
        ("2026-02-30 00:00:00", "2026-03-02 00:00:00", "startTime"),
        ("2026-01-01 24:00:00", "2026-01-02 00:00:00", "startTime"),
        ("0000-01-01 00:00:00", "2026-01-02 00:00:00", "startTime"),
        ("2026-01-01 00:00:00", "2026-01-02 00:00:60", "endTime"),
        ("2026-01-01 00:00:00", "2026-01-02 00:00:00+01:00", "endTime"),
        ("2026-01-01 00:00:00", "2026-01-02 00:00:00\n", "endTime"),
        ("2026-01-01 00:00:00", "٢٠٢٦-01-02 00:00:00", "endTime"),
        ("2026-01-01 00:00:00", "2026-01-01 00:00:00", "startTime"),
        ("2026-01-02 00:00:00", "2026-01-01 00:00:00", "startTime"),
    ],
)
def test_times_that_are_no_period_are_refused(refusing_api, start, end, field):
    query = {"api_key": "k", "startTime": start, "endTime": end}
    given = {name: value for name, value in query.items() if value is not None}
    answer = refusing_api.send("GET", f"/local/inference-stats?{urlencode(given)}")
    assert answer.status == 400
    assert answer.json["field"] == field


def test_the_documented_statistics_call_is_answered(api):
    page = Path(__file__).resolve().parents[3] / "docs" / "monitor.md"
    text = page.read_text(encoding="utf-8")
    (url,) = re.findall(r'^curl "(.*)"$', text, re.MULTILINE)
    _, path, query = url.partition("/local/inference-stats?")
    answer = api.send("GET", path + query)
    assert (answer.status, answer.json["num_inferences"]) == (200, 0)
    for name in ("startTime", "endTime"):  # the control: without it there is no answer
        assert f"`{name}`" in text
        left = re.sub(f"&{name}=[^&]*", "", query)
        assert api.send("GET", path + left).json["field"] == name


def test_the_whole_calendar_is_a_period(api, clock, report, row):
    api.report(report(row()))
    everything = (clock.now.replace(year=1), clock.now.replace(year=9999))
    start, end = (f"{moment:%m-%d %H:%M:%S}" for moment in everything)
    query = {"api_key": "k", "startTime": f"0001-{start}", "endTime": f"9999-{end}"}
    answer = api.send("GET", f"/local/inference-stats?{urlencode(query)}")
    assert answer.status == 200
    assert answer.json["num_inferences"] == 1


def test_a_filter_has_at_most_100_names(api, clock):
    period = (clock.now - HOUR, clock.now)
    assert api.statistics(*period, ",".join(["m"] * 100)).status == 200
    answer = api.statistics(*period, ",".join(["m"] * 101))
    assert answer.status == 400
    assert answer.json["field"] == "modelNames"


def test_sums_of_the_largest_confidences_stay_json(api, clock, report, row):
    api.report(report(*[row(confidence=1e100)] * 20, row(confidence=-1e100)))
    answer = api.statistics(clock.now - HOUR, clock.now + HOUR)
    assert answer.status == 200
    assert answer.json["avg_confidence"] == pytest.approx(19 / 21 * 1e100)


def test_the_period_before_is_as_long_and_adjacent():
    assert Period(10, 15).previous == Period(5, 10)


def plans_of(store, read):
    """The query plan of every statement that `read` executes."""
    with store._reading() as connection:
        statements = []
        connection.set_trace_callback(statements.append)
        read(connection)
        connection.set_trace_callback(None)
        return [
            [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {statement}")]
            for statement in statements
        ]


def test_sums_walk_a_covering_index_and_sort_nothing(data_file):
    store = Store(data_file)
    try:
        plans = plans_of(
            store,
            lambda connection: read_statistics(
                connection, "local", Period(0, 1), ["animals"]
            ),
        )
        overview = plans_of(
            store, lambda connection: read_overview(connection, "local")
        )
        # Control: without the index's first column there is something to sort.
        sorting = plans_of(
            store,
            lambda connection: connection.execute(
                "SELECT COUNT(*) FROM results GROUP BY confidence"
            ),
        )
    finally:
        store.close()
    assert "USE TEMP B-TREE FOR GROUP BY" in str(sorting)
    sums = [plan for plan in [*plans, *overview] if "results_by_series" in str(plan)]
    assert len(plans) == 2
    assert len(sums) == 3
    for plan in sums:
        assert "SEARCH r USING COVERING INDEX results_by_series" in str(plan)
        assert "TEMP B-TREE" not in str(plan)
    assert not any("SCAN r" in step for plan in overview for step in plan)
