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
        """Leave memory; it is in the journals."""

    def load(self, held: list[Held]) -> None:
        """Take what the journals hold into memory again."""

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


class Handover:
    """What was accepted and is not committed yet.

    Attributes:
        content: A closed window, or a record that has its content.
        recipients: The destinations that get it, each once.
        due: Monotonic time before which it is not committed.
        trials: How often a commit of it was begun.
        begun: Whether one is under way.
        committed: Whether the outbox has it.
        seals: How many windows or requests it stands for.
        away: Where it is read back from, if it left memory.
        bytes_away: What it took there, estimated.
    """

    # Of the class, so that a frame which closes a window need not set them.
    due = float("-inf")
    trials = 0
    begun = False
    committed = False
    seals = 1
    away: tuple[WindowJournal, ...] = ()
    bytes_away = 0
    _bytes_left = 0
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

    def unload(self) -> int:
        """Leave memory, if all of it is in the journal.

        Returns:
            The bytes that this has freed, estimated.
        """
        size = self.content.size
        if size <= self._bytes_left:
            return 0
        if self.window is not None:
            journals = self.window.journals()
        else:
            journals = (self._journal,) if self._journal else ()
        if journals and all(each.error is None for each in journals):
            self.away = journals
            if isinstance(self.content, Record):
                self.content = replace(self.content, content=MetadataContent(()))
            else:
                self.content.unload()
            self._bytes_left = self.content.size
            self.bytes_away += size - self._bytes_left
        return size - self.content.size

    def load(self, read: Mapping[str, Held]) -> bool:
        """Be in memory again; returns whether anything of it was read."""
        held = [read[each.name] for each in self.away if each.name in read]
        if isinstance(self.content, Record):
            frames = [frame for frames, _ in held for frame in frames]
            content = MetadataContent(coalesced(frames))
            self.content = replace(self.content, content=content)
        else:
            self.content.load(held)
        self.away, self.bytes_away, self._bytes_left = (), 0, 0
        return bool(held)


class Passed(NamedTuple):
    """Records that are committed, and the window they are of."""

    recipient: Recipient
    kind: Kind
    records: list[Record]
    window: Window | None
