"""What delivery is doing, as plain values: the same for people and for exporters."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from peakhold._peakhold import rejected_inference_ids
from peakhold.delivery.process import current
from peakhold.delivery.rejections import by_reason

if TYPE_CHECKING:
    from peakhold.delivery.dispatcher import Dispatcher


def health(dispatcher: Dispatcher | None = None) -> dict[str, Any]:
    """Return how delivery is doing, as JSON can say it.

    ``counts`` hold ``sealed == delivered + pending + parked + dead + dropped``, summed
    over all processes that share the outbox and over their restarts. ``committed`` has
    these figures of what is in the outbox already, as of one moment: its totals never
    fall, but for a damaged file; None while the file cannot be read. ``destinations``
    has an entry per destination with records of these three states, the age in seconds
    of the oldest one, the last error, and what this process is up to: seconds until its
    next attempt, None if it has none to make. Of each, ``oldest_report`` tells how long
    the oldest pending report waits and may wait, and ``behind`` is None, or the cause
    and the remedy if that is too long: ``cause``, ``text`` and ``remedy``.

    ``warnings`` counts causes of trouble of this process. ``rejected`` has by reason
    the ``count`` of detections that its open windows did not take, and of inference ids
    that could not be read for custom metadata; and ``by``, the ten greatest parts of
    it, each with ``window``, ``model_id`` and ``count``.

    ``sharing`` says who shares windows, ``off``, ``host`` or ``redis``, and how many
    ``parts`` of shared windows this process has sealed, how many of them came ``late``,
    when their epoch was closed, or had to be reported ``alone``, of how many it is
    ``unsure`` whether two reports have them, because a Redis server was away or forgot
    them, and how many ``reports`` it made of all processes' parts. No value holds an
    api key.

    Args:
        dispatcher: Whose; None for the process's own.

    Raises:
        ValueError: If a variable of the environment cannot be used.
    """
    dispatcher = dispatcher or current()
    uncommitted, committed = dispatcher.committer.counts(), dispatcher.outbox.counts()
    return {
        "state_directory": str(dispatcher.state.path) if dispatcher.state else None,
        "durability": dispatcher.durability,
        "disk_error": dispatcher.outbox.disk_error,
        "counts": asdict(uncommitted + committed),
        "committed": asdict(committed) if dispatcher.outbox.readable else None,
        "destinations": dispatcher.destinations(),
        "rejected": by_reason(dispatcher.rejected(), rejected_inference_ids()),
        "sharing": dispatcher.sharing(),
        "warnings": dict(dispatcher.notices.counts),
    }
