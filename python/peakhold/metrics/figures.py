"""What is exported: names, units and labels, and where ``health()`` has the values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from peakhold.delivery.health import health
from peakhold.notices import Notices
from peakhold.outbox.ledger import BY_HAND
from peakhold.roboflow.redaction import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MOST_ENDPOINTS = 50
OTHER = "other"
"""Endpoints with series of their own, and the name of all others together."""

STATES = ("pending", "parked", "dead")
REASONS = ("overflow", "expired", "damaged", "unencodable", "dead letters", BY_HAND)
"""Of drops; exported from 0 on, for the first one is to show as an increase."""

Health = dict[str, Any]
Sample = tuple[tuple[str, ...], float]
"""Values of the labels, and the figure."""


@dataclass(frozen=True)
class Figure:
    """One metric.

    Attributes:
        name: Words joined by dots.
        kind: A ``counter`` never falls; what a ``sum`` counts may leave again; a
            ``gauge`` is not to be added up.
        unit: As UCUM writes it.
        description: What it is.
        labels: Names of its labels.
        samples: Finds the values in what ``health()`` returned.
    """

    name: str
    kind: Literal["counter", "sum", "gauge"]
    unit: str
    description: str
    labels: tuple[str, ...]
    samples: Callable[[Health], Iterable[Sample]]


@cache
def _notices() -> Notices:
    return Notices()


def read() -> Health:
    """Return what ``health()`` does; nothing, and a warning, if that raises."""
    try:
        return health()
    except Exception as error:  # noqa: BLE001 - the host's own metrics come all the same
        _notices().warn("metrics", "No figures could be read: %s", error)
        return {}


def without_secrets(endpoint: str) -> str:
    """Return an endpoint without user, password, query and fragment."""
    try:
        parts = urlsplit(endpoint)
        _ = parts.port  # reading it checks it: what is before an @ is no host
    except ValueError:
        return OTHER
    scheme = f"{parts.scheme}://" if parts.netloc else ""
    return redact(scheme + (parts.netloc + parts.path).rpartition("@")[2])


def _total(name: str) -> Callable[[Health], Iterable[Sample]]:
    def samples(found: Health) -> Iterable[Sample]:
        if committed := found.get("committed"):
            yield (), committed[name]

    return samples


def _dropped(found: Health) -> Iterable[Sample]:
    if committed := found.get("committed"):
        dropped = dict.fromkeys(REASONS, 0) | committed["dropped"]
        for reason, seals in dropped.items():
            yield (reason,), seals


def _records(found: Health) -> Iterable[Sample]:
    if committed := found.get("committed"):
        yield ("uncommitted",), found["counts"]["pending"] - committed["pending"]
        for state in STATES:
            yield (state,), committed[state]


def _rejected(found: Health) -> Iterable[Sample]:
    for reason, rows in found.get("rejected", {}).items():
        yield (reason,), rows["count"]


def _by_endpoint(found: Health) -> dict[str, list[dict[str, Any]]]:
    """Return the destinations; those that differ in key or client only are one."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in found["destinations"] if found.get("committed") else ():
        endpoint = without_secrets(row["endpoint"])
        if endpoint not in rows and len(rows) >= MOST_ENDPOINTS:
            endpoint = OTHER
        rows.setdefault(endpoint, []).append(row)
    return rows


def _destination_records(found: Health) -> Iterable[Sample]:
    for endpoint, rows in _by_endpoint(found).items():
        for state in STATES:
            yield (endpoint, state), sum(row[state] for row in rows)


def _oldest_age(found: Health) -> Iterable[Sample]:
    for endpoint, rows in _by_endpoint(found).items():
        ages = [row["oldest_age"] for row in rows if row["oldest_age"] is not None]
        if ages:
            yield (endpoint,), max(ages)


def _behind(found: Health) -> Iterable[Sample]:
    for endpoint, rows in _by_endpoint(found).items():
        yield (endpoint,), int(any(row["behind"] for row in rows))


def _disk_failing(found: Health) -> Iterable[Sample]:
    if found:
        yield (), int(found["disk_error"] is not None)


def _counted(name: str) -> Callable[[Health], Iterable[Sample]]:
    def samples(found: Health) -> Iterable[Sample]:
        for what, count in found.get(name, {}).items():
            yield (what,), count

    return samples


def _sharing(name: str) -> Callable[[Health], Iterable[Sample]]:
    def samples(found: Health) -> Iterable[Sample]:
        if sharing := found.get("sharing"):
            yield (), sharing[name]

    return samples


FIGURES = (
    Figure(
        "peakhold.records.sealed",
        "counter",
        "{record}",
        "Reports and metadata requests that the outbox has taken in.",
        (),
        _total("sealed"),
    ),
    Figure(
        "peakhold.records.delivered",
        "counter",
        "{record}",
        "Records that their endpoint has acknowledged.",
        (),
        _total("delivered"),
    ),
    Figure(
        "peakhold.records.dropped",
        "counter",
        "{record}",
        "Records that were given up.",
        ("reason",),
        _dropped,
    ),
    Figure(
        "peakhold.outbox.records",
        "sum",
        "{record}",
        "Records that are neither delivered nor dropped.",
        ("state",),
        _records,
    ),
    Figure(
        "peakhold.outbox.disk_failing",
        "sum",
        "{disk}",
        "1 while the state directory cannot be written or read.",
        (),
        _disk_failing,
    ),
    Figure(
        "peakhold.destination.records",
        "sum",
        "{record}",
        "Records that are neither delivered nor dropped, by where they are to go.",
        ("endpoint", "state"),
        _destination_records,
    ),
    Figure(
        "peakhold.destination.oldest_age",
        "gauge",
        "s",
        "Age of the oldest record that is pending or parked.",
        ("endpoint",),
        _oldest_age,
    ),
    Figure(
        "peakhold.destination.behind",
        "gauge",
        "1",
        "1 while reports wait there for too long.",
        ("endpoint",),
        _behind,
    ),
    Figure(
        "peakhold.windows.rejected",
        "sum",
        "{detection}",
        "Detections, inference ids or whole frames that were not taken.",
        ("reason",),
        _rejected,
    ),
    Figure(
        "peakhold.sharing.parts",
        "counter",
        "{part}",
        "Parts of shared windows that this process sealed.",
        (),
        _sharing("parts"),
    ),
    Figure(
        "peakhold.sharing.late",
        "counter",
        "{part}",
        "Parts that came after their epoch was closed.",
        (),
        _sharing("late"),
    ),
    Figure(
        "peakhold.sharing.alone",
        "counter",
        "{part}",
        "Parts that were reported without those of other processes.",
        (),
        _sharing("alone"),
    ),
    Figure(
        "peakhold.sharing.unsure",
        "counter",
        "{part}",
        "Parts that may be in two reports, because Redis forgot them.",
        (),
        _sharing("unsure"),
    ),
    Figure(
        "peakhold.sharing.reports",
        "counter",
        "{record}",
        "Reports that this process made of the parts of all processes.",
        (),
        _sharing("reports"),
    ),
    Figure(
        "peakhold.warnings",
        "counter",
        "{warning}",
        "Warnings of this process, those not logged included.",
        ("cause",),
        _counted("warnings"),
    ),
)
