"""What a destination speaks, and what became of the records that it was given."""

from __future__ import annotations

import hmac
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peakhold.delivery.policy import Verdict, reason_of, verdict
from peakhold.texts import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peakhold.delivery.metadata import Offers
    from peakhold.delivery.monitors import Monitors
    from peakhold.notices import Notices
    from peakhold.records import DestinationKey, Kind, Record


@dataclass(frozen=True)
class Outcome:
    """What became of one record in one request.

    Attributes:
        verdict: What to do with the record.
        reason: In a word, a status for example; for those who look at the outbox.
        text: Type and text of the error, printable and without a secret.
        error: The exception, from which a pause to wait is read.
        parts: Records to send in place of this one, which may be too large.
    """

    verdict: Verdict
    reason: str = ""
    text: str = ""
    error: BaseException | None = None
    parts: Sequence[Record] = ()


DELIVERED = Outcome(Verdict.DELIVERED)


class Exporter(ABC):
    """Makes the requests of one destination.

    An output of another kind is a subclass in a file of its own; nothing else has to
    know of it.

    Attributes:
        destination: Where everything it exports goes.
        most: Records that it takes in one call of ``export``.
        offline: Whether it is to keep off the network for now.
        one_entry: Whether a metadata record of several entries is to come in parts.
        offers: Metadata of frames, on its way to a dispatcher.
        registered: What sends with it, as a dispatcher registered it last.
    """

    destination: DestinationKey
    most = 1
    offline = False
    one_entry = False
    offers: Offers | None = None
    registered: Any = None

    @abstractmethod
    def export(self, records: Sequence[Record]) -> Sequence[Outcome]:
        """Send records; a synchronous caller may do so beside another thread.

        Args:
            records: One to ``most`` records, the oldest first.

        Returns:
            An outcome for each of them. What is raised instead means that all are to
            be tried again.
        """

    def facts(self) -> Mapping[str, object]:
        """Return what a report says about this device, beside its results."""
        return {}

    def describe(self, error: BaseException) -> str:
        """Return the text of an exception, printable and without a secret."""
        return printable(str(error))

    def sign(self, data: bytes) -> bytes:
        """Return an HMAC-SHA256 of some bytes, by which shared windows are signed.

        One whose destination has a secret overrides this: the key is the fingerprint
        of that, which is no secret.
        """
        key = self.destination.api_key_fingerprint.encode()
        return hmac.digest(key, data, "sha256")

    @property
    def feed_metadata(self) -> bool:
        """Whether the feed of a window is to come as custom metadata.

        That of the inferences of its peaks, for want of a place in the report.
        """
        return False

    def most_of(self, kind: Kind) -> int:
        """Return how many records of a kind it takes in one call of ``export``."""
        del kind
        return self.most

    def begin(
        self, notices: Notices, monitors: Monitors, previous: Exporter | None
    ) -> bool:
        """Take the destination over; called before the first ``export``.

        Args:
            notices: Where trouble is counted.
            monitors: Which endpoints are peakhold monitors.
            previous: What exported there before, of the same class; None at first.

        Returns:
            Whether it is configured anew, so that it is worth a trial at once.
        """
        del notices, monitors, previous
        return False

    def failed(self, error: BaseException, judged: Verdict | None = None) -> Outcome:
        """Return the outcome of a request that ended in an exception."""
        judged = judged or verdict(error)
        text = f"{type(error).__name__}: {self.describe(error)}"
        return Outcome(judged, reason_of(error, judged), text, error)
