"""What records say: closed windows and metadata, and the request bodies made of them.

A body is a function of a content and a part of it alone, so that a repetition is the
same byte for byte, in this process and in those that read the content from the outbox.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import cached_property
from hashlib import sha256
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from peakhold._peakhold import WindowSnapshot
from peakhold.errors import PeakholdError
from peakhold.records.metadata import (
    FRAME_BYTES,
    METADATA_BODY_LIMIT,
    METADATA_IDS_LIMIT,
    MetadataEntry,
    bytes_of,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

Kind = Literal["report", "metadata"]
Part = tuple[int, int]
"""Lines of a report, or ids of metadata: the first one's number, and the number after
the last one's."""

ENCODING_VERSION = 2
"""Version of what ``encode`` returns, snapshots included, and of the bodies that are
made of it. A change of any is another version, beside which this one stays, and another
``SCHEMA_VERSION`` of the outbox, so that an earlier peakhold leaves it alone. Version 1
knows no statistics, and nothing about a window."""
_VERSIONS = (1, ENCODING_VERSION)
REPORT_BODY_LIMIT = 512 * 1024
"""Bytes of a request body; what is larger goes as several requests."""

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_HEAD_BYTES = 700
"""Bytes of a report that has no result, estimated."""
_ENTRY_BYTES = 60
_SOURCE = "workflow"
_SOURCE_INFO = "ModelMonitoringInferenceAggregatorBlockV1"


class UnencodableError(PeakholdError):
    """A record holds what no JSON can say; no later attempt would do better."""


