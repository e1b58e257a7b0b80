"""When a window is due: own monotonic time, and what other processes say."""

from __future__ import annotations

import math
import re
import reprlib
from contextlib import suppress
from datetime import datetime
from operator import index
from time import monotonic
from typing import TYPE_CHECKING, Any

from peakhold.delivery import current
from peakhold.delivery.cache import store
from peakhold.texts import text_of

if TYPE_CHECKING:
    from peakhold.delivery.cache import Cache

_KEPT = 600

_CACHE_KEY = (
    "workflows:steps_cache:"
    "roboflow_core/model_monitoring_inference_aggregator@v1:{}:last_report_time"
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


def time_kept(period: int) -> int:
    """Return for how many seconds without use a window and its cache key are kept.

    Whole seconds: a host's Redis takes no other expiry.
    """
    return max(_KEPT, 3 * period)


WRITTEN_HERE: dict[str, str] = {}
"""What this process wrote last, by cache key.

Windows of two api keys or endpoints have one cache key, which is a contract. Neither
takes the other for another process.
"""


class ReportInterval:
    """The last report of one window. The window's lock covers it.

    Attributes:
        cache_key: Where hosts keep the time of the last report.
        last_report: Monotonic time of it; minus infinity while unknown.
    """

    def __init__(self, unique_aggregator_key: str) -> None:
        """Start without knowing of a report."""
        self.cache_key = _CACHE_KEY.format(unique_aggregator_key)
        self.last_report = -math.inf

    def is_over(self, cache: Cache, period: int) -> bool:
        """Whether a report is due, given that own time says ``period`` seconds passed.

        A report of another process is adopted. No time before the first report, and a
        time in the future count as now; no time later on tells of a cache that does not
        keep it.
        """
        try:
            value = cache.get(self.cache_key)
        except Exception as error:  # noqa: BLE001 - a host's cache may raise anything
            _trouble(f"{type(error).__name__} on reading the last report's time")
            return self._by_own_time(cache, period)
        if value is None:
            return self._by_own_time(cache, period)
        known = self.last_report > -math.inf
        if known and value == WRITTEN_HERE.get(self.cache_key):
            # Nobody else reported, and own time does not jump as the wall clock does.
            return True
        age = _age(value)
        if age is None:
            _trouble("the last report's time there is not a time")
            return self._by_own_time(cache, period)
        if age < 0:
            self.restart(cache, period)
        elif age < period:
            self.last_report = monotonic() - age
        return age >= period

    def restart(self, cache: Cache, period: int) -> None:
        """Count the interval from now on, here and for other processes."""
        self.last_report = monotonic()
        self.tell(cache, period, datetime.now())  # noqa: DTZ005 - see `tell`

    def tell(self, cache: Cache, period: int, last_report: datetime) -> None:
        """Tell other processes of a report, which may take a host's cache its time.

        Args:
            cache: The host's.
            period: Seconds between reports.
            last_report: Time of the report; local and without offset, as hosts read
                and write it.
        """
        written = last_report.isoformat()
        WRITTEN_HERE[self.cache_key] = written
        try:
            store(cache, self.cache_key, written, time_kept(period))
        except Exception as error:  # noqa: BLE001 - a host's cache may raise anything
            _trouble(f"{type(error).__name__} on writing the last report's time")

    def _by_own_time(self, cache: Cache, period: int) -> bool:
        if self.last_report > -math.inf:
            return True
        self.restart(cache, period)
        return False


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


def _trouble(what: str) -> None:
    current().notices.warn("cache", "The cache is unusable, going on without: %s", what)
