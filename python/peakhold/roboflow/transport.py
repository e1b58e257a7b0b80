"""One HTTP exchange at a time over pooled, kept-alive connections.

The only module that talks to the network; importing it imports requests.

What requests takes from its environment, and what not: proxies (``HTTPS_PROXY``,
``NO_PROXY``) and certificate authorities (``REQUESTS_CA_BUNDLE``) work as usual, except
that this machine is never asked through a proxy. A ``.netrc`` is not read: it would add
an Authorization header that nobody asked for. Cookies are not kept. Redirects are not
followed, on any host: the key in the URL must not travel, and a POST must not turn into
a GET.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import requests
from requests.cookies import RequestsCookieJar

from peakhold.interpreter import give_way
from peakhold.roboflow.connections import DeadlineAdapter
from peakhold.roboflow.failures import from_exception, from_status, origin_of
from peakhold.roboflow.proxies import proxies_for, proxy_of
from peakhold.roboflow.redaction import guard_logs, in_flight

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peakhold.roboflow.errors import RoboflowError
    from peakhold.roboflow.settings import Settings

# The answers of the API are tiny; what is longer is cut, and the connection with it.
MAX_ANSWER = 65_536

# Idle connections to keep: more threads than this may send at once, but reconnect.
_POOL_SIZE = 16


@dataclass(frozen=True)
class Answer:
    """A success.

    Attributes:
        status: HTTP status.
        body: At most ``MAX_ANSWER`` bytes.
        cut: Why the body is not whole, if it is not; the status is known.
    """

    status: int
    body: bytes = field(repr=False)  # a server may echo the key
    cut: RoboflowError | None


class Transport:
    """The connections of one client. Safe for several threads, and across a fork."""

    def __init__(self, settings: Settings, user_agent: str) -> None:
        """Prepare; nothing is opened before the first exchange."""
        self._settings = settings
        self._user_agent = user_agent
        self._pooled: tuple[int, requests.Session] | None = None
        guard_logs()

    def __getstate__(self) -> dict[str, object]:
        """Leave the connections out of what is copied or pickled."""
        return {**vars(self), "_pooled": None}

    def exchange(
        self,
        method: str,
        url: str,
        *,
        api_key: str,
        headers: Mapping[str, str] | None,
        body: bytes | None = None,
    ) -> Answer | RoboflowError:
        """Send one request and return its answer, or why there is none.

        The failure is returned, not raised, so that no frame of its traceback has the
        URL among its local variables.

        Args:
            method: GET or POST.
            url: Whole, with the key in it.
            api_key: The same key, to keep it out of logs and messages.
            headers: Of the request.
            body: Sent as it is.
        """
        origin, proxies = origin_of(url), proxies_for(url)
        proxy = proxy_of(url, proxies)
        with in_flight(api_key):
            try:
                response = self._session().request(
                    method,
                    url,
                    headers=headers,
                    data=body,
                    timeout=(
                        self._settings.connect_timeout,
                        self._settings.read_timeout,
                    ),
                    proxies=proxies,
                    verify=authorities(self._settings),
                    stream=True,
                )
            except Exception as error:  # noqa: BLE001 - whatever escapes holds the URL
                return from_exception(error, origin, api_key, self._settings, proxy)
            with response:
                cut = None
                received = bytearray()
                try:
                    _read(response, received)
                except Exception as error:  # noqa: BLE001 - as above
                    cut = from_exception(error, origin, api_key, self._settings, proxy)
                status, answer = response.status_code, bytes(received)
                if 200 <= status < 300:  # noqa: PLR2004 - HTTP's successes
                    return Answer(status, answer, cut)
                return from_status(
                    status, response.headers, answer, origin, api_key, proxy
                )

    def close(self) -> None:
        """Close idle connections. The next exchange opens new ones."""
        pooled, self._pooled = self._pooled, None
        if pooled is not None and pooled[0] == os.getpid():
            pooled[1].close()

    def _session(self) -> requests.Session:
        """Return the session of this process.

        A child must not use connections it shares with its parent: answers would get
        mixed up. There is no lock, which a fork could leave held: two threads at the
        very first request may make two sessions, of which one is used once.
        """
        pooled = self._pooled
        if pooled is None or pooled[0] != os.getpid():
            pooled = (os.getpid(), Session(self._settings))
            pooled[1].headers["User-Agent"] = self._user_agent
            self._pooled = pooled
        return pooled[1]


class _NoCookies(RequestsCookieJar):
    """A jar that stays empty, without the lock that all threads would share.

    ``http.cookiejar`` takes it before a ``try``: interrupted there, it is never given
    back, and nothing is sent any more.
    """

    def extract_cookies(self, response: object, request: object) -> None:
        """Keep none."""


class Session(requests.Session):
    """A session that reads no environment, and takes every answer for the last one.

    ``allow_redirects=False`` would not do: requests then still prepares the request it
    does not send, which reads the whole body and fails on an odd ``Location``.
    """

    def __init__(self, settings: Settings) -> None:
        """Open no connection yet."""
        super().__init__()
        # `proxies_for` and `authorities` read what is wanted of it.
        self.trust_env = False
        self.auth = _between_steps
        self.cookies = _NoCookies()
        # Nothing to decompress: no small answer that unpacks into a gigabyte.
        self.headers["Accept-Encoding"] = "identity"
        adapter = DeadlineAdapter(settings.read_timeout, _POOL_SIZE)
        self.mount("http://", adapter)
        self.mount("https://", adapter)

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002
        """Find no redirect."""
        return


def authorities(settings: Settings) -> bool | str:
    """Return what requests is to verify certificates by."""
    if not settings.verify_ssl:
        return False
    names = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    return next((path for name in names if (path := os.environ.get(name))), True)


def _between_steps(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Let frame loops run: half of the work before the request is done here."""
    give_way()
    return request


def _read(response: requests.Response, received: bytearray) -> None:
    """Read to the end, so that the connection can be used again, or to the limit."""
    response.raw.enforce_content_length = True  # urllib3 1.26 does not by default
    while len(received) < MAX_ANSWER:
        # Decoding is on for servers that compress although nobody asked.
        chunk = response.raw.read(MAX_ANSWER - len(received), decode_content=True)
        if not chunk:
            return
        received += chunk
