"""Write an outbox of the current format, for later versions to deliver.

    python scripts/keep_format.py

Every format that was once released is kept as such a file in
``tests/python/outbox/formats``, beside what its records have to send. This one writes
the file of ``SCHEMA_VERSION``; a file that is there is not replaced.
"""

from __future__ import annotations

import base64
import gzip
import json
import sqlite3
import sys
import tempfile
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

from peakhold import PeakAggregator
from peakhold.notices import Notices
from peakhold.outbox import Limits, Outbox, StateDirectory
from peakhold.outbox.schema import SCHEMA_VERSION
from peakhold.records import (
    Destination,
    MetadataEntry,
    Record,
    merge_reports,
    seal_metadata,
    seal_report,
)

_FORMATS = (
    Path(__file__).resolve().parent.parent / "tests" / "python" / "outbox" / "formats"
)
_HERE = Destination("http://here", "0123456789abcdef")
_THERE = Destination("http://there", "fedcba9876543210", "a.Client by call")
_CLOSED = datetime(2026, 11, 28, 23, 5, 59, 250_000)  # noqa: DTZ001 - local
_CREATED = datetime(2026, 11, 28, 22, 5, 59, 250_000, timezone.utc)
_FAILED = {
    "waiting": ("pending", "HTTP 503", "down", 60.0),
    "parked": ("parked", "HTTP 402", "pay first", 0.0),
    "dead": ("dead", "HTTP 400", "bad", 0.0),
}
_FACTS = {
    "device_id": "camera-7",
    "inference_server_version": "1.2.3",
    "platform": "Linux",
    "hostname": "plant é \ud800",
    "load": 0.1,
}


def _report(number: int, name: str, **best: float) -> Record:
    aggregator = PeakAggregator()
    for model in ("plant/1", "plant/2"):
        for class_name, confidence in best.items():
            entry = {"class": class_name, "confidence": confidence / len(model)}
            prediction = {
                "predictions": [entry],
                "inference_id": f"inference-{model}-{class_name}",
                "prediction_type": "object-detection",
            }
            aggregator.observe(prediction, model)
    record = seal_report(_HERE, name, aggregator.snapshot(), _CLOSED)
    described = record.content.described(_FACTS)  # type: ignore[attr-defined]
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


def write(target: Path) -> None:
    """Write the outbox and what is to become of it."""
    stored = records()
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
        state.release()
        with closing(sqlite3.connect(state.outbox)) as database:
            database.execute("VACUUM")
        content = state.outbox.read_bytes()
    target.write_bytes(gzip.compress(content, mtime=0))
    bodies = {
        record.id: base64.b64encode(record.body).decode("ascii")
        for kept in stored.values()
        for record in kept
    }
    said = json.dumps(bodies, indent=1) + "\n"
    target.with_suffix(".json").write_text(said, encoding="ascii")


def main() -> int:
    """Write the file of the current format, if there is none."""
    target = _FORMATS / f"version-{SCHEMA_VERSION}.gz"
    if target.exists():
        sys.stderr.write(f"{target} is there: what was kept stays as it is\n")
        return 1
    write(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
