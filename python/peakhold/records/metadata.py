"""Coalescing of custom metadata: one entry for the ids of many frames."""

from __future__ import annotations

import json
import threading
from collections import deque
from typing import TYPE_CHECKING

from peakhold.records.record import MetadataEntry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

METADATA_IDS_LIMIT = 1_000
METADATA_BODY_LIMIT = 256 * 1024
"""Ids in one request, and bytes of its body."""

_FRAME_BYTES = len('{"data":[]}')
_ENTRY_BYTES = len('{"inference_ids":[],"field_name":,"field_value":},')


class MetadataBatch:
    """The metadata of a destination that is not sealed yet.

    ``offer`` may be called by any thread at any time, and all a frame does is that.
    Whoever does the rest holds ``sealing``.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.sealing = threading.Lock()
        self._offered: deque[tuple[Iterable[str], str, str]] = deque()
        self._known = False
        self._start()

    def __len__(self) -> int:
        """Return the number of ids and frames that it holds."""
        return self._ids + len(self._offered)

    @property
    def is_new(self) -> bool:
        """Whether nothing in it is older than what was offered since the last time."""
        return not self._ids

    def offer(
        self, inference_ids: Iterable[str], field_name: str, field_value: str
    ) -> int:
        """Take the ids of a frame as they are.

        Returns:
            How many frames wait; 0 if the caller has to tell a worker of them.
        """
        self._offered.append((inference_ids, field_name, field_value))
        if self._known:
            return len(self._offered)
        self._known = True
        return 0

    def offer_to(self, other: MetadataBatch) -> None:
        """Pass what was offered on to another batch."""
        while self._offered:
            other.offer(*self._offered.popleft())

    def absorb(self) -> Iterator[tuple[MetadataEntry, ...]]:
        """Add what was offered; yields the entries of every request filled."""
        # First, so that somebody is told of what is offered from here on; and last, for
        # what was offered in between is gone, and nobody was told of the next one.
        self._known = False
        for _ in range(len(self._offered)):  # what comes meanwhile is for the next time
            if self._offered:  # not passed on to another batch
                yield from self.add(*self._offered.popleft())
        if not self._offered:
            self._known = False

    def seal_all(self) -> Iterator[tuple[MetadataEntry, ...]]:
        """Yield the entries of as few requests as hold everything, and start anew."""
        yield from self.absorb()
        if self._ids:
            yield from self._sealed()

    def add(
        self, inference_ids: Iterable[str], field_name: str, field_value: str
    ) -> Iterator[tuple[MetadataEntry, ...]]:
        """Add ids to a field's value; yields the entries of every request filled.

        An id joins the newest entry of the field and value, unless it had another value
        of the field since: then a new entry is begun, for the last value is to win. An
        id that has the value already adds nothing.
        """
        key = (field_name, field_value)
        for inference_id in inference_ids:
            id_and_field = (inference_id, field_name)
            last, newest = self._last.get(id_and_field), self._newest.get(key)
            if last is not None and self._entries[last][0] == key:
                continue
            begins = newest is None or (last is not None and last > newest)
            size = self._size_of(key, inference_id, begins=begins)
            if self._ids and (
                self._ids == METADATA_IDS_LIMIT
                or self._size + size > METADATA_BODY_LIMIT
            ):
                yield from self._sealed()
                begins = True
                size = self._size_of(key, inference_id, begins=True)
            if begins:
                self._newest[key] = len(self._entries)
                self._entries.append((key, []))
            at = self._last[id_and_field] = self._newest[key]
            self._entries[at][1].append(inference_id)
            self._ids += 1
            self._size += size

    def seal(self) -> tuple[MetadataEntry, ...]:
        """Return what the batch holds, in the order it came, and start a new one."""
        (entries,) = self._sealed()
        return entries

    def _sealed(self) -> Iterator[tuple[MetadataEntry, ...]]:
        """Yield what the batch holds, and start a new one once that has been taken.

        Interrupted before, as by a signal handler, it holds them still.
        """
        yield tuple(MetadataEntry(tuple(ids), *key) for key, ids in self._entries)
        self._start()

    @staticmethod
    def _size_of(key: tuple[str, str], inference_id: str, *, begins: bool) -> int:
        """Return the bytes that an id adds, with those of an entry that it begins."""
        size = _json_length(inference_id) + 1
        if begins:
            size += _ENTRY_BYTES + _json_length(key[0]) + _json_length(key[1])
        return size

    def _start(self) -> None:
        self._entries: list[tuple[tuple[str, str], list[str]]] = []
        self._newest: dict[tuple[str, str], int] = {}  # entry of a field and value
        self._last: dict[tuple[str, str], int] = {}  # entry of an id and field
        self._ids = 0
        self._size = _FRAME_BYTES


def packed(entries: Iterable[MetadataEntry]) -> Iterator[tuple[MetadataEntry, ...]]:
    """Yield the entries of as few requests as the limits allow, at least one."""
    batch = MetadataBatch()
    for entry in entries:
        yield from batch.add(entry.inference_ids, entry.field_name, entry.field_value)
    yield batch.seal()


def _json_length(text: str) -> int:
    plain = text.isascii() and text.isprintable()
    if plain and '"' not in text and "\\" not in text:
        return len(text) + 2  # as almost always, in a tenth of the time
    return len(json.dumps(text))
