"""The address of a Redis server, of which user, password and query are secrets."""

from __future__ import annotations

import re
from hashlib import sha256
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

from peakhold.records.content import ENCODING_VERSION
from peakhold.roboflow.api_key import without_locals

if TYPE_CHECKING:
    from redis import Redis

    from peakhold.environment import Environment

SCHEMES = ("redis", "rediss")
SHARE_VARIABLE = "PEAKHOLD_SHARE"
UNUSABLE = (
    f"{SHARE_VARIABLE} must be off, host, redis, or the URL of a Redis server, like "
    "redis://redis.example:6379/0 or rediss://user:password@redis.example:6380/1"
)
_SECONDS = 2.0
_PORT = 6379
_HIGHEST_PORT = 65535
_OPTION = re.compile("db|username|password|ssl_[a-z_]+")
"""Options of a URL that change neither how long is waited nor what an answer is."""
_NOT_IN_A_HOST = frozenset("/@?#[] ")


class RedisUrl:
    """Where a Redis server is; no text of it shows a secret.

    Attributes:
        timeout: Seconds that are waited for a connection, and for an answer.
    """

    __slots__ = ("_text", "timeout")

    @without_locals
    def __init__(self, text: str, timeout: float = _SECONDS) -> None:
        """Keep an address.

        Args:
            text: The URL, as redis-py takes it.
            timeout: Seconds that are waited for a connection, and for an answer.

        Raises:
            ValueError: It cannot be used, or the package redis is not installed.
        """
        self._text = text
        self.timeout = timeout
        if find_spec("redis") is None:
            raise ValueError(
                f"{SHARE_VARIABLE} names a Redis server, which needs the package: "
                "pip install 'peakhold[redis]'"
            )
        if not self._is_usable():
            raise ValueError(UNUSABLE)

    @classmethod
    def of_host(cls, read: Environment) -> RedisUrl:
        """Return the address that the host itself uses, as its variables say.

        Raises:
            ValueError: One of them cannot be used.
        """
        host = read.text("REDIS_HOST")
        if host is None:
            raise ValueError(
                f"{SHARE_VARIABLE}=redis takes the address from REDIS_HOST, which is "
                "not set: set it, or give the URL, like redis://redis.example:6379/0"
            )
        if not _NOT_IN_A_HOST.isdisjoint(host):
            raise ValueError(
                "REDIS_HOST must be the name or the address of a Redis server, like "
                f"redis.example: a URL is for {SHARE_VARIABLE}"
            )
        port = read.whole_number("REDIS_PORT", _PORT)
        if port > _HIGHEST_PORT:
            raise ValueError(f"REDIS_PORT must be at most {_HIGHEST_PORT}")
        scheme = SCHEMES[read.switch("REDIS_SSL", default=False)]
        if ":" in host:  # IPv6
            host = f"[{host}]"
        timeout = read.number("REDIS_TIMEOUT", _SECONDS, "seconds")
        return cls(f"{scheme}://{host}:{port}/0", timeout)

    @without_locals
    def client(self) -> Redis:
        """Return a client, which has not connected yet.

        Raises:
            ValueError: The URL has an option that redis-py does not know.
        """
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        return Redis.from_url(
            self._text,
            socket_timeout=self.timeout,
            socket_connect_timeout=self.timeout,
            retry=Retry(NoBackoff(), 0),
            client_name="peakhold",
        )

    def _is_usable(self) -> bool:
        try:
            url = urlsplit(self._text)
            options = parse_qs(url.query, strict_parsing=bool(url.query))
            path = url.path.strip("/")  # redis-py takes a word for database 0
            usable = bool(
                url.scheme in SCHEMES
                and url.hostname
                and url.port != 0
                and (path.isdecimal() or not path)
                # Else a password with a special character is taken for something else.
                and not url.fragment
                and "@" not in url.query
                and all(map(_OPTION.fullmatch, options))
            )
            if usable:
                self.client().connection_pool.make_connection()
        except Exception:  # noqa: BLE001 - redis-py passes options on unchecked
            return False
        return usable

    def __deepcopy__(self, memo: object) -> RedisUrl:
        """Return the same object."""
        return self

    def __getstate__(self) -> object:
        """Refuse to be pickled: the password must not leave this process's memory."""
        raise TypeError(
            "the address of a Redis server cannot be pickled: give it to the other "
            f"process by its environment ({SHARE_VARIABLE})"
        )

    def __str__(self) -> str:
        """Return scheme, host, port and database."""
        url = urlsplit(self._text)
        host = f"[{url.hostname}]" if ":" in (url.hostname or "") else url.hostname
        database, *_ = parse_qs(url.query).get("db", [url.path.strip("/") or "0"])
        return f"{url.scheme}://{host}:{url.port or _PORT}/{database}"

    def __repr__(self) -> str:
        """Show the same."""
        return f"RedisUrl({self})"

    @property
    def place(self) -> str:
        """Name of the server in an outbox: the same in all processes that use it.

        Processes of another encoding do not read what these have there.
        """
        name = f"{self} {ENCODING_VERSION}"
        return sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def describe(self, error: BaseException) -> str:
        """Return type and text of an exception, without a secret of the URL."""
        text = f"{type(error).__name__}: {error}"
        url = urlsplit(self._text)
        secrets = [url.username, url.password, url.query]
        for option in url.query.split("&"):
            name, _, value = option.partition("=")
            if name.endswith(("username", "password")):
                secrets.append(value)
        spelt = {word for each in secrets if each for word in (each, unquote(each))}
        for secret in sorted(spelt, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text
