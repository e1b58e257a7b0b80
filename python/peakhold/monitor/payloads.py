"""The request bodies, checked: a report, metadata with several entries, and windows.

What comes out of here is safe to bind in SQLite, to sum, and to print as JSON: text
without lone surrogates, numbers that are finite. The bodies themselves are kept
elsewhere, byte for byte.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any, NoReturn

from peakhold.monitor.errors import InvalidRequestError

MAX_NAME = 4_096
"""Longest model id, class name, inference id or field name, in characters."""

MAX_VALUE = 65_536
"""Longest metadata value, in characters."""

MAX_CONFIDENCE = 1e100
"""Largest magnitude: sums of any number of rows then stay finite, hence valid JSON."""

WINDOWS_VERSION = 1
"""Version of the windows that are taken."""

CLOCK_TOLERANCE_US = 60_000_000
"""Microseconds by which a sender's clock may differ before it is not believed."""

HISTOGRAM_BINS = 20

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

_ENVELOPE = (
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
)
"""Text beside the results of a report. Checked where present and not null: senders may
leave out what identifies a machine."""


@dataclass(frozen=True)
class InferenceResult:
    """One row of a report: the peak of one class in one window."""

    model_id: str
    class_name: str
    confidence: float
    inference_id: str

    @property
    def project(self) -> str:
        """The model id without its version: `my_project` of `my_project/3`."""
        return self.model_id.partition("/")[0]


@dataclass(frozen=True)
class MetadataEntry:
    """One field and value, attached to some inferences."""

    inference_ids: tuple[str, ...]
    field_name: str
    field_value: str


@dataclass(frozen=True)
class ClassCounts:
    """How many detections of a class of a model one part has."""

    model_id: str
    class_name: str
    frames: int
    detections: int
    outside: int
    sum: int
    least: float | None
    histogram: tuple[int, ...]


@dataclass(frozen=True)
class WindowPart:
    """What one process counted in one window; of one part several pieces may come."""

    id: str
    piece: int
    is_partial: bool
    frames: int
    without: int
    rejected: dict[str, int]
    classes: tuple[ClassCounts, ...]


@dataclass(frozen=True)
class WindowMessage:
    """A closed window of a peakhold sink.

    Attributes:
        id: The same for every attempt to send it.
        at_us: When it ended, in microseconds since 1970 UTC.
        began_us: When it began; None if its process was killed.
        aggregator: Its ``unique_aggregator_key``.
        feed: The video feed that it is of; None for all feeds of a process.
        frequency: Seconds between reports; None if its process was killed.
        epoch: Number of the epoch, if several processes share the window.
        peaks: The peak of each class of each model.
        parts: What was counted.
    """

    id: str
    at_us: int
    began_us: int | None
    aggregator: str
    feed: str | None
    frequency: int | None
    epoch: int | None
    peaks: tuple[InferenceResult, ...]
    parts: tuple[WindowPart, ...]


def parse_report(body: bytes) -> tuple[InferenceResult, ...]:
    """Read the inference results of a report.

    Raises:
        InvalidRequestError: Not JSON, or not the shape of a report.
    """
    report = _json_object(body)
    for name in _ENVELOPE:
        if report.get(name) is not None:
            _text(report, name, name)
    rows = _list(report, "inference_results", "inference_results")
    return tuple(
        _inference_result(row, f"inference_results[{index}]")
        for index, row in enumerate(rows)
    )


def parse_metadata(body: bytes) -> tuple[MetadataEntry, ...]:
    """Read the entries of a metadata request.

    Raises:
        InvalidRequestError: Not JSON, or not the shape of a metadata request.
    """
    entries = _list(_json_object(body), "data", "data")
    if not entries:
        raise InvalidRequestError("must hold at least one entry", field="data")
    return tuple(
        _metadata_entry(entry, f"data[{index}]") for index, entry in enumerate(entries)
    )


