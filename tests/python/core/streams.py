"""Hypothesis strategies: streams of frames, ordinary and hostile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from core_columns import LAYOUTS, Column, foreign, lay_out, objects
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable

NAMES = ["car", "cat", "person", "Käfer", "犬", "🦊 fox", "a", "", "ca", "x" * 1024]
BAD_NAMES: list[Any] = ["\ud800", "x" * 1025, None, 7, 1.5, b"\xff\xfe", ["car"]]
BAD_BYTES = [b"\xff", b"caf\xc3", b"\xed\xa0\x80"]

# Few distinct values, so that ties (0.0 against -0.0 among them) are common.
TIES = [0.0, -0.0, 0.25, 0.5, 0.5, 0.75, 0.9, 1.0, -1.0]
NOT_FINITE = [float("nan"), float("inf"), float("-inf")]
BAD_NUMBERS: list[Any] = [None, object(), 10**400, 1j, {}, *NOT_FINITE]
INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]


def _numbers(width: int) -> st.SearchStrategy[float]:
    anything: Any = st.floats(width=width)  # type: ignore[call-overload]
    return st.one_of(
        st.sampled_from(TIES),
        st.sampled_from(TIES),
        st.sampled_from(NOT_FINITE),
        anything,
    )


def _rows(cell: st.SearchStrategy[Any], count: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(cell, min_size=count, max_size=count)


@st.composite
def _placed(draw: st.DrawFn, column: Column) -> Column:
    """Give a column a memory layout and a byte order."""
    column = foreign(column) if draw(st.booleans()) else column
    return lay_out(column, draw(st.sampled_from(LAYOUTS)))


@st.composite
def confidences(draw: st.DrawFn, count: int) -> Any:
    """Draw a confidence column of any kind that can be attached to detections."""
    kind = draw(st.sampled_from(["none", "float", "integer", "bool", "object", "list"]))
    if kind == "none":
        return None
    if kind == "float":
        width = draw(st.sampled_from([16, 32, 64]))
        values = draw(_rows(_numbers(width), count))
        return draw(_placed(np.array(values, dtype=f"f{width // 8}")))
    if kind == "integer":
        dtype = np.dtype(draw(st.sampled_from(INTEGERS)))
        info = np.iinfo(dtype)
        whole = st.one_of(st.integers(0, 3), st.integers(int(info.min), int(info.max)))
        return draw(_placed(np.array(draw(_rows(whole, count)), dtype=dtype)))
    if kind == "bool":
        return draw(_placed(np.array(draw(_rows(st.booleans(), count)), dtype=bool)))
    cell: st.SearchStrategy[Any] = st.one_of(
        _numbers(64),
        st.integers(-1, 1 << 64),
        st.booleans(),
        st.sampled_from([np.float16(0.5), np.float32(0.9), np.int8(1), np.True_]),
        st.sampled_from(BAD_NUMBERS),
    )
    values = draw(_rows(cell, count))
    if kind == "list":
        return values
    return objects(values)


@st.composite
def texts(
    draw: st.DrawFn, count: int, pool: list[str], bad: list[Any], bad_bytes: list[bytes]
) -> Any:
    """Draw a text column from `pool`, now and then a cell that is no text; or none."""
    kind = draw(st.sampled_from(["missing", "U", "U", "U", "S", "object", "list"]))
    if kind == "missing":
        return None
    good = st.one_of(
        st.sampled_from(pool), st.sampled_from(pool), st.text(max_size=3).map(_unpadded)
    )
    if kind == "S":
        encoded = st.one_of(
            good.map(str.encode), good.map(str.encode), st.sampled_from(bad_bytes)
        )
        values: list[Any] = draw(_rows(encoded, count))
        width = max((len(value) for value in values), default=0)
        width += draw(st.integers(0, 7))
        return draw(_placed(np.array(values, dtype=f"S{width or 1}")))
    if kind == "U":
        lone = [value for value in bad if isinstance(value, str)] or pool
        values = draw(_rows(st.one_of(good, good, st.sampled_from(lone)), count))
        width = max((len(value) for value in values), default=0)
        width += draw(st.integers(0, 7))
        return draw(_placed(np.array(values, dtype=f"U{width or 1}")))
    mixed = st.one_of(
        good, good, good.map(str.encode), good.map(np.str_), st.sampled_from(bad)
    )
    values = draw(_rows(mixed, count))
    return values if kind == "list" else objects(values)


def _unpadded(value: str) -> str:
    # Whether a NUL at the end of a str object is padding is not for this model to say.
    return value.rstrip("\0")


IDS = ["id-1", "id-2", "0b9a3c1e-6b1d-4a9e-8f0a-1c2d3e4f5a6b", "ключ"]
KINDS = ["object-detection", "classification", "instance-segmentation"]
BAD_IDS: list[Any] = ["\udc80", None, 3, b"\xff"]


@st.composite
def detections(draw: st.DrawFn, make: Callable[..., Any]) -> Any:
    """Draw an `sv.Detections` whose columns are all as long as its boxes."""
    count = draw(st.integers(0, 6))
    frame = make(
        count=count,
        data={
            key: column
            for key, column in (
                ("class_name", draw(texts(count, NAMES, BAD_NAMES, BAD_BYTES))),
                ("inference_id", draw(texts(count, IDS, BAD_IDS, BAD_BYTES))),
                ("prediction_type", draw(texts(count, KINDS, BAD_IDS, BAD_BYTES))),
            )
            if column is not None
        },
    )
    frame.confidence = draw(confidences(count))  # as it is: the factory converts lists
    return frame


@st.composite
def responses(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a classification response, single-label (list) or multi-label (dict)."""
    numeric = st.sampled_from(["0.5", "1", "1e-3", "-2.5", "nan", "inf", "many", ""])
    confidence = st.one_of(_numbers(64), numeric, st.sampled_from(BAD_NUMBERS))
    details = st.one_of(st.just({}), st.builds(lambda c: {"confidence": c}, confidence))
    names: st.SearchStrategy[Any] = st.sampled_from([*NAMES, "\ud800", None, 7])
    response: dict[str, Any] = draw(
        st.one_of(
            st.just({}),
            st.builds(lambda i: {"inference_id": i}, st.sampled_from([*IDS, None])),
        )
    )
    if draw(st.booleans()):
        response["prediction_type"] = draw(st.sampled_from(KINDS))
    form = draw(st.sampled_from(["single", "multi", "neither", "absent"]))
    if form == "single":
        named = st.one_of(st.just({}), st.builds(lambda n: {"class": n}, names))
        items = draw(st.lists(st.tuples(named, details), max_size=4))
        response["predictions"] = [{**name, **rest} for name, rest in items]
    elif form == "multi":
        response["predictions"] = draw(st.dictionaries(names, details, max_size=4))
    elif form == "neither":
        response["predictions"] = draw(st.sampled_from([None, 3, "car"]))
    return response


def streams(make: Callable[..., Any]) -> st.SearchStrategy[list[Any]]:
    """Streams of `(predictions, model id)`, and None where the window is drained."""
    models = st.sampled_from(["m/1", "пример/2"])
    predictions = st.one_of(
        detections(make),
        detections(make),
        detections(make),
        responses(),
        st.sampled_from([None, {}, 5, "car", [1, 2], {"predictions": []}]),
    )
    frames = st.tuples(predictions, models)
    return st.lists(
        st.one_of(frames, frames, frames, frames, st.none()), min_size=1, max_size=8
    )
