"""The misbehaving server does what it was told, and the API counts what took effect."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from datetime import datetime, timezone
from http.client import (
    HTTPConnection,
    HTTPException,
    IncompleteRead,
    RemoteDisconnected,
)
from socket import SHUT_WR, create_connection

import pytest

from peakhold.testing import (
    After,
    Answer,
    BlackHole,
    CutOff,
    Drip,
    LostAcknowledgement,
    MisbehavingApi,
    MisbehavingServer,
    RandomFaults,
    Reset,
    answer_json,
    redirect,
    refuse,
    refusing_port,
)


@pytest.fixture
def server():
    with MisbehavingServer() as running:
        yield running
    assert running.problems == []


@pytest.fixture
def api():
    with MisbehavingApi() as running:
        yield running
    assert running.problems == []


def ask(server, method="POST", path="/w/inference-stats", body="{}", timeout=5.0):
    """Make one request; returns status, headers and body."""
    connection = HTTPConnection("127.0.0.1", server.port, timeout=timeout)
    try:
        connection.request(method, path, body=body)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_scripted_behaviours_come_in_order_and_then_the_usual_one(server):
    server.script(Answer(503), Answer(429))
    server.otherwise = answer_json({"fine": True}, status=201)
    assert [ask(server)[0] for _ in range(4)] == [503, 429, 201, 201]
    assert [request.method for request in server.requests] == ["POST"] * 4


def test_what_arrived_is_kept_as_it_came(server):
    ask(server, path="/a%20b?x=1&x=2", body='{"a": 1}')
    (request,) = server.requests
    assert request.target == "/a%20b?x=1&x=2"
    assert request.query == {"x": ["1", "2"]}
    assert request.json() == {"a": 1}


def test_a_request_that_did_not_arrive_whole_is_none(server):
    with create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf")
        connection.shutdown(SHUT_WR)
        assert connection.recv(1) == b""
    assert server.requests == []


@pytest.mark.parametrize(
    ("retry_after", "header"),
    [
        (None, None),
        (7, "7"),
        (1.9, "1"),
        ("soon", "soon"),
        (
            datetime(2026, 2, 3, 4, 5, 6, tzinfo=timezone.utc),
            "Tue, 03 Feb 2026 04:05:06 GMT",
        ),
    ],
)
def test_a_refusal_says_when_to_come_again_in_every_form(server, retry_after, header):
    server.script(refuse(429, retry_after))
    status, headers, _ = ask(server)
    assert (status, headers.get("Retry-After")) == (429, header)


@pytest.mark.parametrize("behaviour", [Reset(), LostAcknowledgement()])
def test_a_reset_is_a_reset(server, behaviour):
    server.script(behaviour)
    with pytest.raises((ConnectionResetError, RemoteDisconnected)):
        ask(server)


def test_an_answer_that_is_cut_off_is_incomplete(server):
    server.script(CutOff())
    with pytest.raises(IncompleteRead):
        ask(server)


def test_a_drip_is_a_whole_answer_that_takes_its_time(server):
    server.script(Drip(body=b"abc", interval=0.02, head_at_once=True))
    begin = time.monotonic()
    assert ask(server)[2] == b"abc"
    assert time.monotonic() - begin >= 0.04


def test_a_black_hole_says_nothing(server):
    server.script(BlackHole())
    with pytest.raises(TimeoutError):
        ask(server, timeout=0.1)


def test_a_server_that_stops_waits_for_no_black_hole():
    begin = time.monotonic()
    with MisbehavingServer() as server:
        server.script(BlackHole(), After(30, Answer()))
        for _ in range(2):
            with pytest.raises(TimeoutError):
                ask(server, timeout=0.1)
    assert time.monotonic() - begin < 5


def test_a_redirect_names_the_other_address(server):
    server.script(redirect("http://127.0.0.1:1/"))
    status, headers, _ = ask(server)
    assert (status, headers["Location"]) == (302, "http://127.0.0.1:1/")


def test_nobody_listens_at_a_refusing_port():
    connection = HTTPConnection("127.0.0.1", refusing_port(), timeout=5)
    with pytest.raises(ConnectionRefusedError):
        connection.request("GET", "/")


def test_the_api_answers_lookups_and_takes_reports(api):
    assert ask(api, "GET", "/?api_key=k")[2] == b'{"workspace": "spaceship"}'
    body = '{"inference_results": [{"class_name": "car"}]}'
    assert ask(api, body=body)[0] == 200
    assert api.results() == [{"class_name": "car"}]
    assert api.lookup_count() == 1


@pytest.mark.parametrize(
    ("behaviour", "accepted"),
    [(LostAcknowledgement(), 1), (Reset(), 0), (CutOff(), 0), (BlackHole(), 0)],
)
def test_a_request_took_effect_if_only_its_answer_was_lost(api, behaviour, accepted):
    api.failures = [behaviour]
    with pytest.raises((OSError, HTTPException)):
        ask(api, timeout=0.2)
    assert len(api.posts()) == 1
    assert len(api.accepted(kind="report")) == accepted


@pytest.mark.parametrize(
    ("status", "accepted"), [(200, 1), (201, 1), (302, 0), (503, 0)]
)
def test_an_answered_request_took_effect_if_it_succeeded(api, status, accepted):
    api.failures = [After(0.01, Answer(status))]
    assert ask(api)[0] == status
    assert len(api.accepted()) == accepted


def test_reports_and_metadata_are_told_apart(api):
    ask(api)
    ask(api, path="/w/inference-stats/metadata", body='{"data": [{"a": 1}]}')
    assert len(api.posts()) == 2
    assert len(api.posts(kind="report")) == 1
    assert api.entries() == [{"a": 1}]


def test_random_faults_are_as_frequent_as_told_and_the_same_for_a_seed(api):
    def draw(seed):
        faults = RandomFaults(seed, (0.08, Answer(503)), (0.05, LostAcknowledgement()))
        return [faults(None) for _ in range(10_000)]

    drawn = draw(7)
    many = Counter(type(fault).__name__ for fault in drawn)
    assert 700 < many["Answer"] < 900
    assert 400 < many["LostAcknowledgement"] < 600
    assert drawn == draw(7)
    assert drawn != draw(8)
    api.faults = RandomFaults(7, (1.0, Answer(418)))
    assert ask(api)[0] == 418


def test_only_the_standard_library_and_numpy_are_imported():
    code = "import peakhold.testing, sys; print(*sys.modules, sep='\\n')"
    printed = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert "peakhold.testing.server" in printed.splitlines()
    others = {"pytest", "requests", "supervision"}
    assert others.isdisjoint(printed.splitlines())
