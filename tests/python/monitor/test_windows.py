"""Windows of peakhold's own sinks: stored once, added up, refused with a reason."""

from __future__ import annotations

import copy
import re
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

WINDOWS = "/local/windows?api_key=any"


def build_part(part_id="a" * 32, *, frames=10, detections=4, **more):
    histogram = [0] * 20
    histogram[10] = detections
    counts = {
        "frames": 3,
        "detections": detections,
        "outside": 0,
        "sum": detections * 2**31,
        "least": 0.5,
        "histogram": histogram,
    }
    return {
        "id": part_id,
        "piece": 0,
        "is_partial": False,
        "frames": frames,
        "without": 0,
        "rejected": {},
        "models": {"animals/3": {"cat": counts}},
        **more,
    }


def build_window(row, *parts, aggregator="gate", feed="camera 3", ended="12:00:00"):
    return {
        "aggregator": aggregator,
        "feed": feed,
        "began": "2026-03-14T11:59:55.000000Z",
        "ended": f"2026-03-14T{ended}.000000Z",
        "frequency": 5,
        "epoch": None,
        "device": {"device_id": None},
        "peaks": [row()],
        "parts": list(parts) or [build_part()],
    }


def message(*windows, ids=None, sent="2026-03-14T12:00:00.500000Z"):
    names = ids or [f"window-{at}" for at in range(len(windows))]
    return {
        "version": 1,
        "sent_at": sent,
        "windows": [
            {"id": name, "age": 0.5, "window": each}
            for name, each in zip(names, windows, strict=True)
        ],
    }


def only(monitor):
    (found,) = monitor.store.windows("local")
    return found


def test_windows_are_added_up(api, monitor, row, clock):
    second = build_window(row, build_part("b" * 32, detections=1), ended="12:00:05")
    answer = api.send("POST", WINDOWS, message(build_window(row), second))
    assert (answer.status, answer.json) == (200, {"status": "ok", "stored": True})
    found = only(monitor)
    assert (found.aggregator, found.feed, found.windows) == ("gate", "camera 3", 2)
    assert (found.frames, found.detections, found.average) == (20, 5, 0.5)
    assert not found.is_partial
    assert found.last_seen_us == int((clock() + 5) * 1e6)
    # The peaks count as those of reports do.
    assert api.counts() == 2
    page = api.dashboard().text
    assert "camera 3" in page
    assert "2 reports" in page


def test_what_comes_again_is_stored_once_however_it_is_grouped(api, monitor, row):
    windows = [build_window(row, build_part(f"{at:032x}")) for at in range(3)]
    api.send("POST", WINDOWS, message(*windows))
    for grouped in ([0, 1, 2], [1], [2, 0]):
        again = message(
            *(windows[at] for at in grouped), ids=[f"window-{at}" for at in grouped]
        )
        assert api.send("POST", WINDOWS, again).status == 200
    found = only(monitor)
    assert (found.windows, found.frames, found.detections) == (3, 30, 12)
    # The control: under another id it is another window.
    api.send("POST", WINDOWS, message(windows[0], ids=["another"]))
    assert only(monitor).windows == 4
    # But its part, of which it has the id, is added once.
    assert only(monitor).frames == 30


def piece(row, number, *names, frames=0, **more):
    part = build_part(piece=number, frames=frames, **more)
    (counts,) = part["models"]["animals/3"].values()
    part["models"]["animals/3"] = dict.fromkeys(names, counts)
    return build_window(row, part)


def test_pieces_of_a_part_are_added_once_however_it_is_divided(api, monitor, row):
    """As by a merge with another window, which begins its pieces elsewhere."""
    pieces = {
        "w.0-2": piece(row, 0, "a", "b", frames=10),
        "w.2-3": piece(row, 2, "c"),
        "v.0-1": piece(row, 0, "a", frames=10),
        "v.1-3": piece(row, 1, "b", "c"),
    }
    for names in (["w.0-2", "w.2-3"], ["v.1-3", "v.0-1"], ["w.2-3", "w.0-2"]):
        api.send("POST", WINDOWS, message(*map(pieces.get, names), ids=names))
        found = only(monitor)
        assert (found.frames, found.detections) == (10, 12)


