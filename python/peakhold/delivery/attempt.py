"""One attempt at one record, and what its outcome means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peakhold.delivery.policy import (
    NOT_FOUND,
    Verdict,
    reason_of,
    status_of,
    verdict,
    verdict_of_others,
)
from peakhold.interpreter import give_way
from peakhold.notices import Failure
from peakhold.records.encode import split

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from peakhold.delivery.lane import Lane
    from peakhold.delivery.sender import Sender
    from peakhold.delivery.workspace import Workspace
    from peakhold.notices import Notices
    from peakhold.outbox import Outbox
    from peakhold.records import Record

_UNREADABLE = {400, 422}


def _request(
    record: Record, workspace: Workspace, sender: Sender
) -> tuple[Exception, Verdict] | None:
    """Make the request; returns why it failed and what that means, or None."""
    failed = None
    for look_up in (workspace.get, workspace.refresh):
        try:
            name = look_up(sender)
        except Exception as error:  # noqa: BLE001 - an injected client may raise any
            return error, verdict_of_others(error)
        give_way()
        try:
            sender.send(record, name)
        except Exception as error:  # noqa: BLE001 - likewise
            failed = error, verdict(error)
            if status_of(error) != NOT_FOUND:
                break
            # Else it may have been renamed since it was looked up.
        else:
            return None
    return failed


def _parts(record: Record, error: Exception, judged: Verdict) -> list[Record]:
    """Return the records to send instead of one that failed, if that may help."""
    if judged is Verdict.TOO_LARGE:
        return split(record)
    refused = judged is Verdict.REFUSED and status_of(error) in _UNREADABLE
    if refused and record.kind == "metadata":
        # Entries of many frames share a request; one that is refused costs no other.
        return split(record, after_entry="middle")
    return []


class Attempts:
    """Sends leased records and settles them in the outbox."""

    def __init__(
        self,
        outbox: Outbox,
        notices: Notices,
        clock: Callable[[], float],
        lock: AbstractContextManager[object],
    ) -> None:
        """Bind to a dispatcher's parts; ``lock`` covers the lanes."""
        self._outbox = outbox
        self._notices = notices
        self._clock = clock
        self._lock = lock

    def attempt(self, record: Record, lane: Lane, sender: Sender) -> Exception | None:
        """Make the request of a leased record; returns why it failed, or None.

        Raises:
            BaseException: Whatever a client raises that is no ``Exception``. The record
                is pending again.
        """
        try:
            first_success = lane.take_first_success(record)
            try:
                failed = _request(record, lane.workspace, sender)
            except BaseException as error:
                self._unexpected(record, error)
                self._put_off(lane, error, Verdict.RETRY)
                raise
            if failed is not None:
                self._failed(record, lane, sender, *failed)
                return failed[0]
            self._outbox.acknowledge(record)
            self._answered(lane)
        finally:
            self._outbox.release(record)
        try:
            first_success()
        except Exception as error:  # noqa: BLE001 - the record is delivered all the same
            self._unexpected(record, error)
        return None

    def _failed(
        self,
        record: Record,
        lane: Lane,
        sender: Sender,
        error: Exception,
        judged: Verdict,
    ) -> None:
        """Do what the failure means for the record and for its destination."""
        text = f"{type(error).__name__}: {sender.describe(error)}"
        if parts := _parts(record, error, judged):
            self._outbox.replace(record, parts)
            self._answered(lane)
            return
        if judged in (Verdict.RETRY, Verdict.PARK):
            state = "parked" if judged is Verdict.PARK else "pending"
            delay = self._put_off(lane, error, judged)
            self._notices.warn(
                judged.value,
                "Delivering to %s failed (%s); the next attempt is in %.0f s",
                record.destination.endpoint,
                text,
                delay,
            )
        else:
            state, delay = "dead", 0.0
            self._notices.warn(
                judged.value,
                "%s refuses a record (%s), which is kept as a dead letter: %s",
                record.destination.endpoint,
                record.kind,
                text,
            )
            self._answered(lane)
        self._outbox.failed(record, state, reason_of(error, judged), text, delay)
        self._notices.failed(
            Failure(record.destination.endpoint, record.kind, record.id, state, text)
        )

    def _unexpected(self, record: Record, error: BaseException) -> None:
        what = "metadata" if record.kind == "metadata" else "a report"
        self._notices.warn(
            "attempt",
            "An attempt to send %s was ended by %s; what did not arrive is sent again",
            what,
            type(error).__name__,
        )

    def _put_off(self, lane: Lane, error: BaseException, judged: Verdict) -> float:
        """Leave a destination alone for a while; returns for how many seconds."""
        with self._lock:
            now = self._clock()
            lane.backoff.failed(now, error, judged)
            return lane.backoff.not_before - now

    def _answered(self, lane: Lane) -> None:
        """Note that the destination is up."""
        with self._lock:
            failures = lane.backoff.succeeded()
        if failures:
            self._notices.info(
                "Delivering to %s works again after %d failed attempts",
                lane.sender.destination.endpoint,
                failures,
            )
