"""What is handed over from the frames to the committer, and from that to be sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from peakhold.records import Record

if TYPE_CHECKING:
    from collections.abc import Hashable

    from peakhold.delivery.exporter import Exporter
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

    @property
    def is_written(self) -> bool:
        """Whether the next process finds all of it in a journal."""

    def record(self) -> Record:
        """Return its record, which is made once."""

    def absorb(self, later: Any) -> bool:
        """Take a later window of the same key in; False if it is too late for that."""

    def publish(self, *, at_once: bool = False) -> None:
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
    """

    # Of the class, so that a frame which closes a window need not set them.
    due = float("-inf")
    trials = 0
    begun = False
    committed = False
    seals = 1

    def __init__(
        self, content: Window | Record, recipients: tuple[Recipient, ...]
    ) -> None:
        """Hand something over."""
        self.content = content
        self.recipients = recipients

    @property
    def record(self) -> Record:
        """The record, which has no body yet."""
        content = self.content
        return content if isinstance(content, Record) else content.record()

    @property
    def window(self) -> Window | None:
        """The window, if it is one of this process."""
        return None if isinstance(self.content, Record) else self.content


class Passed(NamedTuple):
    """Records that are committed, and the window they are of."""

    recipient: Recipient
    kind: Kind
    records: list[Record]
    window: Window | None
