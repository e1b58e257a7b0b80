"""Coalescing of custom metadata: one entry for the ids of many frames."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

METADATA_IDS_LIMIT = 1_000
METADATA_BODY_LIMIT = 256 * 1024
"""Ids in one request, and bytes of its body."""

FRAME_BYTES = len('{"data":[]}')
_ENTRY_BYTES = len('{"inference_ids":[],"field_name":,"field_value":},')


@dataclass(frozen=True)
class MetadataEntry:
    """One field value and the inferences it belongs to."""

    inference_ids: tuple[str, ...]
    field_name: str
    field_value: str


class MetadataBatch:
    """Metadata that becomes one request: as few entries as its ids allow."""

    def __init__(self) -> None:
        """Start empty."""
        self._start()

    def __len__(self) -> int:
        """Return the number of ids that it holds."""
        return self._ids

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
            size = bytes_of(key, inference_id, begins=begins)
            if self._ids and (
                self._ids == METADATA_IDS_LIMIT
                or self._size + size > METADATA_BODY_LIMIT
            ):
                yield from self.sealed()
                begins = True
                size = bytes_of(key, inference_id, begins=True)
            if begins:
                self._newest[key] = len(self._entries)
                self._entries.append((key, []))
            at = self._last[id_and_field] = self._newest[key]
            self._entries[at][1].append(inference_id)
            self._ids += 1
            self._size += size

    def seal(self) -> tuple[MetadataEntry, ...]:
        """Return what the batch holds, in the order it came, and start a new one."""
        (entries,) = self.sealed()
        return entries

    def sealed(self) -> Iterator[tuple[MetadataEntry, ...]]:
        """Yield what the batch holds, and start a new one once that has been taken.

        Interrupted before, as by a signal handler, it holds them still.
        """
        yield tuple(MetadataEntry(tuple(ids), *key) for key, ids in self._entries)
        self._start()

    def _start(self) -> None:
        self._entries: list[tuple[tuple[str, str], list[str]]] = []
        self._newest: dict[tuple[str, str], int] = {}  # entry of a field and value
        self._last: dict[tuple[str, str], int] = {}  # entry of an id and field
        self._ids = 0
        self._size = FRAME_BYTES


def bytes_of(key: tuple[str, str], inference_id: str, *, begins: bool) -> int:
    """Return the bytes that an id of a field and value adds to a body.

    With those of an entry, if it ``begins`` one.
    """
    size = _json_length(inference_id) + 1
    if begins:
        size += _ENTRY_BYTES + _json_length(key[0]) + _json_length(key[1])
    return size


def coalesced(
    frames: Iterable[tuple[Iterable[str], str, str]],
) -> tuple[MetadataEntry, ...]:
    """Return as few entries as there can be for the ids, field and value of frames."""
    batch = MetadataBatch()
    full = [entry for each in frames for run in batch.add(*each) for entry in run]
    return (*full, *batch.seal())


def _json_length(text: str) -> int:
    plain = text.isascii() and text.isprintable()
    if plain and '"' not in text and "\\" not in text:
        return len(text) + 2  # as almost always, in a tenth of the time
    return len(json.dumps(text))
