"""One request without a key: does the endpoint answer, and what time is it there?"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peakhold.roboflow import RoboflowClient


@dataclass(frozen=True)
class Answer:
    """What an endpoint answered.

    Attributes:
        status: HTTP status; any is an answer.
        ahead: How far the clock of this machine is ahead of the server's; None if the
            server did not tell its time.
        proxy: Host and port of the proxy it came through; None without one.
    """

    status: int
    ahead: timedelta | None
    proxy: str | None


def ask(client: RoboflowClient) -> Answer:
    """Request the root of the API as `client` would, but without a key.

    Raises:
        RoboflowError: There was no answer; the text has the remedy.
    """
    from peakhold.roboflow.failures import from_exception, origin_of
    from peakhold.roboflow.proxies import proxies_for, proxy_of
    from peakhold.roboflow.transport import Session, authorities

    settings = client.settings
    url = client.wrap_url(f"{settings.api_base_url}/")
    proxies = proxies_for(url)
    proxy = proxy_of(url, proxies)
    try:
        with Session(settings) as session:
            began = time.time()
            with session.get(
                url,
                headers=client.build_api_headers(),
                timeout=(settings.connect_timeout, settings.read_timeout),
                proxies=proxies,
                verify=authorities(settings),
                stream=True,
            ) as response:
                between = (began + time.time()) / 2
                date = response.headers.get("Date", "")
                return Answer(response.status_code, _ahead(between, date), proxy)
    except Exception as error:  # noqa: BLE001 - whatever it is, there was no answer
        failure = from_exception(error, origin_of(url), "", settings, proxy)
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
