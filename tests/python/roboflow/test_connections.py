"""How connections are kept, shared between threads, forked, proxied and secured."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

import pytest

from peakhold.testing import CERTIFICATE, Answer, Drip, answer_json

BODY = b'{"b": 1.50,  "a": "\xc3\xa9"}'


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b'{"workspace": "acme"}'),
        Answer(200, b'{"workspace": "acme"}', chunked=True),
    ],
    ids=["content-length", "chunked"],
)
def test_requests_share_one_connection(server, client, answer):
    server.otherwise = answer
    for n in range(10):
        client.get_roboflow_workspace("k")
        client.send_report_body("k", "acme", BODY, f"id-{n}")

    assert len(server.requests) == 20
    assert {request.connection for request in server.requests} == {1}


def test_errors_keep_the_connection_too(server, client):
    server.script(answer_json({"error": "no"}, 503), Answer(204, b""))
    with pytest.raises(Exception, match="503"):
        client.send_report_body("k", "acme", BODY, "id")
    client.send_report_body("k", "acme", BODY, "id")

    assert [request.connection for request in server.requests] == [1, 1]


def test_a_closed_client_opens_new_connections(server, client):
    client.send_report_body("k", "acme", b"{}", "id")
    client.close()
    client.close()
    client.send_report_body("k", "acme", b"{}", "id")

    assert [request.connection for request in server.requests] == [1, 2]


def test_a_proxy_of_the_environment_is_used(server, make_client, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", server.url)
    client = make_client(api_base_url="http://api.example")
    client.send_report_body("k", "acme", BODY, "id")
    client.send_report_body("k", "acme", BODY, "id")

    first, second = server.requests
    assert first.target == "http://api.example/acme/inference-stats?api_key=k"
    assert (first.connection, second.connection) == (1, 1)


class Tunnel:
    """What a proxy does with CONNECT: pass bytes both ways until one side leaves.

    Whatever the name, the host beyond is this machine.
    """

    def perform(self, peer):
        _, port = peer.asked.target.split(":")
        with socket.create_connection(("127.0.0.1", int(port))) as beyond:
            peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            passes = {peer.connection: beyond, beyond: peer.connection}
            while not peer.wait(0):
                for side in select.select(list(passes), [], [], 0.05)[0]:
                    data = side.recv(65_536)
                    if not data:
                        peer.hang_up()
                        return
                    passes[side].sendall(data)


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_tls_through_a_proxy_of_the_environment_works(
    server, tls_server, make_client, monkeypatch
):
    server.otherwise = Tunnel()
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    address = f"api.example:{urlsplit(tls_server.url).port}"
    # The server's certificate is for this machine, which is asked without a proxy.
    client = make_client(api_base_url=f"https://{address}", verify_ssl=False)
    client.send_report_body("k", "acme", BODY, "id")
    client.send_report_body("k", "acme", BODY, "id")

    (tunnel,) = server.requests  # one tunnel for both, and the key not in sight of it
    assert tunnel.method == "CONNECT"
    assert tunnel.target == address
    assert [request.body for request in tls_server.requests] == [BODY, BODY]
    client.close()


def test_tls_with_a_trusted_certificate_works(tls_server, make_client, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
    client = make_client(api_base_url=tls_server.url)
    client.send_report_body("k", "acme", BODY, "id")
    client.send_report_body("k", "acme", BODY, "id")

    assert [request.body for request in tls_server.requests] == [BODY, BODY]
    assert {request.connection for request in tls_server.requests} == {1}


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
@pytest.mark.parametrize("bundle", [None, __file__])
def test_verification_can_be_switched_off(tls_server, make_client, monkeypatch, bundle):
    if bundle is not None:  # requests would let this variable overrule verify=False
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", bundle)
    client = make_client(api_base_url=tls_server.url, verify_ssl=False)
    client.send_report_body("k", "acme", BODY, "id")

    assert len(tls_server.requests) == 1


def test_many_threads_share_a_client(server, client):
    failures = []

    def send(thread):
        for n in range(20):
            body = json.dumps({"thread": thread, "n": n}).encode()
            try:
                client.send_report_body(f"key-{thread}", "acme", body, f"{thread}-{n}")
            except Exception as error:  # noqa: BLE001 - reported below
                failures.append(error)

    threads = [threading.Thread(target=send, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    for request in server.requests:
        thread, n = request.headers["Idempotency-Key"].split("-")
        assert request.json() == {"thread": int(thread), "n": int(n)}
        assert request.query["api_key"] == [f"key-{thread}"]
    assert len({r.headers["Idempotency-Key"] for r in server.requests}) == 160
    # Each thread starts on a new connection at most; the pool holds all eight.
    assert max(request.connection for request in server.requests) <= 16


def test_an_interruption_lets_no_two_threads_write_to_one_connection(server, client):
    """It comes just after urllib3 put the connection back into the pool."""

    def interrupt(frame, event, _argument):
        caller = frame.f_back.f_code.co_name if frame.f_back else ""
        if (frame.f_code.co_name, caller) != ("_put_conn", "release_conn"):
            return interrupt if event == "call" else None
        if event == "return":
            raise KeyboardInterrupt
        return interrupt

    def send(name):
        return threading.Thread(
            target=client.send_report_body, args=("k", "acme", BODY, name)
        )

    server.script(Drip(body=b"{}", interval=0.3, head_at_once=True))
    beside = send("beside")  # its place in the pool is free meanwhile
    beside.start()
    while not server.requests:
        time.sleep(0.005)
    tracing = sys.gettrace()
    sys.settrace(interrupt)
    try:
        with pytest.raises(KeyboardInterrupt):
            client.send_report_body("k", "acme", b"{}", "interrupted")
    finally:
        sys.settrace(tracing)
    server.otherwise = Drip(body=b"{}", interval=0.1, head_at_once=True)
    threads = [send("one"), send("other")]
    for thread in threads:
        thread.start()
    for thread in [*threads, beside]:
        thread.join()

    sent = {each.headers["Idempotency-Key"]: each for each in server.requests}
    assert sent["one"].connection != sent["other"].connection
    assert (sent["one"].body, sent["other"].body) == (BODY, BODY)


FORK = """
import os, sys, threading, time
from peakhold.roboflow import RoboflowClient, Settings
client = RoboflowClient(Settings(api_base_url=sys.argv[1]))
client.send_report_body("k", "w", b"{}", "parent")
going = True
def busy():
    while going:
        client.send_report_body("k", "w", b"{}", "parent")
