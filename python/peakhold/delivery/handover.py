"""What is handed over from the frames to the committer, and from that to be sent."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from peakhold.records import MetadataContent, Record
from peakhold.records.metadata import coalesced

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from peakhold._peakhold import WindowJournal
    from peakhold.delivery.exporter import Exporter
    from peakhold.delivery.journal import Held
    from peakhold.records import Kind


class Window(Protocol):
    """A closed window.

    Attributes:
        committed: Whether the outbox has it, or a window that absorbed it.
    """

    committed: bool

    @property
    def key(self) -> Hashable:
        """What windows that may be merged have in common."""

    @property
    def size(self) -> int:
        """Bytes that it takes in memory, estimated."""

    def journals(self) -> tuple[WindowJournal, ...]:
        """Return where all of it is written down; nothing if some of it is not."""

    def unload(self) -> None:
        """Leave memory."""

    def load(self, held: list[Held]) -> None:
        """Take what was read of the journals into memory."""

    def record(self) -> Record:
        """Return its record, which is made once."""

    def absorb(self, later: Any) -> bool:
        """Take a later window of the same key in; False if it is too late for that."""

    def publish(self, *, inline: bool = False) -> None:
        """Have the host's cache know the time of the report, at once or soon."""

    def reported(self) -> None:
        """Count the interval from now on: the first attempt succeeded."""


class Recipient(Protocol):
    """A destination, as the committer sees it."""

    exporter: Exporter

    def addressed(self, record: Record) -> Record:
        """Return a record with this destination."""

    def admits(self, kind: Kind, count: int) -> bool:
        """Whether so many records could be sent now, and nothing older waits."""

    def take(self, passed: Passed) -> None:
        """Take records that are committed and on lease, to be sent from memory."""

    def note_stored(self, kind: Kind) -> None:
        """Know that the outbox has records of a kind."""


_LEAST = 1_000
"""Bytes that it is not worth to read back."""


class Away(NamedTuple):
    """What left memory, and is read back from the journal.

    Attributes:
        journals: Where all of it is written down.
        size: Bytes that it took in memory, estimated.
    """

    journals: tuple[WindowJournal, ...]
    size: int


class Handover:
    """What was accepted and is not committed yet.

    Attributes:
        content: A closed window, or a record that has its content.
        recipients: The destinations that get it, each once.
        due: Monotonic time before which it is not committed.
        trials: How often the outbox was to insert it.
        begun: Whether one is under way.
        committed: Whether the outbox has it.
        seals: How many windows or requests it stands for.
        away: Where it is read back from, if it left memory.
    """

    # Of the class, so that a frame which closes a window need not set them.
    due = float("-inf")
    trials = 0
    begun = False
    committed = False
    seals = 1
    away: Away | None = None
    _journal: WindowJournal | None = None

    def __init__(
        self,
        content: Window | Record,
        recipients: tuple[Recipient, ...],
        journal: WindowJournal | None = None,
    ) -> None:
        """Hand something over.

        Args:
            content: A closed window, or a record that has its content.
            recipients: The destinations that get it, each once.
            journal: Where the content of a record is written down.
        """
        self.content = content
        self.recipients = recipients
        if journal is not None:
            self._journal = journal

    @property
    def key(self) -> int:
        """What is equal for a window that is handed over again."""
        return id(self.window or self)

    @property
    def record(self) -> Record:
        """The record, which has no body yet."""
        content = self.content
        return content if isinstance(content, Record) else content.record()

    @property
    def window(self) -> Window | None:
        """The window, if it is one of this process."""
        return None if isinstance(self.content, Record) else self.content

    def journals(self) -> tuple[WindowJournal, ...]:
        """Return where all of it is written down; nothing if some of it is not."""
        if self.window is not None:
            return self.window.journals()
        journal = self._journal
        return (journal,) if journal and journal.error is None else ()

    def absorb(self, later: Handover) -> bool:
        """Take a later window of the same key in; False if that cannot be done."""
        window, its = self.window, later.window
        if window is None or its is None or (self.away and not later.journals()):
            return False
        if its.committed:  # and interrupted then
            return True
        if not window.absorb(its):
            return False
        its.committed = True
        self.seals += later.seals
        return True

    def unload(self) -> int:
        """Leave memory, if all of it is written down, until it is loaded.

        Returns:
            The bytes that this has freed, estimated.
        """
        size = self.content.size
        if size <= _LEAST or not (journals := self.journals()):
            return 0
        self.away = Away(journals, size + (self.away.size if self.away else 0))
        if isinstance(self.content, Record):
            self.content = replace(self.content, content=MetadataContent(()))
        else:
            self.content.unload()
        return size - self.content.size

    def load(self, read: Mapping[str, Held]) -> int:
        """Be in memory again, with what was read of the journals, by their names.

        Returns:
            How many of the journals had nothing.
        """
        journals = self.away.journals if self.away else ()
        held = [read[each.name] for each in journals if each.name in read]
        if isinstance(self.content, Record):
            frames = [frame for frames, _ in held for frame in frames]
            content = MetadataContent(coalesced(frames))
            self.content = replace(self.content, content=content)
        else:
            self.content.load(held)
        self.away = None
        return len(journals) - len(held)


class Passed(NamedTuple):
    """Records that are committed, and the window they are of."""

    recipient: Recipient
    kind: Kind
    records: list[Record]
    window: Window | None
