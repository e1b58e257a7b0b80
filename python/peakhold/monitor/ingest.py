"""What one request writes: itself, and the rows that statistics are made of."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from peakhold.monitor.payloads import InferenceResult, MetadataEntry

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

Kind: TypeAlias = Literal["report", "metadata"]

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
    content: tuple[InferenceResult, ...] | tuple[MetadataEntry, ...]


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
            _store_result(connection, submission, request_id, item)
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
    if known == (0,):
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
    submission: Submission,
    request_id: int | None,
    result: InferenceResult,
) -> None:
    series = (submission.workspace, result.model_id, result.class_name)
    connection.execute(
        "INSERT OR IGNORE INTO series (workspace, model_id, class_name, project)"
        " VALUES (?, ?, ?, ?)",
        (*series, result.project),
    )
    connection.execute(
        "INSERT INTO results"
        " (request_id, series_id, received_us, confidence, inference_id)"
        " SELECT ?, id, ?, ?, ? FROM series"
        " WHERE workspace = ? AND model_id = ? AND class_name = ?",
        (
            request_id,
            submission.received_us,
            result.confidence,
            result.inference_id,
            *series,
        ),
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
