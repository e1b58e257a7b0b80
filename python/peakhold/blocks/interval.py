"""When a window is due: own monotonic time, and what other processes say."""

from __future__ import annotations

import math
import re
import reprlib
from contextlib import suppress
from datetime import datetime
from enum import Enum
from operator import index
from time import monotonic
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from peakhold.delivery.cache import Write
from peakhold.texts import text_of

if TYPE_CHECKING:
    from peakhold.delivery.cache import Cache, HostCaches

_KEPT = 600
_LONGEST_KEPT = 24 * 3600

_CACHE_KEY = (
    "workflows:steps_cache:"
    "roboflow_core/model_monitoring_inference_aggregator@v1:{}:last_report_time"
)
_FEEDS_CACHE_KEY = (
    "workflows:steps_cache:"
    "peakhold/model_monitoring_inference_aggregator@v2:{}:{}:{}:last_report_time"
)
_WHOLE_NUMBER = re.compile(r"\s*\+?[0-9]{1,20}\s*", re.ASCII)
_LONGEST = 10**9
"""Seconds, some thirty years: three times as many are an expiry that caches take."""


def whole_seconds(frequency: Any) -> int:
    """Return ``frequency`` as a number of seconds.

    Args:
        frequency: A whole number of any type, such as ``5``, ``5.0``, ``np.int64(5)``
            and ``Decimal(5)``, anything with ``__index__``, or a string of one.

    Raises:
        ValueError: If it is not a whole number of at least 1, or a string of one; or
            above a thousand million.
    """
    number = frequency
    if isinstance(frequency, str) and _WHOLE_NUMBER.fullmatch(frequency):
        number = int(text_of(frequency))
    try:
        with suppress(TypeError):  # it may be a whole number, and not an integer
            number = index(number)
        # In this order: ``int`` of a ``Decimal`` may make a thousand million digits.
        if 1 <= number <= _LONGEST and number == int(number):
            return int(number)
    except (TypeError, ValueError, ArithmeticError):  # it is not a number
        pass
    try:
        given = reprlib.repr(frequency)
    except ValueError:  # Python writes no number of over 4,300 digits
        given = "one of so many digits"
    raise ValueError(
        "`frequency` must be a whole number of seconds of at least 1, like 5 or "
        f'"5", and at most {_LONGEST:,}, not {given}'
    )


def expiry(period: int) -> int:
    """Return for how many seconds a host's cache is to keep the last report's time.

    Whole seconds: a host's Redis takes no other expiry.
    """
    return max(_KEPT, 3 * period)


def time_kept(period: int) -> float:
    """Return for how many seconds without use a window is kept; a day at most."""
    return min(max(_KEPT, 3 * period), _LONGEST_KEPT)


class Due(Enum):
    """What a window's interval says: to report, that it begins now, or to wait."""

    REPORT = "report"
    BEGINS = "begins"
    LATER = "later"


class _Written:
    """What this process wrote last under a cache key, for all windows that share it.

    Windows of two api keys or endpoints have one cache key, which is a contract.
    Neither takes the other for another process.
    """

    __slots__ = ("__weakref__", "text")

    def __init__(self) -> None:
        self.text: str | None = None


_written: WeakValueDictionary[str, _Written] = WeakValueDictionary()


class ReportInterval:
    """The last report of one window. The window's lock covers it.

    The cache key of the common window is a contract with the hosts. The window of a
    feed has a key of peakhold's own, so that no feed waits for the report of another;
    ``unique_aggregator_key`` and feed, which may hold colons, stand there behind the
    length of the first.

    Attributes:
        cache_key: Where hosts keep the time of the last report.
        last_report: Monotonic time of it; minus infinity while unknown.
    """

    def __init__(self, unique_aggregator_key: str, feed: str | None = None) -> None:
        """Start without knowing of a report; ``feed`` is None for the common window."""
        self.cache_key = _CACHE_KEY.format(unique_aggregator_key)
        if feed is not None:
            self.cache_key = _FEEDS_CACHE_KEY.format(
                len(unique_aggregator_key), unique_aggregator_key, feed
            )
        self.last_report = -math.inf
        self._written = _written.setdefault(self.cache_key, _Written())

    def start_anew(self) -> None:
        """Know of no report, as in a forked child."""
        self.last_report = -math.inf
        self._written.text = None

    def now(self, caches: HostCaches, value: object, period: int) -> Due:
        """Say what is to be done, given that own time says ``period`` seconds passed.

        A report of another process is adopted. No time before the first report, and a
        time in the future count as now; no time later on means that the cache does not
        keep it.

        Args:
            caches: Where trouble is counted.
            value: What the host's cache says.
            period: Seconds between reports.
        """
        known = self.last_report > -math.inf
        # Nobody else reported, and own time does not jump as the wall clock does.
        if known and value == self._written.text:
            return Due.REPORT
        age = None if value is None else _age(value)
        if age is None:
            if value is not None:
                caches.warn("the last report's time there is not a time")
            if known:
                return Due.REPORT
        if age is None or age < 0:
            self.last_report = monotonic()
            return Due.BEGINS
        if age < period:
            self.last_report = monotonic() - age
            return Due.LATER
        return Due.REPORT

    def publish(
        self,
        caches: HostCaches,
        cache: Cache,
        period: int,
        last_report: datetime,
        *,
        inline: bool = False,
        ended: bool = False,
    ) -> None:
        """Have a host's cache know the time of a report.

        Args:
            caches: Which writes it.
            cache: The host's.
            period: Seconds between reports.
            last_report: Time of the report; local and without offset, as hosts read
                and write it.
            inline: Whether it is written on the caller's thread.
            ended: Whether it is the end of an epoch: another process may have written a
                later one, which stays.
        """
        text = self._written.text = last_report.isoformat()
        write = Write(
            cache, self.cache_key, text, expiry(period), _is_later if ended else None
        )
        if inline:
            caches.write_now(write)
        else:
            caches.write(write)


def _is_later(there: object, text: str) -> bool:
    """Whether a cache has a later time than another, and not one of the future."""
    age, other = _age(there), _age(text)
    return age is not None and other is not None and 0 <= age < other


def _age(value: object) -> float | None:
    """Return the seconds since a time a cache holds, or None if it is not a time."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    if not isinstance(value, str):
        return None
    try:
        then = datetime.fromisoformat(value)
        return (datetime.now(then.tzinfo) - then).total_seconds()
    except (ValueError, OverflowError):
        return None
