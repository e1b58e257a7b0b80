"""What is delivered: one sealed window, or one batch of metadata."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from peakhold._peakhold import WindowSnapshot

Kind = Literal["report", "metadata"]

ENCODING_VERSION = 1
"""Version of the request bodies that ``encode`` makes."""


@dataclass(frozen=True)
class Destination:
    """Where records go. Holds no secret, so it may be logged and stored.

    Attributes:
        endpoint: Base URL of the API, or the type of an injected client without one.
        api_key_fingerprint: First 16 hex digits of the SHA-256 of the api key.
        client: Type of an injected client, and how it sends; None for the package's
            own.
    """

    endpoint: str
    api_key_fingerprint: str
    client: str | None = None


@dataclass(frozen=True)
class ReportContent:
    """A closed window, before any encoding.

    Attributes:
        window: Key of the window; waiting reports of one key may be merged.
        snapshot: Its peaks.
        sealed_at: Local time of closing, ISO 8601.
    """

    window: Hashable
    snapshot: WindowSnapshot
    sealed_at: str


@dataclass(frozen=True)
class MetadataEntry:
    """One field value and the inferences it belongs to."""

    inference_ids: tuple[str, ...]
    field_name: str
    field_value: str


Content = ReportContent | tuple[MetadataEntry, ...]


@dataclass(frozen=True)
class Record:
    """One request to be made, for as long as it takes.

    A record is made of its ``content``. On its way to the outbox the content is
    replaced by the ``body``, which then stays byte for byte the same under the same
    ``id`` for every attempt, in this process and in those that come after it.

    Attributes:
        destination: Where it goes.
        kind: Which request it is.
        content: What was collected; None once the body is made.
        body: The request body; None until it is made.
        size: Bytes it takes in memory, estimated until the body is made.
        id: Also the ``Idempotency-Key`` of the request.
        created: Time of sealing, UTC.
        encoding_version: Version of the encoding of ``body``.
        seals: How many seals it stands for; merging and splitting change them.
        merge_key: Reports with the same one are of one window and may be merged; None
            once the record may have been sent.
        on_committed: Called once the record is safe in the outbox, or settled before.
            Lives in memory only; a stored record comes back without it.
    """

    destination: Destination
    kind: Kind
    content: Content | None
    body: bytes | None = None
    size: int = 0
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    encoding_version: int = ENCODING_VERSION
    seals: int = 1
    merge_key: str | None = None
    on_committed: Callable[[], None] | None = field(
        default=None, repr=False, compare=False
    )


HEAD_BYTES = 700
"""Bytes of a report that has no result, estimated."""
_ENTRY_BYTES = 60


def seal_report(
    destination: Destination,
    window: Hashable,
    snapshot: WindowSnapshot,
    on_committed: Callable[[], None] | None = None,
    closed_at: datetime | None = None,
) -> Record:
    """Return the record of a window that was closed just now, or at a local time."""
    # Local and without offset: the request's timestamp is a contract.
    closed_at = closed_at or datetime.now()  # noqa: DTZ005
    return Record(
        destination,
        "report",
        ReportContent(window, snapshot, closed_at.isoformat()),
        size=_report_size(snapshot),
        on_committed=on_committed,
    )


def seal_metadata(
    destination: Destination, entries: tuple[MetadataEntry, ...]
) -> Record:
    """Return the record of some metadata entries."""
    size = sum(
        _ENTRY_BYTES
        + len(entry.field_name)
        + len(entry.field_value)
        + sum(len(inference_id) + 3 for inference_id in entry.inference_ids)
        for entry in entries
    )
    return Record(destination, "metadata", entries, size=size)


def _report_size(snapshot: WindowSnapshot) -> int:
    return HEAD_BYTES + snapshot.nbytes
