"""Falling behind: reports that wait for too long, why they do, and what helps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from peakhold.outbox.ownership import runs
from peakhold.outbox.waits import is_overdue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peakhold.outbox import StateDirectory

RATE_VARIABLE = "PEAKHOLD_REQUESTS_PER_SECOND"

_FEWER = (
    "have windows close less often (a greater `frequency`), or fewer of them, or the "
    "endpoint answer faster: it gets one request at a time"
)


@dataclass(frozen=True)
class Behind:
    """Why the reports of a destination wait.

    Attributes:
        cause: ``failing``, requests to it fail; ``bounded``, the rate after an outage
            bounds them; ``slow``, windows close faster than it answers; ``idle``, no
            process delivers.
        text: The cause in a sentence, without a full stop.
        remedy: What helps, likewise.
    """

    cause: Literal["failing", "bounded", "slow", "idle"]
    text: str
    remedy: str


def failing(last_error: str | None) -> Behind:
    """Return that requests fail."""
    return Behind(
        "failing",
        "requests to it fail" + (f", the last with {last_error}" if last_error else ""),
        "put that right; `peakhold doctor` tries the endpoint",
    )


def bounded(rate: float) -> Behind:
    """Return that at most so many requests a second follow an outage."""
    return Behind(
        "bounded",
        f"after an outage at most {rate:g} requests a second go out until its backlog "
        "is gone",
        f"wait for that, or start the program with a greater {RATE_VARIABLE}",
    )


def slow(closed: float | None, sent: float) -> Behind:
    """Return that windows close faster than reports are sent, both a second."""
    figures = f": {closed:.1f} a second against {sent:.1f}" if closed else ""
    return Behind(
        "slow", f"windows close faster than the endpoint takes reports{figures}", _FEWER
    )


def seen_from_outside(
    destination: Mapping[str, Any], state: StateDirectory
) -> Behind | None:
    """Return why a destination of another process is behind; None if it is not.

    Args:
        destination: An entry of the outbox's ``overview``.
        state: Where the outbox is.
    """
    if not is_overdue(destination):
        return None
    oldest = destination["oldest_report"]
    if oldest["failed"]:
        return failing(destination["last_error"])
    if not _runs(state, oldest["owner"]):
        return Behind(
            "idle",
            "the process whose reports they are has ended",
            "start the program again, or run `peakhold flush` with its api key",
        )
    closed = oldest["reports"] / oldest["age"]
    return Behind(
        "slow",
        f"{closed:.1f} reports a second were closed, and fewer sent",
        f"{_FEWER}. After an outage {RATE_VARIABLE} bounds the requests, and with "
        "OFFLINE_MODE there are none: the log of the process says which it is",
    )


def _runs(state: StateDirectory, owner: object) -> bool:
    try:
        return runs(state, owner)
    except OSError:  # then nobody can tell
        return True


def plain(behind: Behind | None) -> dict[str, str] | None:
    """Return it as JSON can say it."""
    return None if behind is None else asdict(behind)
