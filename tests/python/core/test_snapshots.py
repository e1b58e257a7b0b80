"""Closed windows merge in whatever order, and survive being written down."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from core_streams import streams
from hypothesis import given, settings
from hypothesis import strategies as st

from peakhold._peakhold import PeakAggregator, WindowSnapshot

NAMES = ["a", "b", "c", "犬"]
CONFIDENCES = [0.0, -0.0, 0.5, 0.9, -1.0]

row = st.tuples(
    st.sampled_from(NAMES), st.sampled_from(CONFIDENCES), st.sampled_from("ijk")
)
frames = st.lists(
    st.tuples(st.sampled_from(["m/1", "m/2"]), st.lists(row, min_size=1, max_size=4)),
    max_size=4,
)


def observe(window: PeakAggregator, make: Any, stream: list[Any]) -> PeakAggregator:
    for model, rows in stream:
        names, confidences, ids = map(list, zip(*rows, strict=True))
        column = np.array(confidences, dtype=np.float64)
        window.observe(make(names, column, ids, "type"), model)
    return window


def snapshot_of(make: Any, stream: list[Any]) -> WindowSnapshot:
    return observe(PeakAggregator(), make, stream).snapshot()


def exactly(snapshot: WindowSnapshot) -> str:
    """Return a report as text: order, every bit of the floats, the sign of zeros."""
    return repr(snapshot.report())


@pytest.fixture(params=["apart", "one after the other"], scope="session")
def snapshots_of(request: pytest.FixtureRequest, make_detections: Any) -> Any:
    """Turn streams into snapshots of windows that know, or do not know, each other."""

    def build(parts: list[Any]) -> list[WindowSnapshot]:
        if request.param == "apart":
            return [snapshot_of(make_detections, part) for part in parts]
        window = PeakAggregator()
        return [observe(window, make_detections, part).snapshot() for part in parts]

    return build


@given(parts=st.tuples(frames, frames))
@settings(settings.get_profile("core"), max_examples=60)
def test_merging_is_commutative(snapshots_of, parts):
    one, two = snapshots_of(parts)
    assert exactly(one.merge(two)) == exactly(two.merge(one))


@given(parts=st.tuples(frames, frames, frames))
@settings(settings.get_profile("core"), max_examples=60)
def test_merging_is_associative(snapshots_of, parts):
    one, two, three = snapshots_of(parts)
    left, right = one.merge(two).merge(three), one.merge(two.merge(three))
    assert exactly(left) == exactly(right)
    assert left.peaks == right.peaks


@given(parts=st.tuples(frames, frames))
@settings(settings.get_profile("core"), max_examples=60)
def test_merging_is_idempotent(snapshots_of, parts):
    one, two = snapshots_of(parts)
    both = one.merge(two)
    assert exactly(one.merge(one)) == exactly(one)
    assert exactly(both.merge(one)) == exactly(both.merge(two)) == exactly(both)


@given(parts=st.tuples(frames, frames))
@settings(settings.get_profile("core"), max_examples=60)
def test_merging_changes_neither_side(snapshots_of, parts):
    one, two = snapshots_of(parts)
    before = exactly(one), exactly(two)
    one.merge(two)
    assert (exactly(one), exactly(two)) == before


@given(parts=st.lists(frames, min_size=1, max_size=4))
@settings(settings.get_profile("core"), max_examples=60)
def test_the_windows_of_one_model_merge_to_the_window_of_the_whole(
    make_detections, parts
):
    parts = [[("m/1", rows) for _, rows in part] for part in parts]
    window = PeakAggregator()
    merged, *others = [
        observe(window, make_detections, part).snapshot() for part in parts
    ]
    for other in others:
        merged = other.merge(merged)
    whole = [frame for part in parts for frame in part]
    assert exactly(merged) == exactly(snapshot_of(make_detections, whole))


@given(parts=st.tuples(frames, frames))
@settings(settings.get_profile("core"), max_examples=60)
def test_a_merged_window_holds_every_class_at_its_highest(snapshots_of, parts):
    one, two = snapshots_of(parts)
    highest: dict[str, float] = {}
    for line in one.report() + two.report():
        name, confidence = line["class_name"], line["confidence"]
        highest[name] = max(highest.get(name, confidence), confidence)
    merged = one.merge(two).report()
    assert {line["class_name"]: line["confidence"] for line in merged} == highest
    assert len(merged) == len(highest)


def test_merging_brings_something_from_either_side(make_detections):
    """The control: the laws above would hold for a merge that returns nothing."""
    one = snapshot_of(make_detections, [("m", [("a", 0.5, "i"), ("b", 0.9, "i")])])
    two = snapshot_of(make_detections, [("m", [("b", 0.5, "j"), ("a", 0.9, "j")])])
    found = [
        (row["class_name"], row["inference_id"]) for row in one.merge(two).report()
    ]
    assert sorted(found) == [("a", "j"), ("b", "i")]


@pytest.fixture(scope="session")
def any_stream(make_detections: Any) -> Any:
    return streams(make_detections)


@given(data=st.data())
@settings(settings.get_profile("core"), max_examples=60)
def test_what_is_decoded_is_what_was_encoded(any_stream, data):
    window = PeakAggregator()
    for step in data.draw(any_stream):
        if step is not None:
            window.observe(*step)
    snapshot = window.snapshot()
    encoded = snapshot.encode()
    assert type(encoded) is bytes
    decoded = WindowSnapshot.decode(encoded)
    assert exactly(decoded) == exactly(snapshot)
    assert decoded.encode() == encoded
    assert decoded.peaks == snapshot.peaks
    assert exactly(decoded.merge(snapshot)) == exactly(snapshot)


def test_a_snapshot_is_the_report_and_empties_the_window(make_detections):
    window, twin = PeakAggregator(), PeakAggregator()
    for each in (window, twin):
        each.observe(make_detections(["a", "b", "a"], [0.5, 0.9, 0.7], "id", "t"), "m")
    assert window.peaks == 2
    snapshot = window.snapshot()
    assert snapshot.peaks == 2
    assert snapshot.report() == snapshot.report() == twin.drain()
    assert window.peaks == 0
    assert window.drain() == []
    assert window.snapshot().report() == []


def test_peaks_count_classes_of_each_model(make_detections):
    window = PeakAggregator()
    assert window.peaks == 0
    window.observe(make_detections(["a", "b"], [0.5, 0.5]), "m/1")
    window.observe(make_detections(["a", "a"], [0.5, 0.9]), "m/2")
    assert window.peaks == 3
    assert len(window.drain()) == 2


@pytest.fixture(scope="module")
def encoded(make_detections: Any) -> bytes:
    window = PeakAggregator()
    for model in ("project/3", "проект/4"):
        names, ids = ["car", "犬", ""], ["id-1", "id-2", "id-3"]
        window.observe(make_detections(names, [0.9, 0.5, 0.1], ids, "type"), model)
    found: bytes = window.snapshot().encode()
    return found


def assert_refused_or_whole(damaged: bytes) -> bool:
    """Decode; what is not refused must be a snapshot in every respect."""
    try:
        snapshot = WindowSnapshot.decode(damaged)
    except ValueError:
        return True
    report = snapshot.report()
    assert all(np.isfinite(line["confidence"]) for line in report)
    assert repr(WindowSnapshot.decode(snapshot.encode()).report()) == repr(report)
    snapshot.merge(snapshot)
    return False


def test_whole_bytes_are_not_refused(encoded):
    """The control of the tests below."""
    assert not assert_refused_or_whole(encoded)


def test_bytes_cut_off_anywhere_raise_value_error(encoded):
    for length in range(len(encoded)):
        with pytest.raises(ValueError, match=r"\w"):
            WindowSnapshot.decode(encoded[:length])


def test_bytes_that_go_on_raise_value_error(encoded):
    for more in (b"\0", b"\xff", encoded):
        with pytest.raises(ValueError, match=r"\w"):
            WindowSnapshot.decode(encoded + more)


def test_a_flipped_byte_never_does_harm(encoded):
    refused = 0
    for place in range(len(encoded)):
        for mask in (0x01, 0x80, 0xFF, *(1 << bit for bit in range(1, 7))):
            damaged = bytearray(encoded)
            damaged[place] ^= mask
            refused += assert_refused_or_whole(bytes(damaged))
    assert refused > len(encoded)


@given(garbage=st.binary(max_size=200), keep=st.integers(0, 40))
@settings(settings.get_profile("core"), max_examples=300)
def test_garbage_never_does_harm(encoded, garbage, keep):
    assert_refused_or_whole(garbage)
    assert_refused_or_whole(encoded[:keep] + garbage)


def test_lengths_beyond_the_bytes_are_refused_at_once(encoded):
    for place in range(1, len(encoded)):
        huge = encoded[:place] + b"\xff" * 9 + b"\x01" + encoded[place:]
        assert_refused_or_whole(huge)


@pytest.mark.parametrize("other", [None, "text", 5, [1], np.zeros(3)], ids=repr)
def test_what_is_not_bytes_raises_type_error(other):
    with pytest.raises(TypeError):
        WindowSnapshot.decode(other)


@pytest.mark.parametrize("other", [None, b"", []], ids=repr)
def test_only_a_snapshot_can_be_merged(encoded, other):
    with pytest.raises(TypeError):
        WindowSnapshot.decode(encoded).merge(other)
