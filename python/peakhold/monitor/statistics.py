"""What the statistics call reads: a period, and the one of equal length before it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from peakhold.monitor.errors import InvalidRequestError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MICROSECOND = timedelta(microseconds=1)

MAX_MODELS = 100
"""Most names in a filter: older SQLite takes 999 parameters in a statement."""


@dataclass(frozen=True)
class Period:
    """A stretch of time, its end excluded, in microseconds since 1970 UTC."""

    start_us: int
    end_us: int

    @property
    def previous(self) -> Period:
        """The period of equal length that ends where this one starts."""
        return Period(2 * self.start_us - self.end_us, self.start_us)


@dataclass
class _Tally:
    count: int = 0
    total: float = 0.0
    maximum: float | None = None

    def add(self, count: int, total: float, maximum: float) -> None:
        self.count += count
        self.total += total
        self.maximum = maximum if self.maximum is None else max(self.maximum, maximum)

    @property
    def average(self) -> float | None:
        return self.total / self.count if self.count else None


@dataclass
class _PeriodTally:
    overall: _Tally = field(default_factory=_Tally)
    classes: dict[tuple[str, str], _Tally] = field(default_factory=dict)


def parse_period(start: str | None, end: str | None) -> Period:
    """Read the two times of a statistics call, `YYYY-MM-DD HH:mm:ss` in UTC.

    Raises:
        InvalidRequestError: One is missing or malformed, or they are not in order.
    """
    period = Period(_microseconds("startTime", start), _microseconds("endTime", end))
    if period.start_us >= period.end_us:
        raise InvalidRequestError("must be before endTime", field="startTime")
    return period


def parse_models(names: str | None) -> tuple[str, ...]:
    """Read the filter of a statistics call: names between commas, none for all.

    Raises:
        InvalidRequestError: There are too many.
    """
    models = tuple(name for name in (names or "").split(",") if name)
    if len(models) > MAX_MODELS:
        raise InvalidRequestError(
            f"must have at most {MAX_MODELS} names, it has {len(models):,}",
            field="modelNames",
        )
    return models


def read_statistics(
    connection: sqlite3.Connection,
    workspace: str,
    period: Period,
    models: Sequence[str],
) -> dict[str, Any]:
    """Sum the results that arrived in a period and in the one before it.

    `num_inferences` counts inference results, so that it is the sum of those of the
    classes. Reports carry neither response times nor errors (what failed is not in
    them): both are None, for unknown, as is an average over nothing.

    Args:
        connection: A reading connection.
        workspace: Whose results.
        period: When they arrived.
        models: Project parts ("my_project") or whole model ids ("my_project/3");
            empty for all.
    """
    now = _tally(connection, workspace, period, models)
    before = _tally(connection, workspace, period.previous, models)
    return {
        "num_inferences": now.overall.count,
        "prev_num_inferences": before.overall.count,
        "num_errors": None,
        "prev_num_errors": None,
        "avg_confidence": now.overall.average,
        "prev_avg_confidence": before.overall.average,
        "avg_response_time": None,
        "prev_avg_response_time": None,
        "inference_stats": [
            {
                "model_name": project,
                "predicted_class": class_name,
                "num_inferences": tally.count,
                "num_errors": None,
                "avg_confidence": tally.average,
                "max_confidence": tally.maximum,
                "avg_response_time": None,
            }
            for (project, class_name), tally in sorted(
                now.classes.items(), key=lambda item: (-item[1].count, item[0])
            )
        ],
    }


def series_filter(workspace: str, models: Sequence[str]) -> tuple[str, list[str]]:
    """Make the condition on `series s` for a workspace and, if any, some models."""
    if not models:
        return "s.workspace = ?", [workspace]
    marks = ", ".join("?" * len(models))
    return (
        f"s.workspace = ? AND (s.project IN ({marks}) OR s.model_id IN ({marks}))",
        [workspace, *models, *models],
    )


def _tally(
    connection: sqlite3.Connection,
    workspace: str,
    period: Period,
    models: Sequence[str],
) -> _PeriodTally:
    condition, names = series_filter(workspace, models)
    # Grouped in the order of the series, each one range of the index of results, so
    # that nothing is sorted; CROSS JOIN fixes which table is walked first.
    rows = connection.execute(
        "SELECT s.project, s.class_name,"  # noqa: S608 - the condition holds marks only
        " COUNT(*), SUM(r.confidence), MAX(r.confidence)"
        " FROM series s CROSS JOIN results r ON r.series_id = s.id"
        f" WHERE {condition} AND r.received_us >= ? AND r.received_us < ?"
        " GROUP BY s.model_id, s.class_name",
        [*names, period.start_us, period.end_us],
    )
    tally = _PeriodTally()
    for project, class_name, *sums in rows:
        tally.overall.add(*sums)
        tally.classes.setdefault((project, class_name), _Tally()).add(*sums)
    return tally


def _microseconds(name: str, text: str | None) -> int:
    if text is None:
        raise InvalidRequestError("is missing", field=name)
    if not _TIME.fullmatch(text):
        raise InvalidRequestError("must be YYYY-MM-DD HH:mm:ss, in UTC", field=name)
    try:
        moment = datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    except ValueError as error:
        raise InvalidRequestError("is not a time that exists", field=name) from error
    return (moment - _EPOCH) // _MICROSECOND
