"""Proxies of the environment: never for this machine, and named where one was used."""

from __future__ import annotations

import pytest

from peakhold.roboflow import ConnectionFailedError, ForbiddenError, RoboflowError
from peakhold.roboflow.proxies import is_loopback, proxies_for, proxy_of
from peakhold.testing import (
    Answer,
    BlackHole,
    MisbehavingServer,
    answer_json,
    refusing_port,
)


@pytest.fixture
def proxy(monkeypatch):
    """A proxy that lets nobody through, with a password."""
    with MisbehavingServer() as running:
        running.otherwise = Answer(403)
        address = running.url.removeprefix("http://")
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://someone:s3cret@{address}")
        running.address = address
        yield running


def send(client):
    client.send_report_body("k", "acme", b"{}", "id")


def failure_of(client):
    with pytest.raises(RoboflowError) as caught:
        send(client)
    assert "s3cret" not in str(caught.value)
    assert "someone" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_asked_without_a_proxy(server, proxy, make_client, host):
    client = make_client(api_base_url=server.url.replace("127.0.0.1", host))
    send(client)

    assert len(server.requests) == 1
    assert proxy.requests == []
    # The control: any other host is asked through it.
    failure_of(make_client(api_base_url="http://api.example"))
    assert len(proxy.requests) == 1


def test_a_gateway_decides_itself_how_this_machine_is_asked(
    server, proxy, make_client, monkeypatch
):
    """What it is asked for is part of its URL; the URL's host is the gateway's own."""
    here = make_client(api_base_url="http://127.0.0.1:1", secure_gateway=server.url)
    send(here)
    assert (len(server.requests), len(proxy.requests)) == (1, 0)
    there = make_client(
        api_base_url="http://127.0.0.1:1", secure_gateway="gateway.example"
    )
    failure_of(there)
    assert proxy.requests[0].target.startswith("http://gateway.example/proxy?url=")


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:9001", True),
        ("http://127.8.9.10", True),
        ("http://[::1]:9001", True),
        ("https://localhost", True),
        ("http://LOCALHOST:80", True),
        ("http://localhost.:9001", True),
        ("http://a.localhost", True),
        ("http://localhost.localdomain", True),
        ("http://ip6-localhost:9001", True),
        ("http://[::ffff:127.0.0.1]", True),
        ("http://0.0.0.0:9001", True),
        ("http://[::]:9001", True),
        ("http://127.1", True),
        ("http://2130706433", True),
        ("http://0x7f000001", True),
        ("http://127.0.0.1.", True),
        ("http://localhost.example", False),
        ("http://notlocalhost", False),
        ("http://127.0.0.1.example", False),
        ("http://[::ffff:10.0.0.1]", False),
        ("http://10.1", False),
        ("http://\udcff", False),
        ("http://128.0.0.1", False),
        ("http://[::2]", False),
        ("http://10.0.0.1", False),
        ("https://api.roboflow.com", False),
    ],
)
def test_which_addresses_are_on_this_machine(proxy, url, here):
    assert is_loopback(url) is here
    assert (proxies_for(url) == {}) is here


def test_an_answer_that_came_through_a_proxy_names_it(proxy, make_client):
    error = failure_of(make_client(api_base_url="http://api.example"))

    assert type(error) is ForbiddenError
    assert f"through the proxy {proxy.address}, and NO_PROXY lists" in str(error)
    proxy.otherwise = answer_json({}, 500)
    assert f"the proxy {proxy.address}" in str(
        failure_of(make_client(api_base_url="http://api.example"))
    )


def test_a_request_that_got_no_answer_through_a_proxy_names_it(
    proxy, make_client, monkeypatch
):
    """A tunnel that is refused, a proxy that hangs, and one that is not there."""
    tls = make_client(api_base_url="https://api.example", read_timeout=0.2)
    assert f"the proxy {proxy.address}" in str(failure_of(tls))
    proxy.otherwise = BlackHole()
    plain = make_client(api_base_url="http://api.example", read_timeout=0.2)
    assert f"the proxy {proxy.address}" in str(failure_of(plain))
    nobody = f"127.0.0.1:{refusing_port()}"
    monkeypatch.setenv("HTTP_PROXY", f"someone:s3cret@{nobody}")
    error = failure_of(make_client(api_base_url="http://api.example"))
    assert type(error) is ConnectionFailedError
    assert f"the proxy {nobody}" in str(error)


def test_a_request_without_a_proxy_names_none(server, client, monkeypatch):
    server.otherwise = Answer(403)
    assert "proxy" not in str(failure_of(client)).lower()


@pytest.mark.parametrize(
    ("proxy", "shown"),
    [
        ("http://proxy:3128", "proxy:3128"),
        ("proxy:3128", "proxy:3128"),
        ("http://user:pass@proxy:3128/", "proxy:3128"),
        ("user:pass@proxy", "proxy"),
        ("http://user:p/a?s#s@w@proxy:3128", "proxy:3128"),
        ("socks5h://user:pass@[fd00::1]:1080", "[fd00::1]:1080"),
        ("", None),
    ],
)
def test_a_proxy_is_shown_by_host_and_port_alone(proxy, shown):
    assert proxy_of("http://api.example/?api_key=k", {"http": proxy}) == shown
