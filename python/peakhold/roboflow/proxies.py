"""Which proxy of the environment a request goes through, if any."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy

from peakhold.texts import printable

if TYPE_CHECKING:
    from collections.abc import Mapping


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def proxies_for(url: str) -> dict[str, str]:
    """Return the proxies of the environment for a URL, as requests takes them.

    There are none for this machine: a proxy would ask its own machine instead.
    """
    found: dict[str, str] = {} if is_loopback(url) else get_environ_proxies(url)
    return found


def proxy_of(url: str, proxies: Mapping[str, str]) -> str | None:
    """Return host and port of the proxy that a request goes through, None if none.

    Its user and password are left out.
    """
    proxy: str | None = select_proxy(url, proxies)
    if not proxy:
        return None
    address = proxy.rpartition("@")[2].rpartition("://")[2]
    return printable(re.split(r"[/?#]", address)[0])
