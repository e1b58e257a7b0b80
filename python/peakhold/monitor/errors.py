"""What can go wrong in the monitor, one class per cause."""

from __future__ import annotations

from peakhold.errors import PeakholdError

NO_THREAD = (
    "no thread could be started ({}); raise the limit of processes, `ulimit -u` or "
    "`docker run --pids-limit`"
)


class MonitorError(PeakholdError):
    """Root of the monitor's errors: it could not start, or it is not running."""


class StoreError(MonitorError):
    """The data file cannot be used: foreign, newer, unreadable, full or locked."""


class StoreBusyError(StoreError):
    """More is waiting to be written than the monitor keeps in memory; try again."""


class InvalidRequestError(MonitorError):
    """A request that does not have the shape of the contract.

    Attributes:
        field: Which part of the request is wrong, such as
            `inference_results[0].confidence`; `None` when it is the body as a whole.
        reason: What is wrong with it, as a sentence without its value.
    """

    def __init__(self, reason: str, *, field: str | None = None) -> None:
        super().__init__(reason if field is None else f"{field} {reason}")
        self.field = field
        self.reason = reason
