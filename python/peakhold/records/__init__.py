"""Records: what is sealed and delivered, and the request bodies that are made of it.

A ``Record`` is one request to be made. Nothing here knows where it waits or who sends
it.
"""

from __future__ import annotations

from peakhold.records.content import (
    Kind,
    MetadataContent,
    ReportContent,
    Span,
    UnencodableError,
    size_of,
)
from peakhold.records.metadata import MetadataEntry
from peakhold.records.record import (
    DestinationKey,
    Record,
    join_parts,
    merge_reports,
    seal_metadata,
    seal_report,
)
from peakhold.records.share import Share

__all__ = [
    "DestinationKey",
    "Kind",
    "MetadataContent",
    "MetadataEntry",
    "Record",
    "ReportContent",
    "Share",
    "Span",
    "UnencodableError",
    "join_parts",
    "merge_reports",
    "seal_metadata",
    "seal_report",
    "size_of",
]
