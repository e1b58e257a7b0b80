"""Write an outbox and a journal of the current formats, for later versions to deliver.

    python scripts/keep_format.py

Every format that was once released is kept as such a file in
``tests/python/outbox/formats`` or ``tests/python/blocks/formats``, beside what its
records have to send. This one writes the files of ``SCHEMA_VERSION`` and
``JOURNAL_VERSION``; a file that is there is not replaced.
"""

from __future__ import annotations

import base64
import gzip
import json
import sqlite3
import sys
import tarfile
import tempfile
from collections import deque
from contextlib import closing
from dataclasses import astuple, replace
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from peakhold import PeakAggregator
from peakhold.delivery.journal import Journals
from peakhold.notices import Notices
from peakhold.outbox import Limits, Outbox, StateDirectory
from peakhold.outbox.schema import SCHEMA_VERSION
from peakhold.records import (
    DestinationKey,
    MetadataEntry,
    Record,
    Share,
    join_parts,
    merge_reports,
    seal_metadata,
    seal_report,
)
from peakhold.records.metadata import coalesced

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peakhold._peakhold import MetadataBatch, WindowSnapshot

JOURNAL_VERSION = "2.1"
"""Versions of the segments and of their records, as ``rust/record.rs`` has them."""
API_KEY = "kept"
"""Whoever has it delivers the journal."""

_TESTS = Path(__file__).resolve().parent.parent / "tests" / "python"
_OUTBOX = _TESTS / "outbox" / "formats" / f"version-{SCHEMA_VERSION}.gz"
_JOURNAL = _TESTS / "blocks" / "formats" / f"version-{JOURNAL_VERSION}.tar.gz"
_HERE = DestinationKey("http://here", "0123456789abcdef")
_THERE = DestinationKey("http://there", "fedcba9876543210", "a.Client by call")
_CLOSED = datetime(2026, 11, 28, 23, 5, 59, 250_000)  # noqa: DTZ001 - local
_CREATED = datetime(2026, 11, 28, 22, 5, 59, 250_000, timezone.utc)
_FAILED = {
    "waiting": ("pending", "HTTP 503", "down", 60.0),
    "parked": ("parked", "HTTP 402", "pay first", 0.0),
    "dead": ("dead", "HTTP 400", "bad", 0.0),
}
_KEYED = DestinationKey("http://here", sha256(API_KEY.encode()).hexdigest()[:16])
_LARGE = (["x" * (4 << 20)], "shift", "fills a segment")
_EARLIER = timedelta(minutes=1)
_FRAMES = ((["a", "b"], "shift", "early"), (["c"], "shift", 'late "é" 😀'))
FACTS = {
    "device_id": "camera-7",
    "inference_server_version": "1.2.3",
    "platform": "Linux",
    "hostname": "plant é \ud800",
    "load": 0.1,
}


def _observe(
    aggregator: PeakAggregator, model: str, class_name: str, confidence: float
) -> None:
    prediction = {
        "predictions": [{"class": class_name, "confidence": confidence}],
        "inference_id": f"inference-{model}-{class_name}",
        "prediction_type": "object-detection",
    }
    aggregator.observe(prediction, model)


def _report(number: int, name: str, **best: float) -> Record:
    aggregator = PeakAggregator()
    for model in ("plant/1", "plant/2"):
        for class_name, confidence in best.items():
            _observe(aggregator, model, class_name, confidence / len(model))
    record = seal_report(_HERE, name, aggregator.snapshot(), _CLOSED)
    described = record.content.described(FACTS)  # type: ignore[attr-defined]
    return replace(record, content=described, id=f"{number:032x}", created=_CREATED)


def records() -> dict[str, list[Record]]:
    """Return what is stored, by what is to become of it."""
    split = _report(3, "split", person=0.25, car=0.5, hostile=1 / 3)
    old = [_report(8, "busy", person=0.5, car=0.25), _report(9, "busy", person=0.75)]
    entries = (
        MetadataEntry(("a", "b"), "shift", "early"),
        MetadataEntry(("b",), "shift", 'late "é" 😀'),
    )
    there = replace(_report(2, "both", person=0.9), destination=_THERE)
    return {
        "pending": [
            _report(1, "w", **{"person": 0.5, 'quote " \\ é 😀 \u2028': 0.125}),
            _report(2, "both", person=0.9),
            replace(there, id=f"{there.id}.2f0e9b1c"),
            *split.halves(),
            replace(seal_metadata(_HERE, entries), id=f"{4:032x}", created=_CREATED),
        ],
        "merged": merge_reports(old)[1],
        "waiting": [
            replace(_report(10, "paused", person=0.5), id="0123456789abcdef-0-7")
        ],
        "parked": [_report(5, "unpaid", person=0.5)],
        "dead": [_report(6, "refused", person=0.5)],
    }


