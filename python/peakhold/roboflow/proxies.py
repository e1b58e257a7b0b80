"""Which proxy of the environment a request goes through, if any."""

from __future__ import annotations

import re
from ipaddress import ip_address
from socket import inet_aton
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from requests.utils import get_environ_proxies, select_proxy

from peakhold.texts import printable

if TYPE_CHECKING:
    from collections.abc import Mapping


_LOCAL_NAMES = {"localhost", "localhost.localdomain", "ip6-localhost"}


def is_loopback(url: str) -> bool:
    """Whether a URL is of this machine, as far as its text says; nothing is asked."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    if host in _LOCAL_NAMES or host.endswith(".localhost"):
        return True
    try:
        # Connections take short and numeric forms, such as 127.1, so `inet_aton`.
        address = ip_address(host if ":" in host else inet_aton(host))
    except (OSError, ValueError):
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return address.is_loopback or address.is_unspecified


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