class Content(ABC):
    """What a record, or several to several destinations, are of. Never changes.

    Attributes:
        kind: Which request is made of it.
    """

    kind: ClassVar[Kind]

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes that it takes in memory, estimated."""

    @property
    @abstractmethod
    def length(self) -> int:
        """Lines or ids that it has."""

    @abstractmethod
    def encode(self) -> bytes:
        """Return it as bytes, for ``decode``."""

    @abstractmethod
    def body(self, part: Part) -> bytes:
        """Return the request body of a part."""

    @abstractmethod
    def parts(self) -> list[Part]:
        """Return as few parts as fit in a request each, at least one."""

    @abstractmethod
    def halves(self, part: Part, *, whole_entries: bool = False) -> list[Part]:
        """Return two halves of a part; nothing if it cannot be divided.

        Args:
            part: What to divide.
            whole_entries: Whether entries of metadata are to be left whole.
        """


def decode(kind: str, version: int, encoded: bytes) -> Content:
    """Read what ``Content.encode`` has returned.

    Raises:
        ValueError: If it is anything else.
        TypeError: Likewise.
    """
    if version not in _VERSIONS:
        raise ValueError(f"version {version} of an encoding is not known")
    try:
        return _CONTENTS[kind].decode(encoded)
    except LookupError as error:
        raise ValueError(f"no encoded content: {error}") from error


@dataclass(frozen=True)
class Span:
    """Whose a window is, and from when to when it was open.

    Attributes:
        aggregator: The ``unique_aggregator_key``.
        feed: The video feed that it is of; None for all feeds of a process.
        ended: When it was closed, in microseconds since 1970 UTC.
        began: When it was opened; None if its process was killed.
        frequency: Seconds between reports; None if its process was killed.
        epoch: Number of the epoch, if processes share the window.
    """

    aggregator: str
    feed: str | None
    ended: int
    began: int | None = None
    frequency: int | None = None
    epoch: int | None = None

    def merged(self, other: Span) -> Span:
        """Return that of this window and another one of its key."""
        began = None
        if self.began is not None and other.began is not None:
            began = min(self.began, other.began)
        return replace(other, began=began, ended=max(self.ended, other.ended))


@dataclass(frozen=True)
class ReportContent(Content):
    """A closed window.

    Attributes:
        snapshot: Its peaks, and its statistics if there are any.
        closed_at: Local time of closing, ISO 8601 and without offset: a contract.
        facts: What the report says about the device, as JSON has it.
        window: Key of the window; waiting reports of one key may be merged. Of the
            blocks' windows it is a tuple of endpoint, fingerprint of the api key,
            ``unique_aggregator_key`` and feed. Not encoded.
        span: Whose it is, and from when to when; None if nobody said.
    """

    snapshot: WindowSnapshot
    closed_at: str
    facts: Mapping[str, object]
    window: Hashable = None
    span: Span | None = None

    kind = "report"

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, estimated without emptying the window."""
        return size_of(self.snapshot)

    @property
    def period(self) -> int | None:
        """Seconds between reports of the window; None if that is not known."""
        return self.span.frequency if self.span else None

    @cached_property
    def length(self) -> int:
        """Lines of the report."""
        return self.snapshot.lines

    @property
    def merge_key(self) -> str | None:
        """What contents that may be merged have in common; None once decoded."""
        if self.window is None:
            return None
        window = repr(self.window).encode("utf-8", "surrogatepass")
        return sha256(window).hexdigest()[:16]

    @property
    def feed(self) -> str | None:
        """Feed of the window; None for a common window."""
        return self.span.feed if self.span else None

    @property
    def inference_ids(self) -> list[str]:
        """Ids of the inferences of its lines, each once; a line may have none."""
        ids = (line["inference_id"] for line in self.snapshot.report())
        return list(dict.fromkeys(filter(None, ids)))

    def described(self, facts: Mapping[str, object]) -> ReportContent:
        """Return it with device id, server version and system information.

        Raises:
            UnencodableError: If there is a number that JSON does not have.
        """
        return replace(self, facts=json.loads(_dumps(facts)))

    def merged(self, later: Iterable[ReportContent]) -> ReportContent:
        """Return this window and later ones of its key as the last of them.

        Of each class the highest confidence stays, and of equal ones that of the
        smaller place, see ``WindowSnapshot.merge``.
        """
        last, snapshot, span = self, self.snapshot, self.span
        for last in later:
            snapshot = snapshot.merge(last.snapshot)
            span = span.merged(last.span) if span and last.span else last.span
        return replace(last, snapshot=snapshot, span=span)

    def encode(self) -> bytes:
        """Return closing time, facts and span as a line of JSON, and the snapshot."""
        head: dict[str, object] = {"closed_at": self.closed_at, "facts": self.facts}
        if self.span:
            head["span"] = asdict(self.span)
        return _dumps(head) + b"\n" + self.snapshot.encode()

    @classmethod
    def decode(cls, encoded: bytes) -> ReportContent:
        """Read what ``encode`` has returned."""
        head, _, snapshot = encoded.partition(b"\n")
        known = json.loads(head)
        decoded = WindowSnapshot.decode(snapshot)
        span = Span(**known["span"]) if "span" in known else None
        return cls(decoded, known["closed_at"], known["facts"], None, span)

    def body(self, part: Part) -> bytes:
        """Return the request body of some lines."""
        return self._opening() + self.snapshot.report_json(*part) + b"]}"

    def window_body(self, part: Part) -> bytes:
        """Return what a peakhold monitor gets of some lines, as a JSON object."""
        span = self.span
        head = {
            "aggregator": span.aggregator if span else "",
            "feed": span.feed if span else None,
            "began": _utc(span.began) if span else None,
            "ended": _utc(span.ended) if span else None,
            "frequency": span.frequency if span else None,
            "epoch": span.epoch if span else None,
            "device": self.facts,
        }
        members = self.snapshot.window_json(*part)
        return _dumps(head)[:-1] + b"," + members + b"}"

    def parts(self) -> list[Part]:
        """Return as few runs of lines as fit in a request each, at least one."""
        room = REPORT_BODY_LIMIT - len(self._opening()) - len(b"]}")
        if self.snapshot.has_statistics:  # a line with its statistics takes thrice
            room //= 4
        return list(pairwise(self.snapshot.report_parts(room)))

    def halves(self, part: Part, *, whole_entries: bool = False) -> list[Part]:
        """Return two halves of some lines; nothing of one."""
        del whole_entries  # there are none
        return _divided(part, (part[0] + part[1]) // 2)

    def _opening(self) -> bytes:
        head = {
            "timestamp": self.closed_at,
            "source": _SOURCE,
            "source_info": _SOURCE_INFO,
            **self.facts,
        }
        return _dumps(head)[:-1] + b',"inference_results":['


def period_of(encoded: bytes) -> int | None:
    """Return the period of a report that is encoded, without decoding the rest.

    Raises:
        ValueError: If it is anything else.
    """
    head, _, _ = encoded.partition(b"\n")
    span = json.loads(head).get("span") or {}
    period = span.get("frequency")
    return period if isinstance(period, int) else None


@dataclass(frozen=True)
class MetadataContent(Content):
    """Field values, and the inferences they belong to."""

    entries: tuple[MetadataEntry, ...]

    kind = "metadata"

    @cached_property
    def size(self) -> int:
        """Bytes that it takes in memory, estimated."""
        return sum(
            _ENTRY_BYTES
            + len(entry.field_name)
            + len(entry.field_value)
            + sum(len(inference_id) + 3 for inference_id in entry.inference_ids)
            for entry in self.entries
        )

    @property
    def length(self) -> int:
        """Ids of all entries."""
        return self._ends[-1]

    def encode(self) -> bytes:
        """Return the body of all of it, which holds everything."""
        return self._encoded

    @classmethod
    def decode(cls, encoded: bytes) -> MetadataContent:
        """Read what ``encode`` has returned."""
        return cls(
            tuple(
                MetadataEntry(
                    tuple(entry["inference_ids"]),
                    entry["field_name"],
                    entry["field_value"],
                )
                for entry in json.loads(encoded)["data"]
            )
        )

    def body(self, part: Part) -> bytes:
        """Return the request body of some ids."""
        if part == (0, self.length):
            return self._encoded
        return self._body(part)

    def _body(self, part: Part) -> bytes:
        data = [
            {
                "inference_ids": entry.inference_ids,
                "field_name": entry.field_name,
                "field_value": entry.field_value,
            }
            for entry in self.entries_of(part)
        ]
        return _dumps({"data": data})

    def entries_of(self, part: Part) -> list[MetadataEntry]:
        """Return the entries of some ids, the first and the last one cut."""
        first, last = part
        return [
            replace(
                entry,
                inference_ids=entry.inference_ids[max(0, first - start) : last - start],
            )
            for entry, (start, end) in zip(
                self.entries, pairwise(self._ends), strict=True
            )
            if start < last and end > first
        ]

    def parts(self) -> list[Part]:
        """Return as few runs of ids as the limits of a request allow, at least one."""
        length = self.length
        if length <= METADATA_IDS_LIMIT and len(self._encoded) <= METADATA_BODY_LIMIT:
            return [(0, length)]
        ends, used, held = [0], FRAME_BYTES, 0
        for entry, (start, _) in zip(self.entries, pairwise(self._ends), strict=True):
            key = entry.field_name, entry.field_value
            for number, inference_id in enumerate(entry.inference_ids, start):
                begins = number == start
                size = bytes_of(key, inference_id, begins=begins)
                if held == METADATA_IDS_LIMIT or (
                    held and used + size > METADATA_BODY_LIMIT
                ):
                    ends.append(number)
                    used, held = FRAME_BYTES, 0
                    size = bytes_of(key, inference_id, begins=True)
                used += size
                held += 1
        return list(pairwise([*ends, length]))

    def by_entry(self, part: Part) -> list[Part]:
        """Return a part for each entry of a part."""
        first, last = part
        ends = [end for end in self._ends if first < end < last]
        return list(pairwise([first, *ends, last]))

    def halves(self, part: Part, *, whole_entries: bool = False) -> list[Part]:
        """Return two halves of some ids; nothing if they cannot be divided."""
        if whole_entries:
            entries = self.by_entry(part)
            return _divided(part, entries[len(entries) // 2][0])
        return _divided(part, (part[0] + part[1]) // 2)

    @cached_property
    def _encoded(self) -> bytes:
        return self._body((0, self.length))

    @cached_property
    def _ends(self) -> list[int]:
        """Ids up to the end of each entry, and before all of them."""
        lengths = (len(entry.inference_ids) for entry in self.entries)
        return list(accumulate(lengths, initial=0))


_CONTENTS: dict[str, type[ReportContent | MetadataContent]] = {
    "report": ReportContent,
    "metadata": MetadataContent,
}


def size_of(snapshot: WindowSnapshot) -> int:
    """Return the bytes that a closed window takes in memory, estimated."""
    return _HEAD_BYTES + snapshot.nbytes


def _utc(microseconds: int | None) -> str | None:
    """Return a time as ISO 8601 has it."""
    if microseconds is None:
        return None
    at = _EPOCH + timedelta(microseconds=microseconds)
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _divided(part: Part, at: int) -> list[Part]:
    first, last = part
    return [(first, at), (at, last)] if first < at < last else []


def _dumps(value: Any) -> bytes:
    # An injected client may describe its system with objects that are not JSON.
    try:
        text = json.dumps(value, separators=(",", ":"), allow_nan=False, default=str)
    except (ValueError, TypeError, RecursionError) as error:
        raise UnencodableError(str(error)) from error
    return text.encode("ascii")