def parse_windows(body: bytes, received_us: int) -> tuple[WindowMessage, ...]:
    """Read windows of peakhold sinks.

    Where the sender's clock and this one differ by more than a minute, a window ended
    as long before its receipt as the sender says that it is old.

    Args:
        body: The request's.
        received_us: When it was received, in microseconds since 1970 UTC.

    Raises:
        InvalidRequestError: Not JSON, or not the shape of windows.
    """
    message = _json_object(body)
    if _count(message, "version", "version") != WINDOWS_VERSION:
        raise InvalidRequestError(
            f"must be {WINDOWS_VERSION}; monitor and sender are of different versions "
            "of peakhold, upgrade the older one",
            field="version",
        )
    sent_us = _time(message, "sent_at", "sent_at")
    if sent_us is None:
        raise InvalidRequestError("must be a time", field="sent_at")
    shift = received_us - sent_us
    trusted = abs(shift) <= CLOCK_TOLERANCE_US
    return tuple(
        _window(_object(each, f"windows[{index}]"), index, 0 if trusted else shift)
        for index, each in enumerate(_list(message, "windows", "windows"))
    )


def _window(row: dict[str, Any], index: int, shift_us: int) -> WindowMessage:
    where = f"windows[{index}].window"
    window = _object(_member(row, "window", where), where)
    _real(row, "age", f"windows[{index}].age")
    ended = _time(window, "ended", f"{where}.ended")
    if ended is None:
        raise InvalidRequestError("must be a time", field=f"{where}.ended")
    began = _time(window, "began", f"{where}.began")
    frequency, epoch = (
        None if window.get(name) is None else _count(window, name, f"{where}.{name}")
        for name in ("frequency", "epoch")
    )
    feed = window.get("feed")
    if feed is not None:
        feed = _text(window, "feed", f"{where}.feed")
    _object(_member(window, "device", f"{where}.device"), f"{where}.device")
    peaks = _list(window, "peaks", f"{where}.peaks")
    parts = _list(window, "parts", f"{where}.parts")
    return WindowMessage(
        id=_text(row, "id", f"windows[{index}].id", required=True),
        at_us=ended + shift_us,
        began_us=None if began is None else began + shift_us,
        aggregator=_text(window, "aggregator", f"{where}.aggregator"),
        feed=feed,
        frequency=frequency,
        epoch=epoch,
        peaks=tuple(
            _inference_result(peak, f"{where}.peaks[{number}]")
            for number, peak in enumerate(peaks)
        ),
        parts=tuple(
            _part(_object(part, where), f"{where}.parts[{number}]")
            for number, part in enumerate(parts)
        ),
    )


def _part(part: dict[str, Any], where: str) -> WindowPart:
    classes = []
    models = _object(_member(part, "models", where), f"{where}.models")
    for model_id, of_model in models.items():
        for class_name, counts in _object(of_model, f"{where}.models").items():
            for name in (model_id, class_name):
                _checked_text(name, f"{where}.models", MAX_NAME, required=False)
            row = _object(counts, f"{where}.models")
            classes.append(_counts(model_id, class_name, row, where))
    rejected = _object(_member(part, "rejected", where), f"{where}.rejected")
    return WindowPart(
        id=_text(part, "id", f"{where}.id", required=True),
        piece=_count(part, "piece", f"{where}.piece"),
        is_partial=bool(part.get("is_partial")),
        frames=_count(part, "frames", f"{where}.frames"),
        without=_count(part, "without", f"{where}.without"),
        rejected={name: _count(rejected, name, where) for name in rejected},
        classes=tuple(classes),
    )


def _counts(
    model_id: str, class_name: str, counts: dict[str, Any], where: str
) -> ClassCounts:
    histogram = _list(counts, "histogram", f"{where}.histogram")
    if len(histogram) != HISTOGRAM_BINS:
        raise InvalidRequestError(
            f"must have {HISTOGRAM_BINS} bins", field=f"{where}.histogram"
        )
    least = counts.get("least")
    return ClassCounts(
        model_id=model_id,
        class_name=class_name,
        frames=_count(counts, "frames", f"{where}.frames"),
        detections=_count(counts, "detections", f"{where}.detections"),
        outside=_count(counts, "outside", f"{where}.outside"),
        sum=_count(counts, "sum", f"{where}.sum"),
        least=None if least is None else _real(counts, "least", f"{where}.least"),
        histogram=tuple(
            _count({"bin": bin_}, "bin", f"{where}.histogram") for bin_ in histogram
        ),
    )


