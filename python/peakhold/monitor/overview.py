"""What the dashboard reads: everything of a workspace, summed up."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING

from peakhold.monitor.statistics import series_filter

if TYPE_CHECKING:
    import sqlite3

MAX_ROWS = 500
"""Most classes and most metadata values shown: class names can be hostile text."""


@dataclass(frozen=True)
class ClassRow:
    """A class of a model. `last_seen_us` is in microseconds since 1970 UTC."""

    model_id: str
    class_name: str
    count: int
    average: float
    maximum: float
    last_seen_us: int


@dataclass(frozen=True)
class MetadataRow:
    """A value of a field, `reported` of whose inferences are in reports as well."""

    field_name: str
    field_value: str
    inferences: int
    reported: int
    latest_inference_id: str
    last_seen_us: int


@dataclass(frozen=True)
class WindowRow:
    """The windows of an aggregator and a feed, added up.

    Attributes:
        aggregator: The ``unique_aggregator_key``.
        feed: The video feed; None for windows of all feeds of a process.
        windows: How many.
        frames: Frames observed, those without a detection included.
        detections: Detections taken.
        average: Mean confidence of those within [0, 1]; None if there are none.
        is_partial: 1 if some of it is missing, because a process was killed.
        last_seen_us: When the last one ended, in microseconds since 1970 UTC.
    """

    aggregator: str
    feed: str | None
    windows: int
    frames: int
    detections: int
    average: float | None
    is_partial: int
    last_seen_us: int


@dataclass(frozen=True)
class Overview:
    """A workspace at one moment.

    Attributes:
        reports: Reports and windows stored, whatever the filter.
        metadata_requests: Metadata requests stored, whatever the filter.
        models: What can be filtered by: project parts and whole model ids.
        results: Inference results.
        average: Their mean confidence; None if there are none.
        class_count: Pairs of model and class.
        classes: The most frequent of those pairs.
        metadata: Metadata values, the latest first.
        windows: Windows of peakhold sinks, whatever the filter.
    """

    reports: int
    metadata_requests: int
    models: list[str]
    results: int
    average: float | None
    class_count: int
    classes: list[ClassRow]
    metadata: list[MetadataRow]
    windows: list[WindowRow]


def read_overview(
    connection: sqlite3.Connection, workspace: str, model: str = ""
) -> Overview:
    """Sum up a workspace.

    Args:
        connection: A reading connection.
        workspace: Which one.
        model: Restrict to this project part or model id, metadata to that of its
            inferences; empty for everything.
    """
    models = (model,) if model else ()
    requests = dict(
        connection.execute(
            "SELECT kind, COUNT(*) FROM requests WHERE workspace = ? GROUP BY kind",
            [workspace],
        ).fetchall()
    )
    (windows,) = connection.execute(
        "SELECT COUNT(*) FROM windows WHERE workspace = ?", [workspace]
    ).fetchone()
    classes = _classes(connection, workspace, models)
    results = sum(row.count for row in classes)
    return Overview(
        reports=requests.get("report", 0) + windows,
        metadata_requests=requests.get("metadata", 0),
        models=_models(connection, workspace),
        results=results,
        average=sum(row.average * row.count for row in classes) / results
        if results
        else None,
        class_count=len(classes),
        classes=heapq.nsmallest(
            MAX_ROWS,
            classes,
            key=lambda row: (-row.count, row.model_id, row.class_name),
        ),
        metadata=_metadata(connection, workspace, models),
        windows=read_windows(connection, workspace),
    )


def read_windows(connection: sqlite3.Connection, workspace: str) -> list[WindowRow]:
    """Sum up the windows of each aggregator and feed, the latest first."""
    rows = connection.execute(
        "SELECT aggregator, feed, COUNT(*), CAST(SUM(frames) AS INTEGER),"
        " CAST(SUM(detections) AS INTEGER),"
        " SUM(total) / NULLIF(SUM(inside), 0), MAX(partial), MAX(ended_us) AS latest"
        " FROM (SELECT aggregator, feed, ended_us,"
        "  (SELECT TOTAL(p.frames) FROM parts p WHERE p.window = w.number) AS frames,"
        "  (SELECT MAX(p.is_partial) FROM parts p WHERE p.window = w.number)"
        "   IS 1 OR NOT is_counted AS partial,"
        "  TOTAL(c.detections) AS detections, TOTAL(c.sum) / ? AS total,"
        "  TOTAL(c.detections - c.outside) AS inside"
        "  FROM windows w LEFT JOIN parts p ON p.window = w.number"
        "  LEFT JOIN counts c ON c.part = p.number"
        "  WHERE w.workspace = ? GROUP BY w.number)"
        " GROUP BY aggregator, feed ORDER BY latest DESC, aggregator, feed LIMIT ?",
        [2.0**32, workspace, MAX_ROWS],
    )
    return [WindowRow(*row) for row in rows]


def _classes(
    connection: sqlite3.Connection, workspace: str, models: tuple[str, ...]
) -> list[ClassRow]:
    condition, names = series_filter(workspace, models)
    rows = connection.execute(
        "SELECT s.model_id, s.class_name,"  # noqa: S608 - the condition holds marks only
        " COUNT(*), AVG(r.confidence), MAX(r.confidence), MAX(r.received_us)"
        " FROM series s CROSS JOIN results r ON r.series_id = s.id"
        f" WHERE {condition} GROUP BY s.model_id, s.class_name",
        names,
    )
    return [ClassRow(*row) for row in rows]


def _models(connection: sqlite3.Connection, workspace: str) -> list[str]:
    rows = connection.execute(
        "SELECT project FROM series WHERE workspace = ?1"
        " UNION SELECT model_id FROM series WHERE workspace = ?1 ORDER BY 1 LIMIT ?2",
        [workspace, MAX_ROWS],
    )
    return [name for (name,) in rows]


def _metadata(
    connection: sqlite3.Connection, workspace: str, models: tuple[str, ...]
) -> list[MetadataRow]:
    condition, names = series_filter(workspace, models)
    # SQLite takes the bare column, inference_id, from the row that has the maximum.
    rows = connection.execute(
        "SELECT field_name, field_value,"  # noqa: S608 - the condition holds marks only
        " COUNT(*), SUM(reported), inference_id, MAX(received_us) AS latest"
        " FROM (SELECT *, EXISTS (SELECT 1 FROM results r JOIN series s"
        "  ON s.id = r.series_id WHERE r.inference_id = m.inference_id"
        f"  AND r.inference_id <> '' AND {condition}) AS reported"
        "  FROM metadata m WHERE workspace = ?)"
        " WHERE reported OR ? GROUP BY field_name, field_value"
        " ORDER BY latest DESC, field_name, field_value LIMIT ?",
        [*names, workspace, not models, MAX_ROWS],
    )
    return [MetadataRow(*row) for row in rows]
