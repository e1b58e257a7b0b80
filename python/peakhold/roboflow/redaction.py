"""Keep api keys out of text: messages of exceptions, and what urllib3 logs.

The Roboflow API takes its key in the query string, so every URL is a secret. urllib3
logs URLs at DEBUG. Two nets, both needed: a pattern finds any ``api_key=`` parameter,
quoted or not, whoever sent the request; the exact key of the request in flight is found
wherever it stands, for instance where a server echoes it.

Not covered: ``http.client.HTTPConnection.debuglevel``, which prints requests to
stdout on purpose. Local variables of traceback frames are the matter of ``api_key.py``.
"""

from __future__ import annotations

import json
import logging
import re
from contextlib import contextmanager
from contextvars import ContextVar
from traceback import format_exception
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

from peakhold.roboflow.api_key import ApiKey
from peakhold.texts import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

REDACTED = "***"

# Levels of quoting are matched with their own separators: in a URL quoted once (for a
# gateway) the parameter ends at %26, while %2526 is an ampersand inside the key.
_PLAIN_PARAMETER = re.compile(r"(api_key=)[^&\s\"'<>]+", re.IGNORECASE)
_QUOTED_PARAMETER = re.compile(
    r"(api_key%((?:25)*)3D)(?:(?!%\2(?:26|23))[^&\s\"'<>])+", re.IGNORECASE
)
_USER_INFO = re.compile(r"(://)[^/?#\s@]+@")

# Modules of urllib3 that log URLs, or server text, in any version that requests allows.
_LOGGERS = (
    "urllib3",
    "urllib3.connection",
    "urllib3.connectionpool",
    "urllib3.poolmanager",
    "urllib3.response",
    "urllib3.util.retry",
    "requests",
)

# Shorter than this it is no secret: a key of one letter, as in a test, stands in every
# sentence. The pattern above finds it in a URL all the same.
_TELLING_LENGTH = 6

_in_flight: ContextVar[str | None] = ContextVar("peakhold_api_key", default=None)


def redact(text: str, secret: ApiKey | str | None = None) -> str:
    """Return ``text`` without api keys and without the user info of URLs.

    Args:
        text: Anything that is about to be shown.
        secret: A key to remove wherever it stands: as it is, quoted for a URL once or
            twice, or escaped as in JSON. Less than six characters are not looked for.
    """
    text = _PLAIN_PARAMETER.sub(rf"\1{REDACTED}", text)
    text = _QUOTED_PARAMETER.sub(rf"\1{REDACTED}", text)
    text = _USER_INFO.sub(rf"\1{REDACTED}@", text)
    known = "" if secret is None else ApiKey.of(secret).reveal()
    if len(known) >= _TELLING_LENGTH:
        text = _every_form(known).sub(REDACTED, text)
    return text


def redact_foreign(text: str, secret: str) -> str:
    """Return words of a server without the key, or nothing if part of it remains."""
    text = redact(text, secret)
    fragments = range(len(secret) - _TELLING_LENGTH + 1)
    if any(secret[at : at + _TELLING_LENGTH] in text for at in fragments):
        return ""
    return text


def _every_form(secret: str) -> re.Pattern[str]:
    once = quote(secret, safe="", errors="replace")
    forms = {
        secret,
        once,
        quote(once, safe=""),
        quote(secret, errors="replace"),
        quote_plus(secret, errors="replace"),
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
    }
    longest_first = sorted(forms, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)), re.IGNORECASE)


@contextmanager
def in_flight(api_key: str) -> Iterator[None]:
    """Remove ``api_key`` from what this thread logs through urllib3 meanwhile."""
    token = _in_flight.set(api_key)
    try:
        yield
    finally:
        _in_flight.reset(token)


class _KeyFilter(logging.Filter):
    """Rewrites records that hold a key; lets every record pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        secret = _in_flight.get()
        text = record.getMessage()
        clean = redact(text, secret)
        if secret is not None:  # what follows is of our own requests
            clean = printable(clean)
        if clean != text:
            record.msg, record.args = clean, ()
        if record.exc_info and record.exc_info[1] is not None:
            trace = "".join(format_exception(record.exc_info[1])).rstrip()
            clean = redact(trace, secret)
            if secret is not None or clean != trace:
                # Handlers that keep the exception would keep the URL in its frames.
                clean = "\n".join(map(printable, clean.split("\n")))
                record.exc_text, record.exc_info = clean, None
        return True


_KEY_FILTER = _KeyFilter()


def guard_logs() -> None:
    """Filter api keys out of what urllib3 logs; calling it again changes nothing.

    A filter does not apply to child loggers, so each logger gets it.
    """
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_KEY_FILTER)
