"""Connecting, sending and the whole answer: each has its time, and no more."""

from __future__ import annotations

import socket
import sys
import threading
import time

import pytest
import requests

from peakhold.roboflow import (
    RequestTimeoutError,
    RoboflowError,
)
from peakhold.testing import (
    After,
    Answer,
    BlackHole,
    Drip,
    unreachable_port,
)


def send(client):
    client.send_report_body("k", "acme", b"{}", "id")


def failure_of(client, cause=RoboflowError):
    with pytest.raises(cause) as caught:
        send(client)
    return caught.value


def test_no_answer_is_a_time_out(server, make_client):
    server.otherwise = BlackHole()
    client = make_client(read_timeout=0.2)
    started = time.monotonic()
    error = failure_of(client, RequestTimeoutError)

    assert time.monotonic() - started < 2
    assert "0.2 s" in str(error)
    assert "ROBOFLOW_API_REQUEST_TIMEOUT" in str(error)
    assert error.status is None


def test_an_answer_just_in_time_is_no_time_out(server, make_client):
    server.otherwise = After(0.2, Answer())

    send(make_client(read_timeout=5, connect_timeout=0.05))


@pytest.mark.parametrize("head_at_once", [False, True], ids=["head", "body"])
def test_a_dripping_answer_has_one_deadline(server, make_client, head_at_once):
    server.otherwise = Drip(
        body=b'{"workspace": "acme"}', interval=0.1, head_at_once=head_at_once
    )
    client = make_client(read_timeout=0.4)
    started = time.monotonic()
    with pytest.raises(RequestTimeoutError):
        client.get_roboflow_workspace("k")

    assert time.monotonic() - started < 1.2


def test_without_our_connections_a_dripping_answer_would_be_waited_for(server):
    server.otherwise = Drip(body=b"0123456789", interval=0.1, head_at_once=True)
    started = time.monotonic()
    requests.get(server.url, timeout=0.4)

    assert time.monotonic() - started > 0.8


def test_a_dripping_answer_that_ends_in_time_is_fine(server, make_client):
    server.otherwise = Drip(body=b'{"workspace": "acme"}', interval=0.001)

    assert make_client(read_timeout=20).get_roboflow_workspace("k") == "acme"


def test_sending_has_the_read_time_out_not_the_connect_one(make_client):
    # A peer that lets the request sit for a while: small buffers, late reading.
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def read_late():
            peer, _ = listener.accept()
            with peer:
                for _ in range(2):  # two requests on one connection
                    time.sleep(0.6)
                    received = bytearray()
                    while not received.endswith(b"END"):
                        received += peer.recv(1 << 20)
                    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

        reader = threading.Thread(target=read_late)
        reader.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        client = make_client(api_base_url=url, connect_timeout=0.2, read_timeout=10)
        body = b" " * 8_000_000 + b"END"
        client.send_report_body("k", "acme", body, "id")
        client.send_report_body("k", "acme", body, "id")
        reader.join()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse instead")
def test_a_connection_that_is_not_accepted_is_a_time_out(make_client):
    with unreachable_port() as port:
        client = make_client(
            api_base_url=f"http://127.0.0.1:{port}",
            connect_timeout=0.2,
            read_timeout=30,
        )
        started = time.monotonic()
        error = failure_of(client, RequestTimeoutError)

    assert time.monotonic() - started < 5
    assert "0.2 s" in str(error)


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.parametrize("head_at_once", [False, True], ids=["head", "body"])
def test_time_outs_hold_over_tls(tls_server, make_client, head_at_once):
    tls_server.otherwise = Drip(
        body=b'{"workspace": "acme"}', interval=0.1, head_at_once=head_at_once
    )
    client = make_client(
        api_base_url=tls_server.url, verify_ssl=False, read_timeout=0.4
    )
    started = time.monotonic()
    with pytest.raises(RequestTimeoutError):
        client.get_roboflow_workspace("k")

    assert time.monotonic() - started < 1.2
