"""Records: what is sealed and delivered, and the request bodies that are made of it.

A ``Record`` is one request to be made. Nothing here knows where it waits or who sends
it.
"""

from __future__ import annotations

from peakhold.records.record import (
    HEAD_BYTES,
    Destination,
    Kind,
    MetadataEntry,
    Record,
    ReportContent,
    seal_metadata,
    seal_report,
)

__all__ = [
    "HEAD_BYTES",
    "Destination",
    "Kind",
    "MetadataEntry",
    "Record",
    "ReportContent",
    "seal_metadata",
    "seal_report",
]
