"""NumPy columns in the layouts that slicing, files and other languages leave behind."""

from __future__ import annotations

from typing import Any

import numpy as np

Column = np.ndarray[Any, np.dtype[Any]]

LAYOUTS = ("contiguous", "every other", "every third", "reversed", "field", "packed")

# Fills the gaps of a strided column: no code point, no finite float, so that reading
# a wrong cell cannot pass unnoticed.
JUNK = b"\xff"


def _junk(count: int, dtype: np.dtype[Any]) -> Column:
    return np.frombuffer(bytearray(JUNK * (count * dtype.itemsize)), dtype=dtype)


def lay_out(column: Column, layout: str) -> Column:
    """Return the values of `column` (shape `(n,)`) in another memory layout.

    Args:
        column: Any fixed-size dtype; object columns come back unchanged.
        layout: One of `LAYOUTS`. "field" is a view of a padded structured array,
            "packed" one whose rows start at odd addresses.
    """
    dtype, count = column.dtype, len(column)
    if dtype.hasobject or dtype.itemsize == 0 or layout == "contiguous":
        return column
    if layout == "reversed":
        return column[::-1].copy()[::-1]
    if layout in ("every other", "every third"):
        step = 2 if layout == "every other" else 3
        view = _junk(count * step, dtype)[::step]
    else:
        before = "V4" if layout == "field" else "V1"
        row = np.dtype([("before", before), ("value", dtype), ("after", "V2")])
        view = _junk(count, row)["value"]
    view[:] = column
    return view


def misaligned_by_two(column: Column) -> Column:
    """Return `column` as a field that starts two bytes into each row."""
    row = np.dtype([("before", "V2"), ("value", column.dtype)])
    view = _junk(len(column), row)["value"]
    view[:] = column
    return view


def foreign(column: Column) -> Column:
    """Return `column` in the byte order this machine does not have."""
    return column.astype(column.dtype.newbyteorder("S"))


def objects(values: list[Any]) -> Column:
    """Return an object column; unlike `np.array`, it takes lists as items."""
    column = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):
        column[place] = value
    return column


def text_column_of_code_points(rows: list[list[int]]) -> Column:
    """Return a `U` column holding code points as they are, the impossible included."""
    width = max(map(len, rows))
    padded = [row + [0] * (width - len(row)) for row in rows]
    return np.array(padded, dtype=np.uint32).view(f"U{width}").reshape(len(rows))