def _time(parent: dict[str, Any], name: str, where: str) -> int | None:
    """Return a time in microseconds since 1970 UTC; None for none."""
    value = _member(parent, name, where)
    if value is None:
        return None
    text = _checked_text(value, where, MAX_NAME, required=True)
    try:
        at = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return (at - _EPOCH) // timedelta(microseconds=1)
    except (ValueError, TypeError, OverflowError) as error:  # or it has no offset
        raise InvalidRequestError(
            "must be a time in UTC like 2026-01-31T12:00:00.000000Z", field=where
        ) from error


def _count(parent: dict[str, Any], name: str, where: str) -> int:
    value = _member(parent, name, where)
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidRequestError("must be a whole number", field=where)
    if not 0 <= value < 2**64:
        raise InvalidRequestError("must be from 0 to 2^64 - 1", field=where)
    return min(value, 2**63 - 1)  # SQLite has no greater ones


def _inference_result(row: object, where: str) -> InferenceResult:
    row = _object(row, where)
    _text(row, "model_type", f"{where}.model_type")
    return InferenceResult(
        model_id=_text(row, "model_id", f"{where}.model_id"),
        class_name=_text(row, "class_name", f"{where}.class_name"),
        confidence=_confidence(row, f"{where}.confidence"),
        inference_id=_text(row, "inference_id", f"{where}.inference_id"),
    )


def _metadata_entry(entry: object, where: str) -> MetadataEntry:
    entry = _object(entry, where)
    ids = _list(entry, "inference_ids", f"{where}.inference_ids")
    if not ids:
        raise InvalidRequestError(
            "must hold at least one inference id", field=f"{where}.inference_ids"
        )
    return MetadataEntry(
        inference_ids=tuple(
            _checked_text(
                inference_id, f"{where}.inference_ids[{index}]", MAX_NAME, required=True
            )
            for index, inference_id in enumerate(ids)
        ),
        field_name=_text(entry, "field_name", f"{where}.field_name", required=True),
        field_value=_text(entry, "field_value", f"{where}.field_value", MAX_VALUE),
    )


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(
            body.decode("utf-8"), parse_constant=_refuse, parse_float=_finite
        )
    # RecursionError: a few kilobytes of "[" are enough to exhaust the parser.
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(
            "the body is not JSON: UTF-8, numbers finite, nesting moderate"
        ) from error
    if not isinstance(value, dict):
        raise InvalidRequestError("the body must be a JSON object")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


def _object(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidRequestError("must be an object", field=where)
    return value


def _list(parent: dict[str, Any], name: str, where: str) -> list[object]:
    value = _member(parent, name, where)
    if not isinstance(value, list):
        raise InvalidRequestError("must be a list", field=where)
    return value


def _text(
    parent: dict[str, Any],
    name: str,
    where: str,
    limit: int = MAX_NAME,
    *,
    required: bool = False,
) -> str:
    return _checked_text(_member(parent, name, where), where, limit, required=required)


def _checked_text(value: object, where: str, limit: int, *, required: bool) -> str:
    if not isinstance(value, str):
        raise InvalidRequestError("must be a string", field=where)
    if required and not value:
        raise InvalidRequestError("must not be empty", field=where)
    if len(value) > limit:
        raise InvalidRequestError(
            f"must have at most {limit:,} characters, it has {len(value):,}",
            field=where,
        )
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            "must not contain half of a surrogate pair", field=where
        ) from error
    return value


def _confidence(row: dict[str, Any], where: str) -> float:
    return _real(row, "confidence", where)


def _real(row: dict[str, Any], name: str, where: str) -> float:
    value = _member(row, name, where)
    # bool is an int to Python, not to JSON
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidRequestError("must be a number", field=where)
    if not -MAX_CONFIDENCE <= value <= MAX_CONFIDENCE:
        raise InvalidRequestError(
            f"must lie within {MAX_CONFIDENCE:g} of zero", field=where
        )
    return float(value)


def _member(parent: dict[str, Any], name: str, where: str) -> object:
    if name not in parent:
        raise InvalidRequestError("is missing", field=where)
    return parent[name]
