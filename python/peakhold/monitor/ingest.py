"""What one request writes: itself, and the rows that statistics are made of."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from peakhold.monitor.payloads import (
    InferenceResult,
    MetadataEntry,
    WindowMessage,
    WindowPart,
)

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

Kind: TypeAlias = Literal["report", "metadata", "windows"]

_Items: TypeAlias = InferenceResult | MetadataEntry | WindowMessage
Content: TypeAlias = tuple[_Items, ...]

logger = logging.getLogger("peakhold.monitor")

IDEMPOTENCY_PERIOD_US = 7 * 24 * 3600 * 1_000_000
"""Microseconds for which a repeated idempotency key is recognised: seven days."""


@dataclass(frozen=True)
class Submission:
    """A checked request on its way into the data file.

    Attributes:
        kind: Which endpoint received it.
        workspace: The workspace in its path.
        received_us: Time of receipt in microseconds since 1970 UTC.
        idempotency_key: What the sender calls it, if it says.
        body: The body as it arrived.
        content: The body as it was understood.
    """

    kind: Kind
    workspace: str
    received_us: int
    idempotency_key: str | None
    body: bytes
    content: Content


def store_all(
    connection: sqlite3.Connection, submissions: Sequence[Submission]
) -> list[bool]:
    """Store submissions in one transaction: all of them or, on an error, none.

    Returns:
        For each, False if its idempotency key was known and it was left out.

    Raises:
        sqlite3.Error: The file could not be written.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        stored = [_store(connection, submission) for submission in submissions]
        connection.execute("COMMIT")
    except BaseException:
        # SQLite rolls back by itself on some errors, a full disk among them.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return stored


def _store(connection: sqlite3.Connection, submission: Submission) -> bool:
    if _is_repeat(connection, submission):
        return False
    request_id = connection.execute(
        "INSERT INTO requests (kind, workspace, received_us, idempotency_key, body)"
        " VALUES (?, ?, ?, ?, ?)",
        (
            submission.kind,
            submission.workspace,
            submission.received_us,
            submission.idempotency_key,
            submission.body,
        ),
    ).lastrowid
    for item in submission.content:
        if isinstance(item, InferenceResult):
            at = submission.received_us
            _store_result(connection, submission.workspace, request_id, at, item)
        elif isinstance(item, WindowMessage):
            _store_window(connection, submission, request_id, item)
        else:
            _store_entry(connection, submission, request_id, item)
    return True


def _is_repeat(connection: sqlite3.Connection, submission: Submission) -> bool:
    if submission.idempotency_key is None:
        return False
    known = connection.execute(
        "SELECT body = ? FROM requests WHERE workspace = ? AND kind = ?"
        " AND idempotency_key = ? AND received_us > ? LIMIT 1",
        (
            submission.body,
            submission.workspace,
            submission.kind,
            submission.idempotency_key,
            submission.received_us - IDEMPOTENCY_PERIOD_US,
        ),
    ).fetchone()
    # Around windows stands the time of sending, which differs.
    if known == (0,) and submission.kind != "windows":
        # Acknowledged all the same: the key says that it was stored, and a sender
        # that is refused would not know what to do about it.
        logger.warning(
            "a %s repeats an idempotency key with another body, which is not stored; "
            "the sender must use a new key for a new body",
            submission.kind,
        )
    return known is not None


def _store_result(
    connection: sqlite3.Connection,
    workspace: str,
    request_id: int | None,
    at_us: int,
    result: InferenceResult,
) -> None:
    series = _series(connection, workspace, result.model_id, result.class_name)
    connection.execute(
        "INSERT INTO results"
        " (request_id, series_id, received_us, confidence, inference_id)"
        " VALUES (?, ?, ?, ?, ?)",
        (request_id, series, at_us, result.confidence, result.inference_id),
    )


def _series(
    connection: sqlite3.Connection, workspace: str, model_id: str, class_name: str
) -> int:
    """Return the number of a class of a model, which gets one if it is new."""
    series = (workspace, model_id, class_name)
    connection.execute(
        "INSERT OR IGNORE INTO series (workspace, model_id, class_name, project)"
        " VALUES (?, ?, ?, ?)",
        (*series, model_id.partition("/")[0]),
    )
    (number,) = connection.execute(
        "SELECT id FROM series WHERE workspace = ? AND model_id = ? AND class_name = ?",
        series,
    ).fetchone()
    return int(number)


def _store_window(
    connection: sqlite3.Connection,
    submission: Submission,
    request_id: int | None,
    window: WindowMessage,
) -> None:
    """Store a window, and what its parts add, unless it or they are known."""
    workspace = submission.workspace
    number = connection.execute(
        "INSERT OR IGNORE INTO windows (workspace, window_id, request_id, aggregator,"
        " feed, began_us, ended_us, received_us, frequency, epoch,"
        " is_counted) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            workspace,
            window.id,
            request_id,
            window.aggregator,
            window.feed,
            window.began_us,
            window.at_us,
            submission.received_us,
            window.frequency,
            window.epoch,
            bool(window.parts),
        ),
    )
    if not number.rowcount:
        return  # grouped otherwise, it was sent again
    for peak in window.peaks:
        _store_result(connection, workspace, request_id, window.at_us, peak)
    for part in window.parts:
        _store_part(connection, workspace, number.lastrowid, part)


def _store_part(
    connection: sqlite3.Connection,
    workspace: str,
    window: int | None,
    part: WindowPart,
) -> None:
    """Add what a part has, but what is known of it.

    A part may come in pieces, and again in others. What is not whole, because its
    process was killed or taken for dead, gives way to what is.
    """
    key = (workspace, part.id)
    connection.execute(
        "INSERT OR IGNORE INTO parts (workspace, part_id, window, frames, without,"
        " is_partial, rejected) VALUES (?, ?, ?, 0, 0, ?, '{}')",
        (*key, window, part.is_partial),
    )
    number, was_partial = connection.execute(
        "SELECT number, is_partial FROM parts WHERE workspace = ? AND part_id = ?", key
    ).fetchone()
    if part.is_partial and not was_partial:
        return
    if was_partial and not part.is_partial:
        connection.execute("DELETE FROM counts WHERE part = ?", (number,))
        connection.execute(
            "UPDATE parts SET frames = 0, is_partial = 0 WHERE number = ?", (number,)
        )
    if part.piece == 0:
        connection.execute(
            "UPDATE parts SET frames = ?, without = ?, rejected = ? WHERE number = ?",
            (part.frames, part.without, json.dumps(part.rejected), number),
        )
    connection.executemany(
        "INSERT OR IGNORE INTO counts (part, series_id, frames, detections, outside,"
        " sum, least, histogram) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                number,
                _series(connection, workspace, each.model_id, each.class_name),
                each.frames,
                each.detections,
                each.outside,
                each.sum,
                each.least,
                json.dumps(each.histogram),
            )
            for each in part.classes
        ],
    )


def _store_entry(
    connection: sqlite3.Connection,
    submission: Submission,
    request_id: int | None,
    entry: MetadataEntry,
) -> None:
    # The last value that arrives is the one a field has.
    connection.executemany(
        "INSERT OR REPLACE INTO metadata"
        " (workspace, inference_id, field_name, field_value, received_us, request_id)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        [
            (
                submission.workspace,
                inference_id,
                entry.field_name,
                entry.field_value,
                submission.received_us,
                request_id,
            )
            for inference_id in entry.inference_ids
        ],
    )