@pytest.mark.parametrize("order", [["partial", "whole"], ["whole", "partial"]])
def test_a_part_that_is_whole_takes_the_place_of_one_that_is_not(
    api, monitor, row, order
):
    windows = {
        "partial": piece(row, 0, "a", frames=7, detections=3, is_partial=True),
        "whole": piece(row, 0, "a", "b", frames=10),
    }
    for name in order:
        api.send("POST", WINDOWS, message(windows[name], ids=[name]))
    found = only(monitor)
    assert (found.frames, found.detections, found.is_partial) == (10, 8, 0)


def test_feeds_and_aggregators_are_told_apart(api, monitor, row):
    named = [("gate", None), ("gate", "camera 3"), ("gate", "<b>"), ("yard", None)]
    windows = [
        build_window(row, build_part(f"{at:032x}"), aggregator=key, feed=feed)
        for at, (key, feed) in enumerate(named)
    ]
    api.send("POST", WINDOWS, message(*windows))
    found = monitor.store.windows("local")
    assert {(each.aggregator, each.feed) for each in found} == set(named)
    page = api.dashboard().text
    assert "<b>" not in page
    assert "&lt;b&gt;" in page


def test_a_part_that_is_not_whole_says_so(api, monitor, row):
    api.send("POST", WINDOWS, message(build_window(row, build_part(is_partial=True))))
    assert only(monitor).is_partial
    assert "at least 10" in api.dashboard().text


def test_a_window_of_which_nothing_was_counted_says_so(api, monitor, row):
    """As of a process that was killed in its first second."""
    api.send("POST", WINDOWS, message(build_window(row) | {"parts": []}))
    assert only(monitor).is_partial
    assert "at least 0" in api.dashboard().text


@pytest.mark.parametrize(("hours", "believed"), [(0, True), (0.01, True), (24, False)])
def test_a_sender_s_clock_is_believed_within_a_minute(
    api, monitor, row, clock, hours, believed
):
    """Else a window ended as long before its receipt as its sender says it is old."""
    ended = clock() * 1e6
    clock.advance(hours=hours)
    api.send("POST", WINDOWS, message(build_window(row)))
    expected = ended if believed else (clock() - 0.5) * 1e6
    assert only(monitor).last_seen_us == int(expected)


def test_an_empty_window_is_a_window(api, monitor, row):
    window = build_window(row, build_part(frames=7, models={})) | {"peaks": []}
    api.send("POST", WINDOWS, message(window))
    found = only(monitor)
    assert (found.windows, found.frames, found.detections) == (1, 7, 0)
    assert found.average is None


def _set(path, value):
    def change(body):
        *way, last = path
        for step in way:
            body = body[step]
        if value is KeyError:
            del body[last]
        else:
            body[last] = value

    return change


