"""One destination: what waits for it, how it is doing, and the requests to it."""

from __future__ import annotations

from collections import deque
from dataclasses import astuple, dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from peakhold.delivery.handover import Handover
from peakhold.delivery.lateness import Lateness
from peakhold.delivery.metadata import BATCH_AGE, PendingMetadata
from peakhold.delivery.pace import Backlog, Pace
from peakhold.delivery.policy import Backoff, Verdict
from peakhold.interpreter import give_way
from peakhold.notices import Failure
from peakhold.records import Record, seal_metadata

if TYPE_CHECKING:
    import threading
    import weakref
    from collections.abc import Callable, Sequence

    from peakhold.delivery.committer import Committer
    from peakhold.delivery.exporter import Exporter, Outcome
    from peakhold.delivery.handover import Passed, Window
    from peakhold.delivery.journal import Journals
    from peakhold.delivery.monitors import Monitors
    from peakhold.delivery.scheduler import Scheduler
    from peakhold.delivery.settings import DeliverySettings
    from peakhold.notices import Notices
    from peakhold.outbox import Outbox
    from peakhold.records import Kind

_LATER = (Verdict.RETRY, Verdict.PARK)

IDLE = 600.0
"""Seconds after which a destination that has nothing to send is forgotten."""
FROM_MEMORY = 10
"""Records that are sent from memory; what is more is read back from the outbox, which
holds all of them."""


@dataclass(frozen=True)
class Shared:
    """What all destinations of a dispatcher have in common.

    Attributes:
        outbox: Where records wait.
        committer: Takes the records of metadata.
        journals: Where metadata is written down until then.
        monitors: Which endpoints are peakhold monitors.
        notices: Where trouble is counted.
        settings: Rates.
        lock: Covers the state of the destinations.
        clock: Monotonic time in seconds.
        jitter: Draws a number between two others.
        scheduler: Has their turns come.
    """

    outbox: Outbox
    committer: Committer
    journals: Journals
    monitors: Monitors
    notices: Notices
    settings: DeliverySettings
    lock: threading.RLock
    clock: Callable[[], float]
    jitter: Callable[[float, float], float]
    scheduler: Scheduler


class Leased(NamedTuple):
    """A record on lease, and its window if this is the first attempt.

    Attributes:
        record: The record.
        window: Its window, if this is the first attempt.
        since: Monotonic time since which it waits, if that matters.
    """

    record: Record
    window: Window | None
    since: float = float("-inf")


