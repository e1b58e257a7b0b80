"""From sealed content to Roboflow request bodies, and from one body to several.

Bodies are ASCII JSON without blanks, so every string encodes, lone surrogates
included. Nothing here holds the GIL for long: a window of 100,000 classes is encoded
result by result.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from peakhold.delivery.metadata import packed
from peakhold.delivery.record import MetadataEntry, Record, ReportContent
from peakhold.errors import PeakholdError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

REPORT_BODY_LIMIT = 512 * 1024
"""Bytes of a request body; what is larger goes as several requests."""

_SOURCE = "workflow"
_SOURCE_INFO = "ModelMonitoringInferenceAggregatorBlockV1"
_RESULTS = "inference_results"


class UnencodableError(PeakholdError):
    """A record holds what no JSON can say; no later attempt would do better."""


def encode(record: Record, facts: Mapping[str, object]) -> list[Record]:
    """Return the record with its body made, as several records where it is too long.

    Args:
        record: A record that has its content.
        facts: Device id, server version and system information for reports.

    Raises:
        UnencodableError: If there is a number that JSON does not have.
    """
    if isinstance(record.content, ReportContent):
        head = {
            "timestamp": record.content.sealed_at,
            "source": _SOURCE,
            "source_info": _SOURCE_INFO,
            **facts,
        }
        results = record.content.snapshot.report()
        bodies = list(_report_bodies(head, results))
    else:
        bodies = [_metadata_body(part) for part in packed(record.content or ())]
    return _with_bodies(record, bodies)


def split(record: Record) -> list[Record]:
    """Return two records for the halves of an encoded one; none if it has one item."""
    if record.kind == "report":
        results = json.loads(record.body or b"{}")[_RESULTS]
        return _split_report(record, len(results) // 2)
    ids = sum(len(entry.inference_ids) for entry in metadata_entries(record))
    return _split_metadata(record, ids // 2)


def split_after_entry(record: Record, count: int) -> list[Record]:
    """Return one record for the first ``count`` entries and one for the others."""
    entries = metadata_entries(record)
    ids = sum(len(entry.inference_ids) for entry in entries[:count])
    return _split_metadata(record, ids)


def metadata_entries(record: Record) -> tuple[MetadataEntry, ...]:
    """Return the entries of an encoded metadata record."""
    data = json.loads(record.body or b"{}")["data"]
    return tuple(
        MetadataEntry(
            tuple(entry["inference_ids"]), entry["field_name"], entry["field_value"]
        )
        for entry in data
    )


def _split_report(record: Record, at: int) -> list[Record]:
    if at == 0:
        return []
    head = json.loads(record.body or b"{}")
    results = head.pop(_RESULTS)
    halves = (results[:at], results[at:])
    bodies = [body for half in halves for body in _report_bodies(head, half)]
    return _with_bodies(record, bodies)


def _split_metadata(record: Record, at: int) -> list[Record]:
    if at == 0:
        return []
    first: list[MetadataEntry] = []
    second: list[MetadataEntry] = []
    for entry in metadata_entries(record):
        cut = max(0, min(at, len(entry.inference_ids)))
        at -= cut
        for part, ids in (
            (first, entry.inference_ids[:cut]),
            (second, entry.inference_ids[cut:]),
        ):
            if ids:
                part.append(replace(entry, inference_ids=ids))
    return _with_bodies(record, [_metadata_body(part) for part in (first, second)])


def _with_bodies(record: Record, bodies: list[bytes]) -> list[Record]:
    """Freeze bodies; several get ids of their own, for an id names one body only."""
    last = len(bodies) - 1
    return [
        replace(
            record,
            id=uuid4().hex if last else record.id,
            content=None,
            body=body,
            size=len(body),
            on_first_success=record.on_first_success if at == last else None,
        )
        for at, body in enumerate(bodies)
    ]


def _report_bodies(
    head: Mapping[str, object], results: Iterable[object]
) -> Iterator[bytes]:
    opening = _dumps(head)[:-1] + b',"' + _RESULTS.encode() + b'":['
    room = REPORT_BODY_LIMIT - len(opening) - len(b"]}")
    for chunk in _packed((_dumps(result) for result in results), room):
        yield opening + b",".join(chunk) + b"]}"


def _packed(items: Iterable[bytes], room: int) -> Iterator[list[bytes]]:
    """Yield items in runs that fit when joined; at least one, possibly empty, run."""
    chunk: list[bytes] = []
    used = 0
    for item in items:
        if chunk and used + len(item) + 1 > room:
            yield chunk
            chunk, used = [], 0
        chunk.append(item)
        used += len(item) + 1
    yield chunk


def _metadata_body(entries: Iterable[MetadataEntry]) -> bytes:
    return _dumps(
        {
            "data": [
                {
                    "inference_ids": entry.inference_ids,
                    "field_name": entry.field_name,
                    "field_value": entry.field_value,
                }
                for entry in entries
            ]
        }
    )


def _dumps(value: Any) -> bytes:
    # An injected client may describe its system with objects that are not JSON.
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False, default=str)
    except ValueError as error:
        raise UnencodableError(str(error)) from error
    return text.encode("ascii")
