"""One request without a key: does the endpoint answer, and what time is it there?"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import requests

    from peakhold.roboflow import RoboflowClient


@dataclass(frozen=True)
class Answer:
    """What an endpoint answered.

    Attributes:
        status: HTTP status; any is an answer.
        ahead: How far the clock of this machine is ahead of the server's; None if the
            server did not tell its time.
    """

    status: int
    ahead: timedelta | None


def ask(client: RoboflowClient) -> Answer:
    """Request the root of the API as `client` would, but without a key.

    Raises:
        RoboflowError: There was no answer; the text has the remedy.
    """
    import requests

    from peakhold.roboflow.connections import DeadlineAdapter
    from peakhold.roboflow.failures import from_exception, origin_of

    settings = client.settings
    url = client.wrap_url(f"{settings.api_base_url}/")
    try:
        with requests.Session() as session:
            # Else the credentials of a .netrc would go along.
            session.auth = _unchanged
            for scheme in ("http://", "https://"):
                session.mount(scheme, DeadlineAdapter(settings.read_timeout, 1))
            began = time.time()
            with session.get(
                url,
                headers=client.build_api_headers(),
                timeout=(settings.connect_timeout, settings.read_timeout),
                verify=settings.verify_ssl,
                allow_redirects=False,
                stream=True,
            ) as response:
                between = (began + time.time()) / 2
                date = response.headers.get("Date", "")
                return Answer(response.status_code, _ahead(between, date))
    except Exception as error:  # noqa: BLE001 - whatever it is, there was no answer
        failure = from_exception(error, origin_of(url), "", settings)
    # Outside: the original's text may hold the proxy's password.
    raise failure


def _ahead(now: float, date: str) -> timedelta | None:
    try:
        there = parsedate_to_datetime(date)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    if there.tzinfo is None:
        there = there.replace(tzinfo=timezone.utc)
    return datetime.fromtimestamp(now, timezone.utc) - there


def _unchanged(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request
