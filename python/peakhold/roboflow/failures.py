"""Turn what the HTTP library raised, or the API answered, into peakhold's exceptions.

Exceptions are made here and raised elsewhere, outside any ``except`` block: that way
their ``__context__`` stays empty, where the original with its URL would be otherwise.
"""

from __future__ import annotations

import json
import re
import ssl
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
import urllib3

from peakhold.roboflow.errors import (
    ConnectionFailedError,
    ForbiddenError,
    NotAuthorizedError,
    NotFoundError,
    PausedError,
    PaymentRequiredError,
    RequestTimeoutError,
    RoboflowError,
    TlsFailedError,
    UnexpectedStatusError,
)
from peakhold.roboflow.redaction import redact, redact_foreign
from peakhold.texts import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from peakhold.roboflow.settings import Settings

# A library may nest causes in a circle; real chains are shorter.
_LONGEST_CHAIN = 20

# TLS errors that say the connection broke, not that the peer is unacceptable.
_TLS_CUT = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)

_LONGEST_QUOTE = 200

# RFC 9110 has whole seconds, as many digits as there are; some gateways send fractions.
_SECONDS = re.compile(r"\d+(\.\d+)?", re.ASCII)
_FOR_EVER = 1e9
"""Seconds, 31 years: who asked for more asked for it, and ``time.sleep`` takes it."""

_BY_STATUS: Mapping[int, tuple[type[RoboflowError], str, str]] = {
    401: (
        NotAuthorizedError,
        "does not know the api key",
        "Check the key (ROBOFLOW_API_KEY)",
    ),
    402: (
        PaymentRequiredError,
        "wants payment",
        "Check plan and credits of the workspace",
    ),
    403: (
        ForbiddenError,
        "does not allow this to the api key",
        "Use a key of this workspace that may write",
    ),
    404: (
        NotFoundError,
        "does not know this address",
        "Check that the workspace exists, and API_BASE_URL",
    ),
    423: (
        PausedError,
        "has paused the workspace",
        "Resume it in the settings of the workspace",
    ),
}


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL: the part that may be shown."""
    parts = urlsplit(url)
    return printable(redact(f"{parts.scheme}://{parts.netloc}"))


def from_exception(
    error: Exception,
    origin: str,
    api_key: str,
    settings: Settings,
    proxy: str | None = None,
) -> RoboflowError:
    """Return the exception for a request that got no whole answer.

    Args:
        error: What requests, urllib3 or the socket raised.
        origin: Where the request went, as it may be shown.
        api_key: The key to keep out of the message.
        settings: For the time-outs to name in the message.
        proxy: Host and port of the proxy it went through, if any.
    """
    chain = list(_chain(error))
    about = _about(proxy)
    if isinstance(error, requests.ConnectTimeout):
        return RequestTimeoutError(
            f"{origin} did not accept a connection within "
            f"{settings.connect_timeout:g} s. Check the network and firewall{about}"
        )
    if any(isinstance(link, (TimeoutError, requests.Timeout)) for link in chain):
        return RequestTimeoutError(
            f"{origin} did not answer within {settings.read_timeout:g} s. Allow more "
            f"by ROBOFLOW_API_REQUEST_TIMEOUT if the network is slow{about}"
        )
    reason = printable(redact(_reason(chain), api_key))
    tls = [link for link in chain if isinstance(link, ssl.SSLError)]
    if any(not isinstance(link, _TLS_CUT) for link in tls):
        return TlsFailedError(
            f"No TLS connection to {origin}: {reason}. Check its certificate; "
            f"REQUESTS_CA_BUNDLE names additional authorities{about}"
        )
    return ConnectionFailedError(
        f"No answer from {origin}: {reason}. Check the network, API_BASE_URL, and "
        f"SECURE_GATEWAY if it is set{about}"
    )


def _about(proxy: str | None) -> str:
    """Return what to add to a remedy if a proxy may be at fault."""
    if proxy is None:
        return ""
    return (
        f"; the request went through the proxy {proxy}, and NO_PROXY lists hosts to "
        "ask without one"
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and what it wraps, in whichever way each library does."""
    waiting: list[Any] = [error]
    seen: list[BaseException] = []
    while waiting and len(seen) < _LONGEST_CHAIN:
        link = waiting.pop(0)
        if not isinstance(link, BaseException) or link in seen:
            continue
        seen.append(link)
        yield link
        waiting += [getattr(link, "reason", None), *link.args]
        waiting += [link.__cause__, link.__context__]


def _reason(chain: list[BaseException]) -> str:
    """Say what happened in the words of the operating system, if they are there."""
    for link in reversed(chain):
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
    # urllib3's own texts name the whole URL; those of its causes do not.
    innermost = chain[-1]
    if isinstance(innermost, (requests.RequestException, urllib3.exceptions.HTTPError)):
        return type(innermost).__name__
    return f"{type(innermost).__name__}: {innermost}"


def from_status(
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    origin: str,
    api_key: str,
    proxy: str | None = None,
) -> RoboflowError:
    """Return the exception for an answer that is not a success.

    Args:
        status: HTTP status.
        headers: Of the answer, names in any case.
        body: As much of the answer as was read.
        origin: Where the request went, as it may be shown.
        api_key: The key to keep out of the message.
        proxy: Host and port of the proxy it went through, if any: it may have answered
            in place of the origin.
    """
    cause, what, remedy = _BY_STATUS.get(status, (UnexpectedStatusError, "", ""))
    if 300 <= status < 400:  # noqa: PLR2004 - the class of HTTP statuses
        what = f"redirects to {_redirect_target(headers, origin, api_key)}"
        remedy = "Redirects are not followed; set API_BASE_URL to the right address"
    message = f"{origin} {what or 'answered with an error'} (HTTP {status})"
    words = _words_of_server(body, api_key)
    if words:
        message += f": {words!r}"
    if remedy or proxy:
        message += f". {remedy or 'Try again later'}{_about(proxy)}"
    return cause(
        message,
        status=status,
        retry_after=seconds_to_wait(headers),
    )


def _redirect_target(headers: Mapping[str, str], origin: str, api_key: str) -> str:
    location = headers.get("Location", "")
    try:
        parts = urlsplit(location)
    except ValueError:
        return "an unreadable address"
    if not parts.netloc:
        return origin
    return redact_foreign(origin_of(location), api_key) or "another host"


def _words_of_server(body: bytes, api_key: str) -> str:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return ""
    for name in ("error", "message", "detail"):
        words = answer.get(name) if isinstance(answer, dict) else None
        if isinstance(words, dict):
            words = words.get("message")
        if isinstance(words, str):
            # First redact, then cut: half a key would not be found.
            return redact_foreign(words, api_key)[:_LONGEST_QUOTE]
    return ""


def seconds_to_wait(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of a ``Retry-After`` header, None without a readable one.

    A date is compared with the ``Date`` header of the same answer, if it has one: the
    clock of an edge device may be off by years, that of the server agrees with itself.
    """
    value = headers.get("Retry-After", "").strip()
    if _SECONDS.fullmatch(value):
        return min(float(value), _FOR_EVER)
    until = _date(value)
    if until is None:
        return None
    now = _date(headers.get("Date", "")) or datetime.now(timezone.utc)
    return max(0.0, (until - now).total_seconds())


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=timezone.utc)
