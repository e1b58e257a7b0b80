"""One exception class per cause, with what the server asked for."""

from __future__ import annotations

import json
import pickle
import socket
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
import requests

from peakhold.errors import PeakholdError
from peakhold.roboflow import (
    ConnectionFailedError,
    ForbiddenError,
    MalformedResponseError,
    NotAuthorizedError,
    NotFoundError,
    PausedError,
    PaymentRequiredError,
    RoboflowError,
    TlsFailedError,
    UnexpectedStatusError,
)
from peakhold.testing import (
    Answer,
    CutOff,
    MisbehavingServer,
    Reset,
    answer_json,
    redirect,
    refusing_port,
)


def send(client):
    client.send_report_body("k", "acme", b"{}", "id")


def failure_of(client, cause=RoboflowError):
    with pytest.raises(cause) as caught:
        send(client)
    return caught.value


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (300, UnexpectedStatusError),
        (400, UnexpectedStatusError),
        (401, NotAuthorizedError),
        (402, PaymentRequiredError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (405, UnexpectedStatusError),
        (408, UnexpectedStatusError),
        (409, UnexpectedStatusError),
        (413, UnexpectedStatusError),
        (422, UnexpectedStatusError),
        (423, PausedError),
        (425, UnexpectedStatusError),
        (429, UnexpectedStatusError),
        (500, UnexpectedStatusError),
        (502, UnexpectedStatusError),
        (503, UnexpectedStatusError),
        (504, UnexpectedStatusError),
        (599, UnexpectedStatusError),
    ],
)
def test_each_status_has_its_class_and_code(server, client, status, cause):
    server.otherwise = Answer(status)
    for call in (
        lambda: send(client),
        lambda: client.send_metadata_body("k", "acme", b"{}", "id"),
        lambda: client.get_roboflow_workspace("k"),
    ):
        with pytest.raises(RoboflowError) as caught:
            call()
        assert type(caught.value) is cause
        assert caught.value.status == status
        assert caught.value.retry_after is None
        assert str(status) in str(caught.value)
        assert server.url in str(caught.value)
        assert isinstance(caught.value, PeakholdError)


@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_every_2xx_is_a_success(server, client, status):
    server.otherwise = Answer(status, b"")

    send(client)


def test_an_error_is_not_retried_by_the_client(server, client):
    server.otherwise = Answer(503)
    failure_of(client)

    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("7", 7.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("-3", None),
        ("", None),
        ("soon", None),
        ("1e400", None),
        ("9" * 500, 1e9),
        ("9" * 500 + "." + "9" * 500, 1e9),
        ("1e9", None),
        ("Wed, 99 Foo 2026", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503, 401])
def test_retry_after_in_seconds(server, client, status, value, seconds):
    server.otherwise = Answer(status, b"{}", {"Retry-After": value})

    assert failure_of(client).retry_after == seconds


def test_retry_after_as_a_date(server, client):
    until = datetime.now(timezone.utc) + timedelta(seconds=100)
    headers = {"Retry-After": format_datetime(until, usegmt=True)}
    server.otherwise = Answer(503, b"{}", headers)

    assert failure_of(client).retry_after == pytest.approx(100, abs=5)


def test_retry_after_as_a_date_is_relative_to_the_clock_of_the_server(server, client):
    long_ago = datetime(1999, 12, 31, 23, 59, 0, tzinfo=timezone.utc)
    later = long_ago + timedelta(minutes=2)
    headers = {
        "Date": format_datetime(long_ago, usegmt=True),
        "Retry-After": format_datetime(later, usegmt=True),
    }
    server.script(
        Answer(503, b"{}", headers),
        Answer(503, b"{}", {"Retry-After": headers["Retry-After"]}),
    )

    assert failure_of(client).retry_after == 120.0
    assert failure_of(client).retry_after == 0.0  # in the past: at once


@pytest.mark.parametrize(
    "body",
    [
        b'{"error": "the workspace is closed"}',
        b'{"message": "the workspace is closed"}',
        b'{"detail": "the workspace is closed"}',
        b'{"error": {"message": "the workspace is closed"}}',
    ],
)
def test_words_of_the_server_are_in_the_message(server, client, body):
    server.otherwise = Answer(422, body)

    assert "the workspace is closed" in str(failure_of(client))


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[1]", b'{"error": 5}', b"[" * 60_000, b"\xff", b"null"]
)
def test_an_error_without_readable_words_is_the_same_error(server, client, body):
    server.otherwise = Answer(500, body)

    assert failure_of(client, UnexpectedStatusError).status == 500


def test_a_long_tale_of_the_server_is_cut(server, client):
    server.otherwise = answer_json({"error": "x" * 5000}, 500)

    assert len(str(failure_of(client))) < 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"workspace": "ac',
        b"[]",
        b"null",
        b'"acme"',
        b"{}",
        b'{"workspace": ""}',
        b'{"workspace": null}',
        b'{"workspace": 7}',
        b'{"workspace": ["acme"]}',
        b'{"workspace": {"a": 1}}',
        b'{"workspace": ".."}',
        b'{"workspace": "."}',
        b'{"workspace": "\\ud800"}',
        b"\xff\xfe",
        b"[" * 60_000,
        b'{"workspace": "acme", "pad": "' + b"x" * 100_000 + b'"}',
    ],
)
def test_a_lookup_without_a_usable_workspace_is_malformed(server, client, body):
    server.otherwise = Answer(200, body)
    with pytest.raises(MalformedResponseError, match="API_BASE_URL") as caught:
        client.get_roboflow_workspace("k")

    assert caught.value.status == 200
    assert caught.value.__context__ is None


