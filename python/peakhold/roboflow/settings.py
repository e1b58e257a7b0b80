"""Settings of the API client, and the environment variables they come from."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from peakhold.environment import Environment
from peakhold.roboflow.api_key import ApiKey, without_locals
from peakhold.texts import text_of

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_API_BASE_URL = "https://api.roboflow.com"
DEFAULT_CONNECT_TIMEOUT = 3.05
"""Seconds; a little over 3, the first retransmission of a lost TCP SYN."""
DEFAULT_READ_TIMEOUT = 10.0
"""Seconds."""

ENVIRONMENT: Mapping[str, str] = {
    "ROBOFLOW_API_KEY": "The api key; `API_KEY` is read if it is not set.",
    "API_KEY": "The api key, if `ROBOFLOW_API_KEY` is not set.",
    "API_BASE_URL": f"Address of the API. Default: {DEFAULT_API_BASE_URL}.",
    "DEVICE_ID": "The `device_id` of every report. Default: none (null).",
    "ROBOFLOW_API_REQUEST_TIMEOUT": (
        "Seconds in which the whole answer has to arrive; connecting may take as long, "
        f"but at most {DEFAULT_CONNECT_TIMEOUT} s. Default: {DEFAULT_READ_TIMEOUT:g}, "
        f"and {DEFAULT_CONNECT_TIMEOUT} to connect."
    ),
    "ROBOFLOW_API_VERIFY_SSL": (
        "`False` accepts any certificate of the server. Default: `True`."
    ),
    "ROBOFLOW_API_EXTRA_HEADERS": (
        "JSON object of headers to add to every request. Default: none."
    ),
    "OFFLINE_MODE": "`True` keeps the client off the network. Default: `False`.",
    "SECURE_GATEWAY": (
        "Host, or URL, of a gateway: every URL becomes `{gateway}/proxy?url={url}`. "
        "Without a scheme it is `http://`. Default: none."
    ),
    "PEAKHOLD_SYSTEM_INFO": (
        "`off` leaves host name, IP address and MAC address of reports empty. "
        "Default: `on`."
    ),
}
"""What each variable means. An empty value is the same as none."""

_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_VALUE = re.compile(r"|[!-~\xa0-\xff](?:[\t -~\xa0-\xff]*[!-~\xa0-\xff])?")


@dataclass(frozen=True)
class Settings:
    """How to reach the API. Messages and ``repr`` never show a key or a header.

    Another process that unpickles them has no key and no extra headers.

    Attributes:
        api_key: The key, for callers that have none of their own; kept as an
            ``ApiKey``.
        api_base_url: Where the API is; kept without a trailing slash.
        device_id: ``device_id`` of every report.
        connect_timeout: Seconds for opening a connection, per address of the host.
        read_timeout: Seconds for sending a request, and again for its whole answer.
        verify_ssl: Whether the certificate of the server is checked.
        extra_headers: Headers added to every request.
        offline: Whether the network must not be touched.
        secure_gateway: Gateway through which every URL goes; kept with its scheme and
            without a trailing slash.
        system_info: Whether reports name host, IP address and MAC address.

    Raises:
        ValueError: If a value cannot be used; the text says which and what would be.
    """

    api_key: ApiKey | str | None = field(default=None, repr=False)
    api_base_url: str = DEFAULT_API_BASE_URL
    device_id: str | None = None
    connect_timeout: float = DEFAULT_CONNECT_TIMEOUT
    read_timeout: float = DEFAULT_READ_TIMEOUT
    verify_ssl: bool = True
    extra_headers: Mapping[str, str] = field(
        default_factory=dict, repr=False, hash=False
    )
    offline: bool = False
    secure_gateway: str | None = None
    system_info: bool = True

    def __post_init__(self) -> None:
        """Check every value once, however the settings were made."""
        set_field = object.__setattr__  # the class is frozen for everybody else
        set_field(self, "api_key", ApiKey.of(self.api_key) if self.api_key else None)
        base = _checked_url("api_base_url (API_BASE_URL)", self.api_base_url)
        set_field(self, "api_base_url", base)
        if self.secure_gateway is not None:
            gateway = text_of(self.secure_gateway)
            if "://" not in gateway:
                gateway = f"http://{gateway}"
            gateway = _checked_url("secure_gateway (SECURE_GATEWAY)", gateway)
            set_field(self, "secure_gateway", gateway)
        for name in ("connect_timeout", "read_timeout"):
            seconds = getattr(self, name)
            if not (math.isfinite(seconds) and seconds > 0):
                message = (
                    f"{name} (ROBOFLOW_API_REQUEST_TIMEOUT) must be a number of "
                    "seconds above 0"
                )
                raise ValueError(message)
        set_field(self, "extra_headers", _checked_headers(self.extra_headers))

    def __getstate__(self) -> dict[str, object]:
        """Leave the key and the headers out of what is pickled."""
        return {**vars(self), "api_key": None, "extra_headers": {}}

    def __copy__(self) -> Settings:
        """Return the same object, which does not change."""
        return self

    def __deepcopy__(self, memo: object) -> Settings:
        """Return the same object, which does not change."""
        return self

    @classmethod
    @without_locals
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the variables of ``ENVIRONMENT``.

        Args:
            environ: Where to look them up; None for those of the process.

        Raises:
            ValueError: If a variable cannot be used; the text names it and the remedy,
                and shows no value.
        """
        read = Environment(environ)
        seconds = read.number(
            "ROBOFLOW_API_REQUEST_TIMEOUT", DEFAULT_READ_TIMEOUT, "seconds"
        )
        return cls(
            api_key=read.text("ROBOFLOW_API_KEY") or read.text("API_KEY"),
            api_base_url=read.text("API_BASE_URL") or DEFAULT_API_BASE_URL,
            device_id=read.text("DEVICE_ID"),
            connect_timeout=min(DEFAULT_CONNECT_TIMEOUT, seconds),
            read_timeout=seconds,
            verify_ssl=read.switch("ROBOFLOW_API_VERIFY_SSL", default=True),
            extra_headers=_headers(read.text("ROBOFLOW_API_EXTRA_HEADERS")),
            offline=read.switch("OFFLINE_MODE", default=False),
            secure_gateway=read.text("SECURE_GATEWAY"),
            system_info=read.switch("PEAKHOLD_SYSTEM_INFO", default=True),
        )


