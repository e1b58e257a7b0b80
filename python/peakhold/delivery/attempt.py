"""One attempt at one record, and what its outcome means."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peakhold.delivery.encode import encode, split
from peakhold.delivery.policy import NOT_FOUND, Verdict, status_of, verdict
from peakhold.delivery.sender import PartlySentError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from peakhold.delivery.lane import Lane
    from peakhold.delivery.notices import Notices
    from peakhold.delivery.outbox import Outbox
    from peakhold.delivery.record import Record
    from peakhold.delivery.sender import Sender


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

    def attempt(
        self, record: Record, lane: Lane, sender: Sender, *, every_part: bool
    ) -> Exception | None:
        """Make the request of a leased record; returns why it failed, or None.

        Args:
            record: The record. If its body is too long it becomes several.
            lane: Its destination.
            sender: Who makes the request.
            every_part: Whether to send all of those, or the first and let the others
                wait.
        """
        parts = [record]
        first = record.body is None and (every_part or not lane.backoff.failures)
        try:
            workspace = lane.workspace.get(sender)
            if record.body is None:
                parts = encode(record, sender.facts())
                leased = len(parts) if every_part else 1
                self._outbox.replace(record, parts, leased=leased)
                del parts[leased:]
            while parts:
                self._send(parts[0], lane, sender, workspace)
                self._outbox.acknowledge(parts[0])
                delivered = parts.pop(0)
        except Exception as error:  # noqa: BLE001 - an injected client may raise any
            return self._failed(parts.pop(0), lane, sender, error)
        finally:
            for part in parts:
                self._outbox.release(part)
        self._answered(lane)
        if first and delivered.on_first_success:
            delivered.on_first_success()
        return None

    def _send(self, record: Record, lane: Lane, sender: Sender, workspace: str) -> None:
        try:
            sender.send(record, workspace)
        except Exception as error:
            if status_of(error) != NOT_FOUND:
                raise
            # The workspace may have been renamed since it was looked up.
            sender.send(record, lane.workspace.refresh(sender))

    def _failed(
        self, record: Record, lane: Lane, sender: Sender, error: Exception
    ) -> Exception:
        if isinstance(error, PartlySentError):
            sent, record_left = split(record, error.sent)
            self._outbox.replace(record, [sent, record_left], leased=2)
            self._outbox.acknowledge(sent)
            record, error = record_left, error.cause
        judged = verdict(error)
        endpoint = record.destination.endpoint
        why = (type(error).__name__, sender.describe(error))
        if judged in (Verdict.RETRY, Verdict.PARK):
            with self._lock:
                now = self._clock()
                lane.backoff.failed(now, error, judged)
                wait = lane.backoff.not_before - now
            self._outbox.release(record)
            self._notices.warn(
                judged.value,
                "Delivering to %s failed (%s: %s); the next attempt is in %.0f s",
                endpoint,
                *why,
                wait,
            )
            return error
        halves = split(record) if judged is Verdict.TOO_LARGE else []
        if halves:
            self._outbox.replace(record, halves, leased=0)
        else:
            self._outbox.drop(record, judged.value)
            self._notices.warn(
                judged.value,
                "%s does not take a %s, which is dropped (%s: %s)",
                endpoint,
                record.kind,
                *why,
            )
        self._answered(lane)
        return error

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
