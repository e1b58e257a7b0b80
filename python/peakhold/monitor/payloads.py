"""The two request bodies, checked: a report, and metadata with several entries.

What comes out of here is safe to bind in SQLite, to sum, and to print as JSON: text
without lone surrogates, numbers that are finite. The bodies themselves are kept
elsewhere, byte for byte.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, NoReturn

from peakhold.monitor.errors import InvalidRequestError

MAX_NAME = 4_096
"""Longest model id, class name, inference id or field name, in characters."""

MAX_VALUE = 65_536
"""Longest metadata value, in characters."""

MAX_CONFIDENCE = 1e100
"""Largest magnitude: sums of any number of rows then stay finite, hence valid JSON."""

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
    value = _member(row, "confidence", where)
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
