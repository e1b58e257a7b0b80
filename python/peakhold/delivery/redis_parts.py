"""What a Redis server is asked about the parts of shared windows: ``epochs.lua``."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from peakhold.outbox.epochs import content_of
from peakhold.outbox.offers import Answer, Taken
from peakhold.records.content import ENCODING_VERSION
from peakhold.records.share import grace
from peakhold.roboflow.api_key import without_locals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redis import Redis

    from peakhold.delivery.exporter import Exporter
    from peakhold.delivery.redis_url import RedisUrl
    from peakhold.outbox.offers import Offer, Part

VALID = 30.0
"""Seconds after which a request is void that has not arrived."""
STALE = "STALE"
"""How the answer begins to a request that came too late."""
LEASE = 30
"""Seconds for which an epoch is one process's to report."""
REMEMBERED = 600
"""Seconds for which Redis knows an id that nobody asks about any more: much longer than
a request is valid, for its clock may be set."""
LONGER = 24 * 3600
"""Seconds for which Redis keeps what it has, beyond the outbox's time to live."""
_SLACK = 5.0
_SCRIPT = files("peakhold.delivery").joinpath("epochs.lua").read_text("utf-8")
_MAC_BYTES = 16
_SEALS_BYTES = 4


@dataclass
class Done:
    """What Redis is to know of a window's parts.

    Attributes:
        reported: The ids of those that are in a report of this process, by epochs.
        damaged: The ids of those that it could not read, likewise.
        settled: The ids of those that nobody will ask about any more.
    """

    reported: dict[int, list[str]] = field(default_factory=dict)
    damaged: dict[int, list[str]] = field(default_factory=dict)
    settled: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Question:
    """What is asked about a shared window.

    Attributes:
        offer: The parts that this process has of it.
        done: What Redis is to know before.
        exporter: Who sends its reports.
        sharing: Seconds for which this process counts as sharing it from now on.
        takes: Whether it can send reports now.
    """

    offer: Offer
    done: Done
    exporter: Exporter
    sharing: float
    takes: bool

    @cached_property
    def key(self) -> str:
        """Name of the window at the server, which learns nothing from it."""
        offer = self.offer
        window = [
            ENCODING_VERSION,
            offer.destination.endpoint,
            offer.destination.client,
            offer.share.name,
            offer.share.frequency,
        ]
        name = self.exporter.sign(b"window\n" + json.dumps(window).encode())
        return f"peakhold:{{{name[:16].hex()}}}"


class RedisParts:
    """A Redis server, on which the parts of several hosts meet.

    Whoever knows the api key, and nobody else, may make a part of a window: parts are
    signed. They are not encrypted.
    """

    def __init__(self, url: RedisUrl, ttl: float) -> None:
        """Connect to nothing yet.

        Args:
            url: Where the server is.
            ttl: Seconds for which an outbox keeps a part.
        """
        self._url = url
        self._kept = round(ttl) + LONGER
        self._client: Redis | None = None

    @without_locals
    def deadline(self) -> float:
        """Return until when a request is valid that is made now, by the server's clock.

        Raises:
            redis.RedisError: It cannot be reached.
        """
        self._client = self._client or self._url.client()
        seconds, microseconds = self._client.time()
        return float(seconds + microseconds / 1e6 + VALID)

    @without_locals
    def exchange(
        self,
        questions: Sequence[Question],
        sharer: str,
        deadline: float,
        *,
        leaving: bool,
    ) -> list[Answer | Exception]:
        """Offer parts, and return what the server knows of each.

        Args:
            questions: One for each window.
            sharer: Id of this process.
            deadline: Until when they are valid.
            leaving: Whether it shares no more.

        Returns:
            An answer to each question, or why the server gave none.

        Raises:
            redis.RedisError: It cannot be reached. Which questions it has got is not
                known.
        """
        self._client = self._client or self._url.client()
        pipeline = self._client.pipeline(transaction=False)
        pipeline.script_load(_SCRIPT)
        digest = hashlib.sha1(_SCRIPT.encode(), usedforsecurity=False).hexdigest()
        for question in questions:
            request = {
                **_request(question),
                "deadline": deadline,
                "kept": self._kept,
                "lease": LEASE,
                "sharer": sharer,
                "leaving": leaving,
            }
            values = [
                _signed(part, question)
                for part in question.offer.parts
                if part.packed is not None
            ]
            pipeline.evalsha(digest, 1, question.key, json.dumps(request), *values)
        loaded, *replies = pipeline.execute(raise_on_error=False)
        if isinstance(loaded, Exception):
            raise loaded
        return [
            reply if isinstance(reply, Exception) else _answer(question, reply)
            for question, reply in zip(questions, replies, strict=True)
        ]

    def describe(self, error: BaseException) -> str:
        """Return type and text of an exception, without a secret."""
        return self._url.describe(error)

    def __str__(self) -> str:
        """Return the server's address, without a secret."""
        return str(self._url)


def sharing_for(frequency: int) -> float:
    """Return the seconds after a new part for which a process counts as sharing.

    Others leave their parts to it, for it asks once more at the end of that time.
    """
    return frequency + grace(frequency)


def _request(question: Question) -> dict[str, object]:
    share, done = question.offer.share, question.done
    return {
        "frequency": share.frequency,
        "grace": grace(share.frequency),
        "sharing": question.sharing and question.sharing + _SLACK,
        "takes": question.takes,
        "reported": list(done.reported.items()),
        "damaged": list(done.damaged.items()),
        "settled": done.settled,
        "remembered": REMEMBERED,
        "parts": [
            (part.id, part.epoch, part.packed is not None)
            for part in question.offer.parts
        ],
    }


def _signed(part: Part, question: Question) -> bytes:
    body = part.seals.to_bytes(_SEALS_BYTES, "big") + (part.packed or b"")
    return _mac(part.id, body, question) + body


def _mac(part_id: str, body: bytes, question: Question) -> bytes:
    signed = f"part\n{question.key}\n{part_id}\n".encode() + body
    return question.exporter.sign(signed)[:_MAC_BYTES]


def _answer(question: Question, reply: Sequence[Any]) -> Answer:
    fates, epochs, epoch, flat, wait, missing, born = reply
    taken = None
    if epoch:
        values = dict(zip(flat[::2], flat[1::2], strict=True))
        taken = _taken(int(epoch), values, question)
    told = [fate.decode("ascii") for fate in fates]
    return Answer(
        question.offer,
        told,
        [int(each) if each else None for each in epochs],
        taken,
        float(wait) if wait else None,
        missing,
        born.decode("ascii"),
    )


def _taken(epoch: int, values: Mapping[bytes, bytes], question: Question) -> Taken:
    taken = Taken(epoch, {}, [])
    for name, value in values.items():
        part_id = name.decode("ascii")
        mac, body = value[:_MAC_BYTES], value[_MAC_BYTES:]
        content = None
        if hmac.compare_digest(mac, _mac(part_id, body, question)):
            content = content_of(ENCODING_VERSION, body[_SEALS_BYTES:])
        if content is None:
            taken.damaged.append(part_id)
        else:
            seals = int.from_bytes(body[:_SEALS_BYTES], "big")
            taken.parts[part_id] = (seals, content)
    return taken