def parts() -> list[Record]:
    """Return the parts that two processes have sealed of a shared window."""
    share = Share("shared é \ud800", None, 5, 1)
    best = {"person": 0.5}, {"person": 0.75, "car": 0.25}
    return [
        replace(
            _report(number, "shared", **each),
            id=f"{number:016x}-0-1",
            share=share,
            merge_key=None,
        )
        for number, each in enumerate(best, 11)
    ]


def write(target: Path) -> None:
    """Write the outbox and what is to become of it."""
    stored, shared = records(), parts()
    with tempfile.TemporaryDirectory() as scratch:
        state = StateDirectory(Path(scratch) / "state")
        outbox = Outbox(Notices(), Limits(), state)
        for name, kept in stored.items():
            outbox.add(kept, leased=[each.id for each in kept])
            for record in kept:
                if name in _FAILED:
                    outbox.failed(record, *_FAILED[name])
                else:
                    outbox.release(record)
        outbox.add_parts(shared)
        state.release()
        with closing(sqlite3.connect(state.outbox)) as database:
            # Over for long, whatever the clock says of whoever reads it.
            database.execute("UPDATE parts SET epoch = 1")
            database.execute("UPDATE shares SET closed = 0")
            database.commit()
            database.execute("VACUUM")
        content = state.outbox.read_bytes()
    target.write_bytes(gzip.compress(content, mtime=0))
    contents = {each.id: each.content for each in shared}
    joined = join_parts(_HERE, shared[0].share, contents, 2)  # type: ignore[arg-type]
    _write_bodies(target.with_suffix(".json"), chain(*stored.values(), joined))


def write_journal(target: Path) -> None:
    """Write the journal of a process that is killed, and what is to become of it.

    Times in the bodies are of UTC. The window that is open gets that of the files.
    """
    with tempfile.TemporaryDirectory() as scratch:
        state = StateDirectory(Path(scratch) / "state")
        stored = _journaled(Journals(state, Notices(), sync=False, limit=2**30))
        with tarfile.open(target, "w:gz") as archive:
            for path in sorted(state.journals.glob("*/*")):
                member = archive.gettarinfo(path, str(path.relative_to(state.journals)))
                member.mtime, member.uname, member.gname = _CREATED.timestamp(), "", ""
                with path.open("rb") as file:
                    archive.addfile(member, file)
        state.release()
    _write_bodies(target.with_suffix("").with_suffix(".json"), stored)


def _journaled(journals: Journals) -> list[Record]:
    """Leave windows and metadata in all states; returns what is to be delivered."""
    names = ("still open", "closed", "committed")
    keys = [(*astuple(_KEYED)[:2], name, None) for name in names]
    still, closed, safe = (journals.aggregator(_KEYED, key) for key in keys)
    for aggregator in (still, safe):
        _observe(aggregator, "plant/1", "person", 0.5)
    for number, model in enumerate(("plant/1", "plant/2")):
        _observe(closed, model, "person", 0.5 + number / 4)
        _observe(closed, model, f'quote " \\ é 😀 {model}', 1 / 3)
    metadata = journals.metadata(_KEYED)
    frames: deque[tuple[list[str], str, str, MetadataBatch, int]] = deque()
    for frame in (_LARGE, *_FRAMES):
        metadata.append(frames, *frame)  # type: ignore[union-attr]
    _observe(still, "plant/2", "car", 0.125)
    local = (_CREATED - _EARLIER).astimezone().replace(tzinfo=None)
    snapshot = closed.snapshot()
    journals.seal(_KEYED, keys[1], snapshot, local)
    committed = journals.seal(_KEYED, keys[2], safe.snapshot(), local)
    committed.on_committed()  # type: ignore[misc]
    frames.popleft()[3].journal.remove()
    batch = seal_metadata(_KEYED, coalesced(frame[:3] for frame in frames))
    return [
        _described(still.snapshot(), _CREATED),
        _described(snapshot, _CREATED - _EARLIER),
        replace(batch, id=frames[0][3].journal.name),
    ]


def _described(snapshot: WindowSnapshot, closed_at: datetime) -> Record:
    record = seal_report(_KEYED, "", snapshot, closed_at.replace(tzinfo=None))
    described = record.content.described(FACTS)  # type: ignore[attr-defined]
    return replace(record, content=described, id=snapshot.journal.name)  # type: ignore[union-attr]


def _write_bodies(target: Path, records: Iterable[Record]) -> None:
    bodies = {
        record.id: base64.b64encode(record.body).decode("ascii") for record in records
    }
    target.write_text(json.dumps(bodies, indent=1) + "\n", encoding="ascii")


def main() -> int:
    """Write the files of the current formats that are not there."""
    files = {_JOURNAL: write_journal, _OUTBOX: write}
    missing = [target for target in files if not target.exists()]
    for target in missing:
        files[target](target)
    if not missing:
        sys.stderr.write("All are there: what was kept stays as it is\n")
    return 0 if missing else 1


if __name__ == "__main__":
    sys.exit(main())
