"""Where the Redis server is, as the environment says; no text tells a secret of it."""

from __future__ import annotations

import re

import pytest
import redis

from peakhold.delivery import redis_url
from peakhold.delivery.redis_url import UNUSABLE, RedisUrl
from peakhold.delivery.settings import DeliverySettings

SECRET = "redis://canary-user:canary%40word@redis.example:6380/3?password=canary%2Bq"


def settings_of(share, **environ):
    return DeliverySettings.from_environment({"PEAKHOLD_SHARE": share, **environ})


def connection_of(url):
    return url.client().connection_pool.make_connection()


@pytest.mark.parametrize(
    ("text", "shown", "host", "port", "database"),
    [
        ("redis://redis.example", "redis://redis.example:6379/0", 0, 6379, 0),
        ("redis://redis.example/", "redis://redis.example:6379/0", 0, 6379, 0),
        ("redis://redis.example:6379/0", "redis://redis.example:6379/0", 0, 6379, 0),
        ("redis://Redis.Example:7000/2", "redis://redis.example:7000/2", 0, 7000, 2),
        ("redis://redis.example?db=4", "redis://redis.example:6379/4", 0, 6379, 4),
        ("redis://[::1]:7000/1", "redis://[::1]:7000/1", "::1", 7000, 1),
        (SECRET, "redis://redis.example:6380/3", 0, 6380, 3),
    ],
)
def test_a_url_names_the_server(text, shown, host, port, database):
    settings = settings_of(f" {text} ")
    assert settings.share == "redis"
    assert str(settings.redis) == shown
    assert repr(settings.redis) == f"RedisUrl({shown})"
    connection = connection_of(settings.redis)
    assert connection.host == (host or "redis.example")
    assert (connection.port, connection.db) == (port, database)


def test_a_server_that_is_spelt_otherwise_is_the_same_place():
    spellings = ("redis://a", "redis://A:6379/", "redis://a/0", "redis://u:p@a?db=0")
    assert len({RedisUrl(text).place for text in spellings}) == 1
    others = ("redis://b", "redis://a:6380", "redis://a/1", "redis://a?db=2")
    places = {RedisUrl(text).place for text in ("redis://a", *others)}
    assert len(places) == 5
    for place in places:
        assert re.fullmatch("[0-9a-f]{16}", place)


def test_rediss_is_with_tls():
    url = settings_of("rediss://redis.example:6380/1").redis
    assert isinstance(connection_of(url), redis.SSLConnection)
    assert str(url) == "rediss://redis.example:6380/1"
    assert not isinstance(
        connection_of(RedisUrl("redis://redis.example")), redis.SSLConnection
    )


def test_the_server_of_the_host_is_what_its_variables_say():
    url = settings_of("Redis", REDIS_HOST="cache.example").redis
    assert str(url) == "redis://cache.example:6379/0"
    assert url.timeout == 2
    url = settings_of(
        "redis",
        REDIS_HOST="fd00::7",
        REDIS_PORT="7001",
        REDIS_SSL="True",
        REDIS_TIMEOUT="0.5",
    ).redis
    assert str(url) == "rediss://[fd00::7]:7001/0"
    connection = connection_of(url)
    assert isinstance(connection, redis.SSLConnection)
    assert connection.host == "fd00::7"
    assert (connection.socket_timeout, connection.socket_connect_timeout) == (0.5, 0.5)


def test_it_matters_only_where_it_is_asked_for():
    for share in ("off", "host", ""):
        settings = settings_of(share, REDIS_HOST="cache.example", REDIS_PORT="none")
        assert settings.redis is None


def test_of_two_databases_the_first_counts():
    url = RedisUrl("redis://a?db=1&db=2")
    assert str(url) == "redis://a:6379/1"
    assert connection_of(url).db == 1


@pytest.mark.parametrize(
    ("environ", "remedy"),
    [
        ({}, "PEAKHOLD_SHARE=redis .* REDIS_HOST, .* set it, or give the URL"),
        ({"REDIS_HOST": " "}, "REDIS_HOST"),
        (
            {"REDIS_HOST": "a", "REDIS_PORT": "canary"},
            "REDIS_PORT must be a whole number .* like 6379",
        ),
        ({"REDIS_HOST": "a", "REDIS_PORT": "0"}, "REDIS_PORT must be"),
        ({"REDIS_HOST": "a", "REDIS_PORT": "70000"}, "REDIS_PORT must be"),
        ({"REDIS_HOST": "a", "REDIS_SSL": "canary"}, "REDIS_SSL must be True or False"),
        (
            {"REDIS_HOST": "a", "REDIS_TIMEOUT": "canary"},
            "REDIS_TIMEOUT must be a number of seconds",
        ),
        ({"REDIS_HOST": "a", "REDIS_TIMEOUT": "0"}, "REDIS_TIMEOUT must be"),
        ({"REDIS_HOST": "canary/"}, "REDIS_HOST must be"),
        ({"REDIS_HOST": "canary@b"}, "REDIS_HOST must be"),
        ({"REDIS_HOST": "canary b"}, "REDIS_HOST must be"),
    ],
)
def test_a_variable_of_the_host_that_cannot_be_used_is_named(environ, remedy):
    with pytest.raises(ValueError, match=remedy) as caught:
        settings_of("redis", **environ)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "canary",
        "http://canary.example",
        "unix:///canary",
        "redis://",
        "redis:///0",
        "redis://canary.example:0/0",
        "redis://canary.example:70000/0",
        "redis://canary.example:port/0",
        "redis://canary:[::1/0",
        "redis://canary.example/0?canary=1",
        "redis://canary.example/0?socket_timeout=600",
        "redis://canary.example/0?decode_responses=True",
        "redis://user:9/canary@redis.example:6379/0",
        "redis://user:9?canary@redis.example:6379/0",
        "redis://user:9#canary@redis.example:6379/0",
        "redis://canary.example/0?socket_timeout=canary",
        "redis://canary.example/database",
    ],
)
def test_a_url_that_cannot_be_used_is_an_error_that_does_not_show_it(text):
    with pytest.raises(ValueError, match=f"^{re.escape(UNUSABLE)}$") as caught:
        settings_of(text)
    assert "canary" not in str(caught.value)
    assert caught.value.__context__ is None or "canary" not in repr(
        caught.value.__context__
    )


def test_no_text_shows_user_password_or_query():
    url = RedisUrl(SECRET)
    said = (
        "invalid pair canary-user canary%40word canary@word at "
        "redis.example:6380 for password=canary%2Bq, canary%2Bq, canary+q"
    )
    for text in (str(url), repr(url), url.place, url.describe(OSError(said))):
        assert "canary" not in text
    assert url.describe(OSError("refused")) == "OSError: refused"
    assert "redis.example:6380" in url.describe(OSError(said))
    settings = settings_of(SECRET)
    assert "canary" not in f"{settings!r} {settings}"


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(redis_url, "find_spec", lambda _: None)
    for share in ("redis://canary@redis.example", "redis"):
        with pytest.raises(ValueError, match=r"pip install 'peakhold\[redis\]'"):
            settings_of(share, REDIS_HOST="cache.example")
    assert settings_of("host").share == "host"
