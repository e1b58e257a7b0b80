"""How to deliver, and the environment variables that say so."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

from peakhold.delivery.redis_url import SHARE_VARIABLE, UNUSABLE, RedisUrl
from peakhold.environment import Environment
from peakhold.errors import PeakholdError
from peakhold.roboflow.api_key import without_locals

if TYPE_CHECKING:
    from collections.abc import Mapping

Durability = Literal["memory", "process", "power"]
Sharing = Literal["off", "host", "redis"]
SHARED: tuple[Sharing, ...] = ("host", "redis")
"""Who shares with others."""

Windows = Literal["auto", "on", "off"]

WINDOWS_VARIABLE = "PEAKHOLD_WINDOWS"
METADATA_RATE_VARIABLE = "PEAKHOLD_METADATA_REQUESTS_PER_SECOND"


class NoStateDirectoryError(PeakholdError):
    """It cannot be determined which directory is the state directory."""


@dataclass(frozen=True)
class DeliverySettings:
    """How to deliver; `docs/environment.md` tells the variables.

    Attributes:
        state_dir: Where outbox and journals are; None for the user's own directory.
        durability: What reports outlive: nothing, the process, or a loss of power.
        outbox_mib: Size of the outbox.
        ttl: Seconds until a record expires.
        rate: Requests a second and destination after an outage.
        metadata_rate: Requests with metadata a second and destination, at any time.
        exit_seconds: Wait for deliveries at the end of the process.
        disabled: Whether the sinks do nothing.
        windows: Whether endpoints get windows in place of reports: those that say that
            they are peakhold monitors, all, or none.
        max_feeds: Feeds of one ``unique_aggregator_key`` that have a window each.
        feed_metadata: Whether a window's feed goes out as custom metadata.
        share: Who shares windows: no other process, those of this state directory, or
            those that use a Redis server; None if nobody said.
        redis: Where that server is.
    """

    state_dir: Path | None = None
    durability: Durability = "process"
    outbox_mib: float = 256.0
    ttl: float = 7 * 24 * 3600.0
    rate: float = 10.0
    metadata_rate: float = 4.0
    exit_seconds: float = 2.0
    disabled: bool = False
    windows: Windows = "auto"
    max_feeds: int = 1024
    feed_metadata: bool = True
    share: Sharing | None = None
    redis: RedisUrl | None = None

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str] | None = None
    ) -> DeliverySettings:
        """Read them.

        Raises:
            ValueError: If a value cannot be used.
        """
        read = Environment(environ)
        directory = read.text("PEAKHOLD_STATE_DIR")
        per_second = "requests a second and destination"
        share, redis = _sharing(read)
        return cls(
            Path(directory) if directory else None,
            read.choice("PEAKHOLD_DURABILITY", get_args(Durability), cls.durability),
            read.number("PEAKHOLD_OUTBOX_MIB", cls.outbox_mib, "MiB"),
            read.number("PEAKHOLD_OUTBOX_TTL", cls.ttl, "seconds"),
            read.number("PEAKHOLD_REQUESTS_PER_SECOND", cls.rate, per_second),
            read.number(METADATA_RATE_VARIABLE, cls.metadata_rate, per_second),
            read.number("PEAKHOLD_EXIT_SECONDS", cls.exit_seconds, "seconds", least=0),
            read.switch("PEAKHOLD_DISABLED", default=cls.disabled),
            read.choice(WINDOWS_VARIABLE, get_args(Windows), cls.windows),
            read.whole_number("PEAKHOLD_MAX_FEEDS", cls.max_feeds),
            read.switch("PEAKHOLD_FEED_METADATA", default=cls.feed_metadata),
            share,
            redis,
        )

    def directory(self) -> Path:
        """Return the absolute path of the state directory.

        Raises:
            NoStateDirectoryError: If it begins with the home directory of a user who
                has none, or with a working directory that is gone.
        """
        try:
            return _absolute(self.state_dir or _of_the_user())
        except (RuntimeError, OSError) as error:
            which = "the user's own state directory"
            if self.state_dir is not None:
                which = "the directory that PEAKHOLD_STATE_DIR names"
            raise NoStateDirectoryError(
                f"{which} is unknown, because it begins with a home or working "
                "directory that does not exist: set PEAKHOLD_STATE_DIR to an absolute "
                "path"
            ) from error


@without_locals
def _sharing(read: Environment) -> tuple[Sharing | None, RedisUrl | None]:
    text = read.text(SHARE_VARIABLE)
    if text and "://" in text:
        return "redis", RedisUrl(text)
    for share in get_args(Sharing):
        if text and text.lower() == share:
            return share, RedisUrl.of_host(read) if share == "redis" else None
    if text:
        raise ValueError(UNUSABLE)
    return None, None


def _of_the_user() -> Path:
    from platformdirs import user_state_path

    return user_state_path("peakhold", appauthor=False)


@cache
def _absolute(path: Path) -> Path:
    """Return what a path means when it is first asked for in a process.

    It stays that for the process and those forked from it, wherever they go: else a
    program that changes its working directory would have several outboxes.
    """
    return path.expanduser().absolute()