WINDOW = ("windows", 0, "window")
PART = (*WINDOW, "parts", 0)
COUNTS = (*PART, "models", "animals/3", "cat")
BAD = {
    "no version": (_set(("version",), KeyError), "version"),
    "a later version": (_set(("version",), 2), "version"),
    "no time of sending": (_set(("sent_at",), None), "sent_at"),
    "a local time": (_set(("sent_at",), "2026-03-14T12:00:00"), "sent_at"),
    "no time": (_set(("sent_at",), "noon"), "sent_at"),
    "no list": (_set(("windows",), {}), "windows"),
    "no id": (_set(("windows", 0, "id"), ""), "windows[0].id"),
    "no age": (_set(("windows", 0, "age"), "old"), "windows[0].age"),
    "no window": (_set(WINDOW, []), "windows[0].window"),
    "no end": (_set((*WINDOW, "ended"), None), "windows[0].window.ended"),
    "a feed of a number": (_set((*WINDOW, "feed"), 3), "windows[0].window.feed"),
    "an epoch of text": (_set((*WINDOW, "epoch"), "7"), "epoch"),
    "half a frequency": (_set((*WINDOW, "frequency"), 0.5), "frequency"),
    "no device": (_set((*WINDOW, "device"), KeyError), "device"),
    "a lone surrogate": (_set((*WINDOW, "aggregator"), "\ud800"), "aggregator"),
    "no peaks": (_set((*WINDOW, "peaks"), None), "peaks"),
    "a peak that is none": (_set((*WINDOW, "peaks", 0), {}), "peaks[0]"),
    "no part id": (_set((*PART, "id"), ""), "parts[0].id"),
    "frames below zero": (_set((*PART, "frames"), -1), "parts[0].frames"),
    "true frames": (_set((*PART, "frames"), True), "parts[0].frames"),
    "too many frames": (_set((*PART, "frames"), 2**64), "parts[0].frames"),
    "rejected rows of text": (_set((*PART, "rejected"), {"x": "1"}), "parts[0]"),
    "models in a list": (_set((*PART, "models"), []), "parts[0].models"),
    "a histogram of 19": (_set((*COUNTS, "histogram"), [0] * 19), "histogram"),
    "a bin of a half": (_set((*COUNTS, "histogram"), [0.5] * 20), "histogram"),
    "a sum of text": (_set((*COUNTS, "sum"), "1"), "sum"),
    "a least of text": (_set((*COUNTS, "least"), "1"), "least"),
}


@pytest.mark.parametrize(("change", "field"), BAD.values(), ids=BAD)
def test_what_is_not_a_window_is_refused_with_its_field(
    api, monitor, row, change, field
):
    body = message(build_window(row))
    change(body)
    answer = api.send("POST", WINDOWS, body)
    assert answer.status == 400
    assert field in answer.json["field"]
    assert monitor.store.windows("local") == []
    assert monitor.store.requests("windows") == []


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"null", b"\xff", b"[" * 50_000, b'{"version": NaN}']
)
def test_what_is_not_even_json_is_400(api, monitor, body):
    assert api.send("POST", WINDOWS, body).status == 400
    assert monitor.store.requests("windows") == []


def test_a_key_and_the_workspace_are_asked_for(api, row):
    body = message(build_window(row))
    assert api.send("POST", "/local/windows", body).status == 401
    assert api.send("POST", "/other/windows?api_key=any", body).status == 404


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda each: (
        st.lists(each, max_size=3) | st.dictionaries(st.text(), each, max_size=3)
    ),
    max_leaves=5,
)


@settings(
    max_examples=60,
    deadline=timedelta(seconds=5),
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data(), junk=JUNK)
def test_junk_anywhere_is_stored_or_refused_and_never_an_error(api, row, data, junk):
    body = message(copy.deepcopy(build_window(row)))
    here = body
    for _ in range(data.draw(st.integers(0, 6))):
        steps = list(here) if isinstance(here, dict) else range(len(here))
        step = data.draw(st.sampled_from(list(steps)))
        if not isinstance(here[step], (dict, list)) or not here[step]:
            here[step] = junk
            break
        here = here[step]
    assert api.send("POST", WINDOWS, body).status in {200, 400}


def test_the_example_of_the_docs_is_taken(api, monitor):
    docs = Path(__file__).parents[3] / "docs" / "monitor.md"
    (example,) = re.findall(r"```json\n(.*?)```", docs.read_text("utf-8"), re.DOTALL)
    answer = api.send("POST", WINDOWS, example.encode())
    assert answer.json == {"status": "ok", "stored": True}
    found = only(monitor)
    assert (found.feed, found.frames, found.detections) == ("camera 3", 75, 131)