# Its frame, which dataclasses make, has the key among its arguments.
Settings.__init__ = without_locals(Settings.__init__)  # type: ignore[method-assign]


def is_platform(url: str) -> bool:
    """Whether an address is Roboflow's own."""
    host = urlsplit(url).hostname or ""
    return f".{host}".endswith((".roboflow.com", ".roboflow.one"))


def _headers(value: str | None) -> dict[str, str]:
    if value is None:
        return {}
    try:
        headers = json.loads(value)
    except ValueError:  # its text and its `doc` attribute hold the value
        headers = None
    if not isinstance(headers, dict):
        message = (
            "ROBOFLOW_API_EXTRA_HEADERS must be a JSON object of strings, like "
            '{"X-Team": "line 3"}'
        )
        raise ValueError(message)  # noqa: TRY004 - a variable's text has no other type
    return headers


def _checked_headers(headers: Mapping[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not (isinstance(name, str) and _HEADER_NAME.fullmatch(name)):
            message = (
                "extra_headers (ROBOFLOW_API_EXTRA_HEADERS) holds a name that HTTP "
                "does not allow: use letters, digits and dashes"
            )
            raise ValueError(message)
        if not (isinstance(value, str) and _HEADER_VALUE.fullmatch(value)):
            message = (
                f"header {name} of extra_headers (ROBOFLOW_API_EXTRA_HEADERS) must be "
                "a string of one line in Latin-1 without blanks around it"
            )
            raise ValueError(message)
    return dict(headers)


def _checked_url(name: str, url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname)
        usable = usable and parts.port != 0  # reading the port checks it
    except ValueError:
        usable = False
    if not usable or re.search(r"[\s\x00-\x1f\x7f]", url):
        message = f"{name} must be a URL like {DEFAULT_API_BASE_URL}"
        raise ValueError(message)
    if "@" in parts.netloc or "?" in url or "#" in url:
        message = (
            f"{name} must not hold a user, a query or a fragment; credentials for a "
            "proxy or gateway go into ROBOFLOW_API_EXTRA_HEADERS"
        )
        raise ValueError(message)
    return url.rstrip("/")
