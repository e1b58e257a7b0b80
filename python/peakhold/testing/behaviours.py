"""What a server can do with a request, from a good answer to none at all."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime, timezone
from email.utils import format_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from peakhold.testing.server import Peer, Request

_LONGEST_WAIT = 30.0


class Behaviour(Protocol):
    """What the server does with one request.

    Attributes:
        takes_effect: Whether the request counts, as far as the server is concerned.
    """

    @property
    def takes_effect(self) -> bool:
        """Whether the request counts."""

    def perform(self, peer: Peer) -> None:
        """Answer the request that ``peer`` sent, or do something worse."""


@dataclass(frozen=True)
class Answer:
    """A whole answer; Content-Length is added unless the answer is chunked."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    chunked: bool = False

    @property
    def takes_effect(self) -> bool:
        """A success does."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    def perform(self, peer: Peer) -> None:
        """Send it."""
        if not self.chunked:
            peer.send_head(self.status, len(self.body), self.headers)
            peer.send(self.body)
            return
        peer.send_head(self.status, None, self.headers)
        peer.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.body), self.body))


def answer_json(value: object, status: int = 200, **headers: str) -> Answer:
    """Make an answer of JSON; ``retry_after="2"`` is the header Retry-After."""
    named = {name.replace("_", "-").title(): text for name, text in headers.items()}
    content = {"Content-Type": "application/json", **named}
    return Answer(status, json.dumps(value).encode(), content)


def redirect(location: str, status: int = 302) -> Answer:
    """Make an answer that sends the client elsewhere."""
    return Answer(status, b"", {"Location": location})


def refuse(status: int, retry_after: float | datetime | str | None = None) -> Answer:
    """Make an answer that refuses a request.

    Args:
        status: HTTP status.
        retry_after: Seconds, which are rounded down to whole ones; a time, which is
            written as an HTTP date; or a text, which is sent as it is.
    """
    if retry_after is None:
        return Answer(status)
    if isinstance(retry_after, datetime):
        retry_after = format_datetime(retry_after.astimezone(timezone.utc), usegmt=True)
    elif not isinstance(retry_after, str):
        retry_after = str(int(retry_after))
    return Answer(status, headers={"Retry-After": retry_after})


@dataclass(frozen=True)
class Computed:
    """An answer made from the request."""

    make: Callable[[Request], Behaviour]
    takes_effect: ClassVar[bool] = False

    def perform(self, peer: Peer) -> None:
        """Do what the request asks for."""
        self.make(peer.asked).perform(peer)


@dataclass(frozen=True)
class Reset:
    """The connection is reset (RST), after ``sent`` bytes of a promised answer."""

    sent: bytes = b""
    takes_effect: ClassVar[bool] = False

    def perform(self, peer: Peer) -> None:
        """Reset the connection."""
        peer.send(self.sent)
        peer.reset()


@dataclass(frozen=True)
class LostAcknowledgement:
    """The request takes effect, and the connection is reset in place of an answer."""

    takes_effect: ClassVar[bool] = True

    def perform(self, peer: Peer) -> None:
        """Reset the connection."""
        peer.reset()


@dataclass(frozen=True)
class CutOff:
    """An answer that promises more than it sends, then the end of the connection."""

    status: int = 200
    sent: bytes = b"{"
    missing: int = 100
    takes_effect: ClassVar[bool] = False

    def perform(self, peer: Peer) -> None:
        """Send the beginning and hang up."""
        peer.send_head(self.status, len(self.sent) + self.missing)
        peer.send(self.sent)
        peer.hang_up()


@dataclass(frozen=True)
class Drip:
    """A right answer, a byte at a time, each soon enough for a read time-out."""

    status: int = 200
    body: bytes = b"{}"
    interval: float = 0.05
    head_at_once: bool = False
    takes_effect: ClassVar[bool] = True

    def perform(self, peer: Peer) -> None:
        """Drip until the answer is complete, the client leaves or the server stops."""
        head = (
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}\r\n"
            f"Content-Length: {len(self.body)}\r\n\r\n"
        ).encode()
        if self.head_at_once:
            peer.send(head)
        for byte in self.body if self.head_at_once else head + self.body:
            peer.send(bytes([byte]))
            if peer.wait(self.interval):
                break


@dataclass(frozen=True)
class BlackHole:
    """No answer for ``seconds``, or until the server stops; then the end."""

    seconds: float = _LONGEST_WAIT
    takes_effect: ClassVar[bool] = False

    def perform(self, peer: Peer) -> None:
        """Say nothing."""
        peer.wait(self.seconds)
        peer.hang_up()


@dataclass(frozen=True)
class After:
    """Another behaviour, some seconds late."""

    seconds: float
    then: Behaviour

    @property
    def takes_effect(self) -> bool:
        """As what follows."""
        return self.then.takes_effect

    def perform(self, peer: Peer) -> None:
        """Wait, then do it."""
        peer.wait(self.seconds)
        self.then.perform(peer)
