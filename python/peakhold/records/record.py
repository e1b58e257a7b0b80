"""What is delivered: a content, or a part of one, to one destination."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property
from hashlib import sha256
from operator import attrgetter
from typing import TYPE_CHECKING

from peakhold.records.content import MetadataContent, ReportContent

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping, Sequence

    from peakhold._peakhold import WindowSnapshot
    from peakhold.records.content import Content, Kind, Part, Span
    from peakhold.records.metadata import MetadataEntry
    from peakhold.records.share import Share

_PARTS = uuid.UUID("8f0f4c57-3d0e-4d7b-9d0b-6a1e5c0b7d52")
"""Names the ids of parts that make the id of a report."""


@dataclass(frozen=True)
class DestinationKey:
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
class Record:
    """One request to be made, for as long as it takes.

    Its body is the same byte for byte under the same ``id`` for every attempt, in this
    process and in those that come after it.

    Attributes:
        destination: Where it goes.
        content: What was collected. Records to several destinations share it.
        part: Which part of the content; None for all of it.
        id: Also the ``Idempotency-Key`` of the request. Up to its first dot it is the
            content's.
        created: When it was made, UTC; of a dead process's window, when that was last
            written.
        seals: How many windows or batches of metadata it stands for; merging and
            splitting change them.
        merge_key: Reports with the same one are of one window and may be merged; None
            once the record may have been sent.
        share: The shared window that it is a part of, which is reported together with
            the parts of other processes; None for what is sent by itself.
        on_committed: Called once the record is safe in the outbox, or settled before.
            Lives in memory only; a stored record comes back without it.
        waits_since: Monotonic time of this process since which it waits in the outbox,
            if it was read from there.
    """

    destination: DestinationKey
    content: Content
    part: Part | None = None
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: datetime = field(default_factory=lambda: datetime.now(timezone.utc))
    seals: int = 1
    merge_key: str | None = None
    share: Share | None = None
    on_committed: Callable[[], None] | None = field(
        default=None, repr=False, compare=False
    )
    waits_since: float | None = field(default=None, repr=False, compare=False)

    @property
    def kind(self) -> Kind:
        """Which request it is."""
        return self.content.kind

    @property
    def period(self) -> int | None:
        """Seconds between reports of its window; None if that is not known."""
        content = self.content
        return content.period if isinstance(content, ReportContent) else None

    @property
    def content_id(self) -> str:
        """Id of its content."""
        return self.id.partition(".")[0]

    @property
    def whole_id(self) -> str:
        """Id that a record of all of its content would have."""
        return self.id if self.part is None else self.id.rpartition(".")[0]

    @property
    def size(self) -> int:
        """Bytes it takes in memory, estimated."""
        return self.content.size

    @property
    def whole(self) -> Part:
        """Its part of the content, in numbers."""
        return self.part or (0, self.content.length)

    @cached_property
    def body(self) -> bytes:
        """The request body."""
        return self.content.body(self.whole)

    @cached_property
    def window_body(self) -> bytes:
        """The window as a peakhold monitor gets it; of a report."""
        content = self.content
        return (
            content.window_body(self.whole)
            if isinstance(content, ReportContent)
            else b""
        )

    @property
    def entries(self) -> list[MetadataEntry]:
        """What a record of metadata says."""
        content = self.content
        return (
            content.entries_of(self.whole)
            if isinstance(content, MetadataContent)
            else []
        )

    def divided(self, parts: Sequence[Part]) -> list[Record]:
        """Return a record for each of some parts of this one.

        Their ids follow from its own: who divides it again after a crash cannot have
        it twice.
        """
        if list(parts) == [self.whole]:
            return [self]
        last = len(parts) - 1
        return [
            replace(
                self,
                part=part,
                id=f"{self.whole_id}.{part[0]}-{part[1]}",
                seals=1 if at else self.seals,
                on_committed=self.on_committed if at == last else None,
            )
            for at, part in enumerate(parts)
        ]

    def halves(self, *, whole_entries: bool = False) -> list[Record]:
        """Return two records for this one, nothing if it cannot be divided.

        Args:
            whole_entries: Whether entries of metadata are to be left whole.
        """
        parts = self.content.halves(self.whole, whole_entries=whole_entries)
        return self.divided(parts) if parts else []

    def by_entry(self, *, rest: bool = False) -> list[Record]:
        """Return a record for each entry of metadata.

        Args:
            rest: Whether one is to hold all entries but the first.
        """
        content = self.content
        if not isinstance(content, MetadataContent):
            return [self]
        first, *others = content.by_entry(self.whole)
        if rest and others:
            others = [(first[1], self.whole[1])]
        return self.divided([first, *others])


def seal_report(
    destination: DestinationKey,
    window: Hashable,
    snapshot: WindowSnapshot,
    closed_at: datetime | None = None,
    span: Span | None = None,
) -> Record:
    """Return the record of a window that was closed just now, or at a local time.

    Args:
        destination: Where it goes.
        window: Key of the window.
        snapshot: What it held.
        closed_at: When it was closed, local.
        span: Whose it is, and from when to when, if that is known.
    """
    # Local and without offset: the request's timestamp is a contract.
    closed_at = closed_at or datetime.now()  # noqa: DTZ005
    content = ReportContent(snapshot, closed_at.isoformat(), {}, window, span)
    return Record(destination, content, merge_key=content.merge_key)


def seal_metadata(
    destination: DestinationKey, entries: tuple[MetadataEntry, ...]
) -> Record:
    """Return the record of some metadata entries."""
    return Record(destination, MetadataContent(entries))


def join_parts(
    destination: DestinationKey,
    share: Share,
    parts: Mapping[str, ReportContent],
    seals: int,
) -> list[Record]:
    """Return the records of an epoch's report, which holds what all its parts hold.

    The same parts have one id and one body whoever joins them: ids are sorted, and
    merging is commutative, ties included (``WindowSnapshot.merge``).

    Args:
        destination: Where it goes.
        share: The shared window.
        parts: Contents by the ids of the parts; at least one.
        seals: How many windows they stand for.
    """
    ids = sorted(parts)
    first, *rest = (parts[each] for each in ids)
    last = max((first, *rest), key=attrgetter("closed_at"))
    merged = first.merged(rest)
    span = merged.span and replace(
        merged.span, epoch=share.epoch, frequency=share.frequency
    )
    content = replace(last, snapshot=merged.snapshot, span=span)
    window = f"{share.name}/{share.frequency}"
    whole = Record(
        destination,
        content,
        id=uuid.uuid5(_PARTS, "\n".join(ids)).hex,
        seals=seals,
        merge_key=sha256(window.encode()).hexdigest()[:16],
    )
    return whole.divided(content.parts())


def merge_reports(records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Merge the reports of a window to a destination.

    Args:
        records: Reports that may be merged, the oldest first.

    Returns:
        Those that can be merged, which are all parts of their contents, and as few
        records as hold the same, see ``ReportContent.merged``.
    """
    parts: dict[str, list[Record]] = {}
    for record in records:
        parts.setdefault(record.content_id, []).append(record)
    windows = [each for each in parts.values() if _is_whole(each)]
    old = [record for each in windows for record in each]
    if not old:
        return [], []
    first, *later = (each[0].content for each in windows)
    if not isinstance(first, ReportContent):
        return [], []
    content = first.merged(each for each in later if isinstance(each, ReportContent))
    # Nothing of them was sent, and a part for each would take room without end.
    content = replace(content, snapshot=content.snapshot.with_one_part())
    ids = "\n".join(each[0].content_id for each in windows)
    merged_id = sha256(ids.encode()).hexdigest()[:32]
    last = old[-1]
    seals = sum(record.seals for record in old)
    whole = replace(
        last,
        content=content,
        part=None,
        # Of the same windows to another destination it is the same content.
        id=merged_id + last.whole_id[len(last.content_id) :],
        on_committed=None,
    )
    new = whole.divided(content.parts())
    return old, [replace(new[0], seals=seals - len(new) + 1), *new[1:]]


def _is_whole(parts: Sequence[Record]) -> bool:
    covered = sorted(record.whole for record in parts)
    ends = [end for _, end in covered]
    return [start for start, _ in covered] == [0, *ends[:-1]] and (
        ends[-1] == parts[0].content.length
    )