threads = [threading.Thread(target=busy) for _ in range(2)]
for thread in threads: thread.start()
sys.setswitchinterval(1e-5)
for n in range(10):
    child = os.fork()
    if child == 0:
        client.send_report_body("k", "w", b"{}", "child")
        client.get_system_info()
        client.close()
        sys.exit(0)  # with finalizers, which is where a pool's lock would hang
    deadline = time.monotonic() + 20
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
            print("child", n, "hangs", flush=True)
            os._exit(1)
        time.sleep(0.002)
going = False
for thread in threads: thread.join()
client.send_report_body("k", "w", b"{}", "parent")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
def test_a_forked_child_opens_its_own_connections_and_never_hangs(server):
    outcome = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, server.url],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (outcome.returncode, outcome.stdout, outcome.stderr) == (0, "", "")
    by_sender = {"parent": set(), "child": set()}
    for request in server.requests:
        by_sender[request.headers["Idempotency-Key"]].add(request.connection)
    assert len(by_sender["child"]) == 10
    assert not by_sender["child"] & by_sender["parent"]
    assert len(by_sender["parent"]) <= 3  # the parent's connections survive


FORK_UNDER_A_LOCK = """
import os, queue, sys, time
from peakhold.roboflow import RoboflowClient, Settings
client = RoboflowClient(Settings(api_base_url=sys.argv[1]))
manager = client._transport._session().get_adapter(sys.argv[1]).poolmanager
if sys.argv[2] == "urllib3's pool":
    manager.pool_classes_by_scheme["http"].QueueCls = queue.LifoQueue
client.send_report_body("k", "w", b"{}", "parent")
pool = manager.connection_from_url(sys.argv[1]).pool
for lock in vars(pool).values():  # as if another thread was in there
    if hasattr(lock, "acquire"):
        lock.acquire(blocking=False)
del manager, pool
child = os.fork()
if child == 0:
    client.send_report_body("k", "w", b"{}", "child")
    sys.exit(0)
deadline = time.monotonic() + float(sys.argv[3])
while os.waitpid(child, os.WNOHANG) == (0, 0):
    if time.monotonic() > deadline:
        os.kill(child, 9)
        print("hangs", flush=True)
        os._exit(0)
    time.sleep(0.002)
print("ends")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")
@pytest.mark.parametrize(
    ("pool", "patience", "end"),
    [("our pool", 20, "ends"), ("urllib3's pool", 1, "hangs")],
)
def test_a_fork_while_the_pool_is_in_use_needs_a_pool_without_locks(
    server, pool, patience, end
):
    arguments = ["-c", FORK_UNDER_A_LOCK, server.url, pool, str(patience)]
    outcome = subprocess.run(
        [sys.executable, "-W", "ignore", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (outcome.stdout, outcome.stderr) == (f"{end}\n", "")
