"""From sealed content to Roboflow request bodies, and from one body to several.

Bodies are JSON without blanks in UTF-8; what Python's strings can hold beyond that,
lone surrogates, is escaped. The interpreter is not held for long: the results of a
report are written by the extension, without it.
"""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

from peakhold.errors import PeakholdError
from peakhold.records.metadata import packed
from peakhold.records.record import (
    MetadataEntry,
    Record,
    ReportContent,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

REPORT_BODY_LIMIT = 512 * 1024
"""Bytes of a request body; what is larger goes as several requests."""

_SOURCE = "workflow"
_SOURCE_INFO = "ModelMonitoringInferenceAggregatorBlockV1"
_RESULTS = "inference_results"


class UnencodableError(PeakholdError):
    """A record holds what no JSON can say; no later attempt would do better."""


def encode(
    record: Record, facts: Mapping[str, object], *, entries_apart: bool = False
) -> list[Record]:
    """Return the record with its body made, as several records where it is too long.

    Args:
        record: A record that has its content.
        facts: Device id, server version and system information for reports.
        entries_apart: Whether every metadata entry is to be a record of its own.

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
        opening, room = _opening(head)
        runs = record.content.snapshot.report_json(room)
        bodies = [opening + run + b"]}" for run in runs]
        window = repr(record.content.window).encode("utf-8", "surrogatepass")
        record = replace(record, merge_key=sha256(window).hexdigest()[:16])
    else:
        entries = record.content or ()
        groups = [(entry,) for entry in entries] if entries_apart else packed(entries)
        bodies = [_metadata_body(group) for group in groups]
    return _with_bodies(record, bodies)


def split(
    record: Record, *, after_entry: Literal["first", "middle"] | None = None
) -> list[Record]:
    """Return two or more records for an encoded one, or none if it cannot be split.

    Args:
        record: The record.
        after_entry: Which entry of metadata is to be the last one of the first record,
            so that all are left whole; None for half of what it holds.
    """
    head = json.loads(record.body or b"{}")
    if record.kind == "report":
        results = head.pop(_RESULTS)
        at = len(results) // 2
        halves = (results[:at], results[at:])
        bodies = [body for half in halves for body in _report_bodies(head, half)]
    else:
        entries = metadata_entries(record)
        if after_entry == "first":
            at = 1 if len(entries) > 1 else 0
        elif after_entry == "middle":
            at = len(entries) // 2
        else:
            entries = tuple(
                replace(entry, inference_ids=(inference_id,))
                for entry in entries
                for inference_id in entry.inference_ids
            )
            at = len(entries) // 2
        parts = (*packed(entries[:at]), *packed(entries[at:]))
        bodies = [_metadata_body(part) for part in parts]
    return _with_bodies(record, bodies) if at else []


def merge_reports(records: Sequence[Record]) -> list[Record]:
    """Return as few records as hold the reports of some, the oldest of them first.

    Of each class the highest confidence stays, and the oldest of equal ones.
    """
    heads = [json.loads(record.body or b"{}") for record in records]
    best: dict[str, dict[str, Any]] = {}
    for head in heads:
        for result in head.pop(_RESULTS):
            known = best.setdefault(result["class_name"], result)
            if result["confidence"] > known["confidence"]:
                known.update(result)
    bodies = list(_report_bodies(heads[-1], best.values()))
    seals = sum(record.seals for record in records)
    whole = replace(records[-1], seals=seals - len(bodies) + 1)
    return _with_bodies(whole, bodies)


def metadata_entries(record: Record) -> tuple[MetadataEntry, ...]:
    """Return the entries of an encoded metadata record."""
    data = json.loads(record.body or b"{}")["data"]
    return tuple(
        MetadataEntry(
            tuple(entry["inference_ids"]), entry["field_name"], entry["field_value"]
        )
        for entry in data
    )


def _with_bodies(record: Record, bodies: list[bytes]) -> list[Record]:
    """Freeze bodies under ids of their own, for an id names one body only.

    Those of content follow from its record's id: who seals it again after a crash
    cannot have it twice.
    """
    last = len(bodies) - 1
    return [
        replace(
            record,
            id=uuid4().hex if record.body else f"{record.id}.{at}" if at else record.id,
            content=None,
            body=body,
            size=len(body),
            seals=1 if at else record.seals,
            on_committed=record.on_committed if at == last else None,
        )
        for at, body in enumerate(bodies)
    ]


def _report_bodies(
    head: Mapping[str, object], results: Iterable[object]
) -> Iterator[bytes]:
    opening, room = _opening(head)
    for chunk in _packed((_dumps(result) for result in results), room):
        yield opening + b",".join(chunk) + b"]}"


def _opening(head: Mapping[str, object]) -> tuple[bytes, int]:
    """Return the beginning of a body, and the bytes there are for its results."""
    opening = _dumps(head)[:-1] + b',"' + _RESULTS.encode() + b'":['
    return opening, REPORT_BODY_LIMIT - len(opening) - len(b"]}")


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
