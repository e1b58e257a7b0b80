"""One attempt at one record, and what its outcome means."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from peakhold.delivery.encode import encode, first_entry_apart, split
from peakhold.delivery.policy import (
    NOT_FOUND,
    Verdict,
    status_of,
    verdict,
    verdict_of_others,
)
from peakhold.delivery.sender import Sender

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from peakhold.delivery.lane import Lane
    from peakhold.delivery.notices import Notices
    from peakhold.delivery.outbox import Outbox
    from peakhold.delivery.record import Record

_T = TypeVar("_T")


class _BeforehandError(Exception):
    """What an attempt needs failed, so its status is not one of the record."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


def _beforehand(ask: Callable[[Sender], _T], sender: Sender) -> _T:
    try:
        return ask(sender)
    except Exception as error:  # noqa: BLE001 - an injected client may raise any
        raise _BeforehandError(error) from None


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
            record: The record. It becomes several if its body is too long, or if the
                client takes one metadata entry a call and there are more.
            lane: Its destination.
            sender: Who makes the request.
            every_part: Whether to send all of those, or the first and let the others
                wait.

        Raises:
            BaseException: Whatever a client raises that is no ``Exception``. The record
                is pending again.
        """
        parts = [record]
        try:
            return self._attempt(parts, lane, sender, every_part=every_part)
        except BaseException as error:
            self._notices.warn(
                "attempt",
                "An attempt at a %s ended in an unexpected %s",
                record.kind,
                type(error).__name__,
            )
            if parts:  # else it was about what comes after a delivery
                self._put_off(lane, error, Verdict.RETRY)
            if not isinstance(error, Exception):  # the thread's end, and the like
                raise
            return error if parts else None
        finally:
            for part in parts:
                self._outbox.release(part)

    def _attempt(
        self, parts: list[Record], lane: Lane, sender: Sender, *, every_part: bool
    ) -> Exception | None:
        """Make the requests of ``parts``, of which those that are settled leave it."""
        first = parts[0].body is None and (every_part or not lane.backoff.failures)
        try:
            workspace = _beforehand(lane.workspace.get, sender)
            while parts:
                if parts[0].body is None:
                    self._encode(parts, sender, every_part=every_part)
                self._send(parts[0], lane, sender, workspace)
                self._outbox.acknowledge(parts[0])
                delivered = parts.pop(0)
        except Exception as error:  # noqa: BLE001 - an injected client may raise any
            return self._failed(parts, lane, sender, error)
        self._answered(lane)
        if first and delivered.on_first_success:
            delivered.on_first_success()
        return None

    def _encode(self, parts: list[Record], sender: Sender, *, every_part: bool) -> None:
        """Put records, of which the next has its body, in place of the next one."""
        whole = parts[0]
        entries = [whole] if sender.sends_bodies else first_entry_apart(whole)
        facts = _beforehand(Sender.facts, sender)
        encoded = [*encode(entries[0], facts), *entries[1:]]
        leased = len(encoded) if every_part else 1
        self._outbox.replace(whole, encoded, leased=leased)
        parts[:1] = encoded[:leased]

    def _send(self, record: Record, lane: Lane, sender: Sender, workspace: str) -> None:
        try:
            sender.send(record, workspace)
        except Exception as error:
            if status_of(error) != NOT_FOUND:
                raise
            # The workspace may have been renamed since it was looked up.
            renamed = _beforehand(lane.workspace.refresh, sender)
            sender.send(record, renamed)

    def _failed(
        self, parts: list[Record], lane: Lane, sender: Sender, error: Exception
    ) -> Exception:
        judge = verdict
        if isinstance(error, _BeforehandError):
            judge, error = verdict_of_others, error.cause
        judged = judge(error)
        record = parts[0]
        endpoint = record.destination.endpoint
        why = (type(error).__name__, sender.describe(error))
        if judged in (Verdict.RETRY, Verdict.PARK):
            self._notices.warn(
                judged.value,
                "Delivering to %s failed (%s: %s); the next attempt is in %.0f s",
                endpoint,
                *why,
                self._put_off(lane, error, judged),
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
        del parts[0]
        self._answered(lane)
        return error

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
