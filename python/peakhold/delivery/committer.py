"""From closed windows and metadata to rows of the outbox, many in one transaction."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from peakhold.delivery.handover import Passed
from peakhold.interpreter import give_way
from peakhold.locks import is_free
from peakhold.outbox import Counts
from peakhold.records import ReportContent, UnencodableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from peakhold.delivery.handover import Handover, Recipient
    from peakhold.delivery.journal import Journals
    from peakhold.notices import Notices
    from peakhold.outbox import Outbox
    from peakhold.records import Record

MAX_BYTES = 16 * 1024 * 1024
"""What may wait in memory to be committed; beyond it windows of one key merge, and what
is in the journal leaves memory until it is committed. Usually nothing waits."""
_FEW = 64
"""Handovers that may wait until a commit takes them in."""
BATCH = 100
"""Windows and requests that are committed in one transaction."""
PAUSE = 5.0
"""Seconds until a client that could not describe its device is asked again."""


class Committer:
    """Takes what frames hand over, and commits all of it that waits.

    A frame appends to memory. Whoever calls ``commit``, one thread at a time, encodes
    what waits, has the outbox insert it, and passes it on to its destinations, where it
    counts before it stops counting here.

    Attributes:
        commits: Twice the commits so far, odd while one is under way.
    """

    def __init__(
        self,
        outbox: Outbox,
        journals: Journals,
        notices: Notices,
        clock: Callable[[], float],
        look_through: Callable[[], None],
        register_feed: Callable[[Record, tuple[Recipient, ...]], None],
        await_epoch: Callable[[float], None],
    ) -> None:
        """Start empty.

        Args:
            outbox: Where everything goes.
            journals: Where what left memory is read back from.
            notices: Where trouble is counted.
            clock: Monotonic time in seconds.
            look_through: Has the outbox searched for what there is to send.
            register_feed: Has the feed of a window go out beside its report.
            await_epoch: Told when parts of shared windows may be reported, in seconds
                since 1970.
        """
        self.commits = 0
        self._look_through = look_through
        self._register_feed = register_feed
        self._await_epoch = await_epoch
        self._outbox = outbox
        self._journals = journals
        self._notices = notices
        self._clock = clock
        self._lock = threading.Lock()
        self._committing = threading.Lock()
        self._thread = 0
        self._handed: deque[Handover] = deque()
        self._waiting: dict[int, Handover] = {}  # by their keys
        self._bytes = 0
        self._overflowed = 0
        self._left = 0

    @property
    def busy(self) -> bool:
        """Whether a thread is committing."""
        return self._committing.locked()

    @property
    def is_mine(self) -> bool:
        """Whether it is the caller's own thread that commits, from a callback."""
        return self._thread == threading.get_ident()

    def next_at(self) -> float:
        """Return the monotonic time at which there is something to commit."""
        with self._lock:
            waiting = self._taken_in().values()
            return min((each.due for each in waiting), default=float("inf"))

    def put(self, handover: Handover) -> None:
        """Take something; takes microseconds.

        After an interruption, as by a signal handler, the caller puts a window again,
        which is not taken twice.
        """
        self._handed.append(handover)
        if len(self._handed) > _FEW:
            with self._lock:
                self._taken_in()

    @property
    def is_full(self) -> bool:
        """Whether more than half of what may wait in memory does so."""
        with self._lock:
            self._taken_in()
            return self._bytes > MAX_BYTES // 2

    def commit(self, *, patience: float = 0.0) -> None:
        """Have the outbox commit what waits, here or by the thread that is at it.

        Args:
            patience: Seconds to wait while another thread is doing it.
        """
        while is_free(self._committing, patience):
            with self._committing:
                self._thread = threading.get_ident()
                try:
                    self._count_overflow()
                    while batch := self._begin():
                        self._commit(batch)
                finally:
                    self._thread = 0
            if self.next_at() > self._clock():  # else it came at the very end
                return

    def counts(self) -> Counts:
        """Return the figures of what is not committed."""
        with self._lock:
            pending = sum(each.seals for each in self._taken_in().values())
            dropped = {"overflow": self._overflowed} if self._overflowed else {}
            return Counts(pending + self._overflowed, pending=pending, dropped=dropped)

    def described(self, handover: Handover) -> Record:
        """Return the record of a handover, with what it says about the device.

        Asks the client for that, and drops what cannot be encoded.

        Raises:
            UnencodableError: If no JSON can say it; it is dropped and counted.
            Exception: Whatever the exporter raises that is to describe its device.
        """
        record = handover.record
        content = record.content
        if isinstance(content, ReportContent):
            facts = handover.recipients[0].exporter.facts()
            try:
                record = replace(record, content=content.described(facts))
            except UnencodableError:
                self._outbox.lost("unencodable", record.seals)
                raise
        return record

    def _taken_in(self) -> dict[int, Handover]:
        """Return what waits, with what was handed over since."""
        while self._handed:
            handover = self._handed[0]
            window, key = handover.window, handover.key
            # Handed over again after an interruption it may be there, or through.
            if key not in self._waiting and not (window and window.committed):
                self._waiting[key] = handover
                self._bytes += handover.content.size
            self._handed.popleft()  # last, for then it is always counted
        if self._bytes > MAX_BYTES:
            self._shrink()
        return self._waiting

    def _begin(self) -> list[Handover]:
        with self._lock:
            now = self._clock()
            due = (each for each in self._taken_in().values() if each.due <= now)
            batch: list[Handover] = []
            size = 0
            for handover in islice(due, BATCH):
                size += handover.away.size if handover.away else 0
                if batch and size > MAX_BYTES // 2:
                    break
                handover.begun = True
                batch.append(handover)
            return batch

    def _commit(self, batch: list[Handover]) -> None:
        described: list[tuple[Handover, Record]] = []
        for handover in self._loaded(batch):
            if handover.committed:  # interrupted between that and its removal
                continue
            try:
                described.append((handover, self.described(handover)))
            except UnencodableError:
                handover.committed = True
            except Exception as error:  # noqa: BLE001 - a client may raise anything
                self._put_off(handover, error)
            give_way()
        try:
            self.commits += 1
            self._register_feeds(described)
            for handover, _ in described:
                handover.trials += 1
            self._insert(described)
        finally:
            with self._lock:
                for handover in batch:
                    handover.begun = False
                    if handover.committed:
                        if handover.window is not None:
                            handover.window.committed = True
                        self._waiting.pop(handover.key, None)
                # Counted anew, for an interruption may have left it wrong.
                waiting = self._waiting.values()
                self._bytes = sum(each.content.size for each in waiting)
            self.commits += self.commits % 2

    def _register_feeds(self, described: list[tuple[Handover, Record]]) -> None:
        """Have the feeds of windows go out beside their reports.

        Before the windows are committed, for then their journals go; and at a stretch,
        so that the feeds of all of them share a request.
        """
        for handover, record in described:
            if not handover.trials:
                recipients = handover.recipients
                self._notices.guarded(partial(self._register_feed, record, recipients))

    def _loaded(self, batch: list[Handover]) -> list[Handover]:
        """Return those of a batch that are in memory, or can be read back."""
        away = [each for each in batch if each.away and self._can_be_described(each)]
        if away:
            ahead = self._ahead(away)
            try:
                self._read_back([*away, *ahead])
            except OSError as error:
                for handover in away:
                    self._put_off(handover, error)
            finally:
                with self._lock:
                    for handover in ahead:
                        handover.begun = False
        return [each for each in batch if not each.away]

    def _can_be_described(self, handover: Handover) -> bool:
        """Whether reading something back is worth it: its client may not answer."""
        try:
            if handover.window is not None:
                handover.recipients[0].exporter.facts()
        except Exception as error:  # noqa: BLE001 - a client may raise anything
            self._put_off(handover, error)
            return False
        return True

    def _ahead(self, away: list[Handover]) -> list[Handover]:
        """Return what is read back with these: all segments are read each time."""
        size = sum(each.away.size for each in away if each.away)
        ahead: list[Handover] = []
        with self._lock:
            now = self._clock()
            for handover in self._waiting.values():
                if handover.away and not handover.begun and handover.due <= now:
                    size += handover.away.size
                    if size > MAX_BYTES // 2:
                        break
                    handover.begun = True
                    ahead.append(handover)
        return ahead

    def _read_back(self, handovers: list[Handover]) -> None:
        away = [(each, each.away.journals) for each in handovers if each.away]
        journals = [journal for _, written in away for journal in written]
        read = self._journals.read_back(journals)
        for handover, written in away:
            if handover.load(read) == len(written):  # nothing of it was there
                for journal in written:
                    self._notices.guarded(journal.remove)
                self._outbox.lost("damaged", handover.seals)
                handover.committed = True

    def _put_off(self, handover: Handover, error: Exception) -> None:
        """Commit something later that cannot be described or read back now."""
        handover.due = self._clock() + PAUSE
        self._notices.warn(
            "commit",
            "What is accepted cannot be committed yet (%s: %s)",
            type(error).__name__,
            handover.recipients[0].exporter.describe(error),
        )

    def _insert(self, described: list[tuple[Handover, Record]]) -> None:
        """Have the outbox take records, and their destinations those they send now."""
        described = self._insert_parts(described)
        from_memory, later = self._planned(described)
        records = _records([*from_memory, *later])
        try:
            if records:
                leased = {record.id for record in _records(from_memory)}
                added = self._outbox.add(records, leased=leased)
                for passed in from_memory:  # the outbox takes none twice
                    passed.records[:] = [
                        each for each in passed.records if each.id in added
                    ]
            for handover, _ in described:
                handover.committed = True
            from_memory.reverse()
            while from_memory:
                from_memory[-1].recipient.take(from_memory[-1])
                from_memory.pop()
        except BaseException:
            for record in _records(from_memory):
                self._outbox.release(record)
            self._look_through()  # for what was committed all the same
            raise
        for passed in later:
            passed.recipient.note_stored(passed.kind)
        for handover, _ in described:
            if window := handover.window:
                window.publish()

    def _insert_parts(
        self, described: list[tuple[Handover, Record]]
    ) -> list[tuple[Handover, Record]]:
        """Have the outbox take parts of shared windows.

        Returns:
            What is no part, or one that its disk does not take: that is reported as if
            it was not shared, as soon as that is written down.
        """
        shared = [each for each in described if each[1].share]
        if not shared:
            return described
        closes_at = self._outbox.add_parts(
            [
                recipient.addressed(record)
                for handover, record in shared
                for recipient in handover.recipients
            ]
        )
        if closes_at is None:
            return [each for each in map(self._alone, described) if each is not None]
        for handover, _ in shared:
            handover.committed = True
        self._await_epoch(closes_at)
        return [each for each in described if not each[1].share]

    def _alone(
        self, described: tuple[Handover, Record]
    ) -> tuple[Handover, Record] | None:
        """Return what is reported by itself; None if it has to wait for the disk."""
        handover, record = described
        if record.share:
            try:
                record = self._journals.alone(record)
                self._outbox.sharing["alone"] += 1
            except OSError as error:
                self._put_off(handover, error)
                return None
        return handover, record

    @staticmethod
    def _planned(
        described: list[tuple[Handover, Record]],
    ) -> tuple[list[Passed], list[Passed]]:
        """Return what is sent from memory, and what waits in the outbox."""
        from_memory: list[Passed] = []
        later: list[Passed] = []
        planned: Counter[Recipient] = Counter()
        for handover, record in described:
            parts = record.content.parts()
            for recipient in handover.recipients:
                records = recipient.addressed(record).divided(parts)
                passed = Passed(recipient, record.kind, records, handover.window)
                planned[recipient] += len(records)
                # After an interruption nobody knows whether it is there already.
                fresh = handover.trials == 1
                if fresh and recipient.admits(record.kind, planned[recipient]):
                    from_memory.append(passed)
                else:
                    later.append(passed)
        return from_memory, later

    def _count_overflow(self) -> None:
        with self._lock:
            overflowed, self._overflowed = self._overflowed, 0
            left, self._left = self._left, 0
        self._outbox.lost("overflow", overflowed)
        if left:
            self._notices.warn(
                "left",
                "%d closed windows and batches of metadata did not fit in memory; they "
                "are in the journal, and the next process delivers them",
                left,
            )

    def _shrink(self) -> None:
        """Merge the windows of each key, have the oldest leave memory, drop others."""
        self._merge()
        self._bytes = sum(each.content.size for each in self._waiting.values())
        # A record of what was tried may be in the outbox, and its journal removed. The
        # newest may still be handed over.
        waiting = list(self._waiting.values())[:-1]
        waiting = [each for each in waiting if not (each.begun or each.trials)]
        for handover in waiting:
            if self._bytes > MAX_BYTES // 2:
                self._bytes -= handover.unload()
        away = sum(each.content.size for each in waiting if each.away)
        for handover in waiting:
            size = handover.content.size
            if handover.away:  # even so many take their room
                if away <= MAX_BYTES // 2:
                    continue
                away -= size
            elif self._bytes <= MAX_BYTES or not size:
                continue
            del self._waiting[handover.key]
            self._bytes -= size
            if handover.journals():
                self._left += handover.seals
            else:
                self._overflowed += handover.seals

    def _merge(self) -> None:
        first: dict[tuple[object, ...], Handover] = {}
        for handover in list(self._waiting.values()):
            window = handover.window
            if window is None or handover.begun or handover.trials:
                continue
            if handover.committed:  # found damaged, and left when its batch comes
                continue
            same = (window.key, *handover.recipients)
            known = first.get(same)
            if known and known.absorb(handover):
                del self._waiting[handover.key]
            else:
                first[same] = handover


def _records(passed: list[Passed]) -> list[Record]:
    return [record for each in passed for record in each.records]