class Destination:
    """Sends to one endpoint with one key, one request at a time.

    Its state is covered by the lock of the dispatcher, which is not held while anything
    is sent. A synchronous caller sends its own record at once, beside it.

    Attributes:
        exporter: The one registered last.
        metadata: What frames left, and is not in a record yet.
        backoff: When it may be tried again.
        wanted: Whether somebody at the command line wants the next attempt made now.
        busy: Whether a thread is at work on it.
        host_task: The host's task for it, until that ran or was thrown away.
        host_until: Monotonic time until which it is left to the host's task.
        used: Monotonic time of the last use.
        owner: What knows it; None once it is forgotten.
        stored_changes: How often it came to know of something in the outbox.
        pace: Of its requests while the backlog of an outage is drained.
        metadata_pace: Of its requests with metadata.
        backlog: What waits since an outage.
        lateness: Whether its reports wait for too long.
    """

    def __init__(self, exporter: Exporter, shared: Shared, owner: object) -> None:
        """Start with nothing to send."""
        self.owner: object | None = owner
        self.exporter = exporter
        self.key = exporter.destination
        self.metadata = PendingMetadata()
        self.backoff = Backoff(shared.jitter)
        self.wanted = False
        self.busy = False
        self._turns = 0
        self.host_task: weakref.ref[object] | None = None
        self.host_until = float("-inf")
        self.used = shared.clock()
        self.stored_changes = 0
        self._outbox = shared.outbox
        self._committer = shared.committer
        self._journals = shared.journals
        self._notices = shared.notices
        self._lock = shared.lock
        self._clock = shared.clock
        self._scheduler = shared.scheduler
        # Of the requests after an outage. Of those with metadata at any time: it never
        # stops, and even gaps coalesce it best.
        rate = shared.settings.rate
        self.pace = Pace(max(1, round(rate)), max(1.0, 1.0 / rate))
        self.metadata_pace = Pace(1, 1.0 / shared.settings.metadata_rate)
        self.backlog = Backlog()
        self.lateness = Lateness(
            self.key,
            self.backlog,
            rate,
            self._outbox,
            self._notices,
            self._clock,
        )
        self._sent_last: Kind | None = None
        self._leased: deque[Leased] = deque()
        self._stored: set[Kind] = set()
        self._sending: set[object] = set()
        self._monitors = shared.monitors
        exporter.begin(shared.notices, shared.monitors, None)

    def use(self, exporter: Exporter) -> None:
        """Have another exporter from now on; one with new settings is tried at once."""
        self.used = self._clock()
        if exporter is not self.exporter:
            is_new = exporter.begin(self._notices, self._monitors, self.exporter)
            if is_new:
                self.backoff.not_before = 0.0
            if is_new or self.exporter.offline:
                self.lateness.start_anew()
            self.exporter = exporter

    # What is to be done -----------------------------------------------------------

    def addressed(self, record: Record) -> Record:
        """Return a record with this destination; with an id of its own, if another's.

        The outbox and endpoints take an id once. It is the same in every version, and
        so it is made of the key's values and not of its ``repr``, which has a name.
        """
        if record.destination == self.key:
            return record
        values = repr(astuple(self.key)).encode("utf-8", "surrogatepass")
        name = sha256(values).hexdigest()[:8]
        return replace(record, destination=self.key, id=f"{record.id}.{name}")

    def admits(self, kind: Kind, count: int) -> bool:
        """Whether so many records could be sent now, and nothing older waits."""
        with self._lock:
            now = self._clock()
            room = FROM_MEMORY
            if self.backlog.holds(kind):
                room = min(room, max(1, self.pace.left(now)))
            return (
                kind not in self._stored
                and not self.exporter.offline
                and self.backoff.not_before <= now
                and len(self._leased) + count <= room
            )

    def take(self, passed: Passed) -> None:
        """Take records that are committed and on lease, to be sent from memory."""
        last = len(passed.records) - 1
        with self._lock:
            now = self._clock()
            self._leased.extend(
                Leased(record, passed.window if at == last else None, now)
                for at, record in enumerate(passed.records)
            )
        self.arrange()

    def note_stored(self, kind: Kind) -> None:
        """Know that the outbox has records of a kind."""
        with self._lock:
            self.stored_changes += 1
            self._stored.add(kind)
        self.arrange()

    def found(self, kinds: set[Kind], changes: int | None) -> None:
        """Know which kinds the outbox has, after it was looked through.

        Args:
            kinds: Those that were found.
            changes: ``stored_changes`` before the look, if that has found all; then
                there is no other kind, unless one came meanwhile.
        """
        with self._lock:
            whole = changes == self.stored_changes
            self._stored = kinds if whole else self._stored | kinds

    @property
    def is_failing(self) -> bool:
        """Whether it takes no reports now."""
        return self.exporter.offline or self.backoff.not_before > self._clock()

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do or to wait for."""
        # A turn that ends meanwhile began before, or is seen by its number.
        turns = self._turns
        if self.busy:
            return False
        idle = not (self.metadata or self._leased or self._stored or self._sending)
        return idle and turns == self._turns

    def next_kind(self) -> tuple[float, Kind] | None:
        """Return what may be sent next and when; None if there is nothing to send.

        The host's task is not considered.
        """
        if self.exporter.offline:
            return None
        now = self._clock()
        times: list[tuple[float, Kind]] = []
        kinds = {leased.record.kind for leased in self._leased} | self._stored
        if "report" in kinds:
            times.append((self._earliest("report"), "report"))
        if "metadata" in kinds or self.metadata:
            at = max(self._earliest("metadata"), self.metadata_pace.next_at())
            times.append((at, "metadata"))
        # Of two that are due the other one than last time.
        return min(
            times,
            key=lambda due: (max(due[0], now), due[1] == self._sent_last),
            default=None,
        )

    def _earliest(self, kind: Kind) -> float:
        """Return when a request of a kind may be made as far as the endpoint goes."""
        earliest = float("-inf") if self.wanted else self.backoff.not_before
        if self.backlog.holds(kind):
            earliest = max(earliest, self.pace.next_at())
        return earliest

    def next_at(self) -> float:
        """Return when a turn has something to do; infinity if there is nothing."""
        with self._lock:
            due = None if self.busy else self.next_kind()
            return max(due[0], self.host_until) if due else float("inf")

    def pack_at(self) -> float:
        """Return when metadata that is not sent yet is to be packed; or infinity."""
        if self.metadata.crowded:
            return self._clock()
        return self.metadata.since + BATCH_AGE

    def arrange(self) -> None:
        """Have the scheduler call when there is something to do."""
        turn_at, pack_at = self.next_at(), self.pack_at()
        self._scheduler.add(self.turn_due, turn_at)
        self._scheduler.add(self.pack_due, pack_at)

    # Doing it ---------------------------------------------------------------------

    def turn_due(self, _now: float) -> None:
        """Take a turn, and arrange the next one."""
        try:
            self.turn()
        finally:
            self.arrange()

    def turn(self, *, as_host: bool = False) -> bool:
        """Do what is due, and make one request if that may be now.

        Returns:
            Whether a request was made and succeeded.
        """
        mine = False
        try:
            with self._lock:
                if self.busy:
                    return False
                self._turns += 1
                mine = self.busy = True
            return self._turn(as_host=as_host)
        finally:
            if mine:
                self.busy = False

    def _turn(self, *, as_host: bool) -> bool:
        now = self._clock()
        with self._lock:
            due = self.next_kind()
            if due is None or due[0] > now:
                return False
            if not as_host and self.host_until > now:
                return False
            self.wanted = False
        batch: list[Leased] = []
        try:
            batch = self._next(due[1])
            give_way()
        except BaseException:
            self.give_back(batch)
            raise
        return bool(batch) and self.export(batch) is None

    def pack_due(self, now: float) -> None:
        """Pack what is old enough, or full requests of what is much.

        Not in a turn, for a request may take its time.
        """
        self.pack(whole=self.metadata.since + BATCH_AGE <= now)
        self._committer.commit()
        self.arrange()

    def pack(self, *, whole: bool = True) -> None:
        """Make records of metadata, of all of it or only of full requests."""
        for entries, journal in self.metadata.pack(self._clock(), whole=whole):
            record = seal_metadata(self.key, entries)
            if journal is not None:
                record = self._journals.kept(record, journal)
            self._committer.put(Handover(record, (self,), journal))

    def _next(self, kind: Kind) -> list[Leased]:
        """Return what is sent next, on lease; nothing if there is nothing after all."""
        batch = self._from_memory(kind)
        if not batch:
            changes = self.stored_changes
            batch = self._from_outbox(kind)
            with self._lock:  # last, for what comes meanwhile is to come after it
                if not batch and changes == self.stored_changes:
                    self._stored.discard(kind)
        if not batch and kind == "metadata":
            self.pack()
            self._committer.commit()
            batch = self._from_memory(kind) or self._from_outbox(kind)
        try:
            self._note_oldest(kind, batch[0] if batch else None)
            if not batch:
                return []
            batch = self._one_entry(batch)
            with self._lock:
                self._sent_last = kind
                if self.backlog.holds(kind):
                    self.pace.sent(self._clock())
                if kind == "metadata":
                    self.metadata_pace.sent(self._clock())
        except BaseException:
            self.give_back(batch)
            raise
        return batch

    def _note_oldest(self, kind: Kind, oldest: Leased | None) -> None:
        """Know how long what is sent next has waited; None if nothing waits."""
        if oldest is None and not self._outbox.looked_through:
            return  # on a disk that fails there may be some
        since = float("inf") if oldest is None else oldest.since
        with self._lock:
            self.backlog.drain(kind, since)
        if kind == "report":
            self.lateness.notice(since, oldest.record.period if oldest else None)

    def _from_memory(self, kind: Kind) -> list[Leased]:
        with self._lock:
            batch = [each for each in self._leased if each.record.kind == kind]
            batch = batch[: self.exporter.most_of(kind)]
            for each in batch:
                self._leased.remove(each)
            return batch

    def _from_outbox(self, kind: Kind) -> list[Leased]:
        batch: list[Leased] = []
        try:
            while len(batch) < self.exporter.most_of(kind):
                record = self._outbox.lease(self.key, kind)
                if record is None:
                    return batch
                batch.append(self._from_store(record))
        except BaseException:
            self.give_back(batch)
            raise
        self.note_stored(kind)  # there may be more
        return batch

    def _from_store(self, record: Record, window: Window | None = None) -> Leased:
        since = self._clock() if record.waits_since is None else record.waits_since
        return Leased(record, window, since)

    def _one_entry(self, batch: list[Leased]) -> list[Leased]:
        """Leave all but the first entry of metadata to later turns, if need be."""
        while batch and self.exporter.one_entry:
            (record, window, _), *others = batch
            parts = record.by_entry(rest=True)
            if len(parts) == 1:
                break
            self.give_back(others)
            self._outbox.replace(record, parts)
            self.note_stored("metadata")
            # Not for sure one of those: older metadata may have come to the outbox.
            leased = self._outbox.lease(self.key, "metadata")
            batch = [self._from_store(leased, window)] if leased else []
        return batch

    def give_back(self, batch: list[Leased]) -> None:
        """Have records that are on lease wait in the outbox."""
        for each in batch:
            self._outbox.release(each.record)
            self.note_stored(each.record.kind)

    def export(
        self, batch: list[Leased], exporter: Exporter | None = None
    ) -> BaseException | None:
        """Make a request of leased records, on whatever thread; settle them.

        Returns:
            Why it failed, or None.

        Raises:
            BaseException: Whatever a client raises that is not an ``Exception``. The
                records are pending again.
        """
        exporter = exporter or self.exporter
        records = [each.record for each in batch]
        unsettled = list(records)
        sending = object()
        try:
            self._sending.add(sending)
            try:
                outcomes = self._outcomes(exporter, records)
            except BaseException as error:
                self._interrupted(batch, error)
                raise
            delay = self._delay_after(outcomes)
            for record, outcome in zip(records, outcomes, strict=True):
                self._settle(record, outcome, delay)
                unsettled.remove(record)
            failed = self._judge(outcomes)
        finally:
            try:
                for record in unsettled:
                    self._outbox.release(record)
                    self.note_stored(record.kind)
            finally:
                self._sending.discard(sending)
        for each, outcome in zip(batch, outcomes, strict=True):
            if outcome.verdict is Verdict.DELIVERED and each.window is not None:
                self._notices.guarded(each.window.reported)
        return failed

    @staticmethod
    def _outcomes(exporter: Exporter, records: list[Record]) -> Sequence[Outcome]:
        try:
            outcomes = exporter.export(records)
            if len(outcomes) != len(records):
                message = f"{len(outcomes)} outcomes for {len(records)} records"
                raise ValueError(message)  # noqa: TRY301 - the same is done about it
            for record, outcome in zip(records, outcomes, strict=True):
                if record.id in (part.id for part in outcome.parts):
                    message = f"record {record.id} in place of itself"
                    raise ValueError(message)  # noqa: TRY301 - likewise
        except Exception as error:  # noqa: BLE001 - an exporter may raise anything
            return [exporter.failed(error, Verdict.RETRY)] * len(records)
        return outcomes

    def _judge(self, outcomes: Sequence[Outcome]) -> BaseException | None:
        """Do what a request means for the destination; returns why it failed."""
        put_off = [
            each for each in outcomes if each.verdict in _LATER and not each.parts
        ]
        if not put_off:
            self._answered()
        errors = [each.error for each in outcomes if each.error and not each.parts]
        return errors[0] if errors else None

    def _delay_after(self, outcomes: Sequence[Outcome]) -> float:
        """Leave the destination alone if records are to wait; returns for how long."""
        for outcome in outcomes:
            if outcome.verdict in _LATER and not outcome.parts:
                return self._put_off(outcome.error, outcome.verdict)
        return 0.0

    def _settle(self, record: Record, outcome: Outcome, delay: float) -> None:
        """Do what the outcome means for the record."""
        judged, endpoint = outcome.verdict, self.key.endpoint
        if judged is Verdict.DELIVERED:
            self._outbox.acknowledge(record)
            if record.kind == "report":
                self.lateness.count_sent()
            return
        if outcome.parts:
            self._outbox.replace(record, outcome.parts)
            self.note_stored(record.kind)
            return
        state = "dead"
        if judged in _LATER:
            state = "parked" if judged is Verdict.PARK else "pending"
            self._notices.warn(
                judged.value,
                "Delivering to %s failed (%s); the next attempt is in %.0f s",
                endpoint,
                outcome.text,
                delay,
            )
        else:
            self._notices.warn(
                judged.value,
                "%s refuses a record (%s), which is kept as a dead letter: %s",
                endpoint,
                record.kind,
                outcome.text,
            )
        self._outbox.failed(record, state, outcome.reason, outcome.text, delay)
        if judged in _LATER:
            self.note_stored(record.kind)
        self._notices.failed(
            Failure(endpoint, record.kind, record.id, state, outcome.text)
        )

    def _interrupted(self, batch: list[Leased], error: BaseException) -> None:
        what = "metadata" if batch[0].record.kind == "metadata" else "a report"
        self._notices.warn(
            "attempt",
            "An attempt to send %s was ended by %s; what did not arrive is sent again",
            what,
            type(error).__name__,
        )
        for each in batch:
            self.note_stored(each.record.kind)
        self._put_off(error, Verdict.RETRY)

    def _put_off(self, error: BaseException | None, judged: Verdict) -> float:
        """Leave the destination alone for a while; returns for how many seconds.

        What is on lease in memory waits in the outbox from now on.
        """
        with self._lock:
            now = self._clock()
            self.backoff.failed(now, error, judged)
            self.backlog.begin()
            self.lateness.is_parked = judged is Verdict.PARK
            waiting, self._leased = list(self._leased), deque()
            delay = self.backoff.not_before - now
        self.give_back(waiting)
        return delay

    def _answered(self) -> None:
        """Note that the destination is up."""
        with self._lock:
            failures = self.backoff.succeeded()
            self.backlog.end(self._clock())
            self.lateness.is_parked = False
        if failures:
            self._notices.info(
                "Delivering to %s works again after %d failed attempts",
                self.key.endpoint,
                failures,
            )