def test_an_answer_too_long_to_read_costs_the_connection_not_the_report(server, client):
    server.script(Answer(200, b"x" * 500_000))
    send(client)
    send(client)

    assert [request.connection for request in server.requests] == [1, 2]


@pytest.mark.parametrize("behaviour", [Reset(), Reset(b"HTTP/1.1 20")])
def test_a_reset_is_a_failed_connection(server, client, behaviour):
    server.script(behaviour)
    error = failure_of(client, ConnectionFailedError)

    assert error.status is None
    assert not isinstance(error, TlsFailedError)
    send(client)  # the next request is not affected


def test_a_refused_connection_is_a_failed_connection(make_client):
    url = f"http://127.0.0.1:{refusing_port()}"
    error = failure_of(make_client(api_base_url=url), ConnectionFailedError)

    assert url in str(error)
    assert "API_BASE_URL" in str(error)


def test_an_unknown_host_is_a_failed_connection(make_client, monkeypatch):
    def unknown(*_args, **_kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    error = failure_of(
        make_client(api_base_url="http://api.example"), ConnectionFailedError
    )

    assert "Name or service not known" in str(error)


def test_what_is_not_http_is_a_failed_connection(server, client):
    server.script(Reset(b"SSH-2.0-OpenSSH_9.6\r\n"))

    failure_of(client, ConnectionFailedError)


def test_a_lookup_that_is_cut_off_is_a_failed_connection(server, client):
    server.script(CutOff(200))
    with pytest.raises(ConnectionFailedError):
        client.get_roboflow_workspace("k")


def test_a_report_acknowledged_by_status_is_delivered_even_if_the_rest_is_cut_off(
    server, client
):
    server.script(CutOff(200), CutOff(503))

    send(client)
    assert failure_of(client).status == 503


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_is_not_followed(server, client, status):
    with MisbehavingServer() as other:
        server.otherwise = redirect(f"{other.url}/elsewhere?api_key=k", status)
        error = failure_of(client, UnexpectedStatusError)
        with pytest.raises(UnexpectedStatusError):
            client.get_roboflow_workspace("k")

        assert other.requests == []
        assert error.status == status
        assert other.url in str(error)
        assert "elsewhere" not in str(error)
        assert "API_BASE_URL" in str(error)
        requests.get(server.url, timeout=5)  # control: requests itself would go there
        assert len(other.requests) == 1


@pytest.mark.parametrize("location", ["/here", "", "http://[", "//x@y/"])
def test_a_redirect_within_the_host_is_not_followed_either(server, client, location):
    server.script(redirect(location))
    error = failure_of(client, UnexpectedStatusError)

    assert error.status == 302
    assert len(server.requests) == 1


def test_an_untrusted_certificate_is_a_tls_failure(tls_server, make_client):
    error = failure_of(make_client(api_base_url=tls_server.url), TlsFailedError)

    assert "certificate verify failed" in str(error)
    assert "REQUESTS_CA_BUNDLE" in str(error)
    assert isinstance(error, ConnectionFailedError)
    assert tls_server.requests == []


def test_tls_to_a_server_without_it_is_a_tls_failure(server, make_client):
    client = make_client(api_base_url=server.url.replace("http:", "https:"))

    failure_of(client, TlsFailedError)


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.parametrize("behaviour", [Reset(), CutOff(200)])
def test_a_tls_connection_that_breaks_is_not_a_tls_failure(
    tls_server, make_client, behaviour
):
    tls_server.script(behaviour)
    client = make_client(api_base_url=tls_server.url, verify_ssl=False)
    with pytest.raises(ConnectionFailedError) as caught:
        client.get_roboflow_workspace("k")

    assert type(caught.value) is ConnectionFailedError


def test_a_proxy_that_is_down_is_a_failed_connection(make_client, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", f"http://user:s3cret@127.0.0.1:{refusing_port()}")
    error = failure_of(
        make_client(api_base_url="http://api.example"), ConnectionFailedError
    )

    assert "proxy" in str(error)
    assert "s3cret" not in str(error)


def test_a_proxy_that_refuses_is_a_failed_connection(server, make_client, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    server.otherwise = Answer(407)
    error = failure_of(
        make_client(api_base_url="https://api.example"), ConnectionFailedError
    )

    assert type(error) is ConnectionFailedError
    assert "407" in str(error)
    assert server.requests[0].method == "CONNECT"


def test_failures_cross_process_boundaries_with_their_facts(server, client):
    server.otherwise = answer_json({}, 429, retry_after="3")
    copy = pickle.loads(pickle.dumps(failure_of(client)))

    assert (type(copy), copy.status, copy.retry_after) == (
        UnexpectedStatusError,
        429,
        3.0,
    )


def test_a_lookup_that_is_well_answers(server, client):
    server.otherwise = Answer(200, json.dumps({"workspace": "acme"}).encode())

    assert client.get_roboflow_workspace("k") == "acme"
