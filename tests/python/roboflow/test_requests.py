"""What goes over the wire when all is well."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import sys
import threading
from urllib.parse import quote

import pytest
from misbehaving_server import CERTIFICATE, Answer, answer_json

from peakhold import _peakhold
from peakhold.roboflow import OfflineError, RoboflowClient, Settings

BODY = b'{"b": 1.50,  "a": "\xc3\xa9"}'


def test_workspace_lookup_asks_the_root_with_the_key(server, client, canary):
    server.script(answer_json({"workspace": "acme"}))

    assert client.get_roboflow_workspace(canary) == "acme"

    (request,) = server.requests
    assert request.method == "GET"
    assert request.target == f"/?api_key={quote(canary, safe='')}&nocache=true"
    assert request.query == {"api_key": [canary], "nocache": ["true"]}
    assert request.body == b""


def test_a_report_body_is_sent_byte_for_byte(server, client, canary):
    client.send_report_body(canary, "acme", BODY, "id-1")

    (request,) = server.requests
    assert request.method == "POST"
    key = quote(canary, safe="")
    assert request.target == f"/acme/inference-stats?api_key={key}"
    assert request.body == BODY
    assert request.headers["Content-Type"] == "application/json"
    assert request.headers["Idempotency-Key"] == "id-1"
    assert request.headers["User-Agent"] == f"peakhold-{_peakhold.__version__}"


def test_a_metadata_body_is_sent_byte_for_byte(server, client, canary):
    client.send_metadata_body(canary, "acme", BODY, "id-2")

    (request,) = server.requests
    key = quote(canary, safe="")
    assert request.target == (
        f"/acme/inference-stats/metadata?api_key={key}&nocache=true"
    )
    assert request.body == BODY
    assert request.headers["Idempotency-Key"] == "id-2"


def test_inference_results_go_to_the_report_endpoint(server, client):
    report = {"source": "workflow", "inference_results": [{"confidence": 0.25}]}
    client.send_inference_results_to_model_monitoring("k", "acme", report)
    client.send_inference_results_to_model_monitoring("k", "acme", report)

    first, second = server.requests
    assert first.path == "/acme/inference-stats"
    assert first.json() == report
    assert first.headers["Idempotency-Key"] != second.headers["Idempotency-Key"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_json_is_not_sent(server, client, value):
    with pytest.raises(ValueError, match="JSON"):
        client.send_inference_results_to_model_monitoring("k", "acme", {"c": value})

    assert server.requests == []


def test_custom_metadata_is_one_entry_by_keywords(server, client):
    client.add_custom_metadata(
        api_key="k",
        workspace_id="acme",
        inference_ids=("a", "b"),
        field_name="line",
        field_value="3",
    )

    (request,) = server.requests
    assert request.path == "/acme/inference-stats/metadata"
    assert request.json() == {
        "data": [
            {"inference_ids": ["a", "b"], "field_name": "line", "field_value": "3"}
        ]
    }


def test_a_workspace_cannot_leave_its_place_in_the_url(server, client):
    client.send_report_body("k", "a/../b?c#d é", b"{}", "id")

    (request,) = server.requests
    assert request.path == "/a%2F..%2Fb%3Fc%23d%20%C3%A9/inference-stats"
    for workspace in ("", ".", ".."):
        with pytest.raises(ValueError, match="workspace_id"):
            client.send_report_body("k", workspace, b"{}", "id")
    assert len(server.requests) == 1


@pytest.mark.parametrize("key", ["", "two words", "line\r\nX: y", "é", "x" * 256])
def test_an_unusable_idempotency_key_is_refused(server, client, key):
    with pytest.raises(ValueError, match="idempotency_key"):
        client.send_report_body("k", "acme", b"{}", key)

    assert server.requests == []


def test_an_empty_api_key_is_refused_before_anything_is_sent(server, client):
    with pytest.raises(ValueError, match="ROBOFLOW_API_KEY"):
        client.get_roboflow_workspace("")

    assert server.requests == []


def test_a_base_url_with_a_path_is_kept(server, make_client):
    client = make_client(api_base_url=f"{server.url}/base/")
    client.send_report_body("k", "acme", b"{}", "id")

    assert server.requests[0].path == "/base/acme/inference-stats"
    assert client.endpoint == f"{server.url}/base"


def test_through_a_gateway_the_whole_url_is_quoted(server, make_client, canary):
    gateway = server.url.removeprefix("http://")  # a scheme is not needed
    client = make_client(api_base_url="https://api.example", secure_gateway=gateway)
    client.send_report_body(canary, "acme", BODY, "id")

    (request,) = server.requests
    assert request.path == "/proxy"
    assert request.query == {
        "url": [
            f"https://api.example/acme/inference-stats?api_key={quote(canary, safe='')}"
        ]
    }
    assert client.wrap_url("https://x/a?b=(c)*") == (
        f"{server.url}/proxy?url=https%3A%2F%2Fx%2Fa%3Fb%3D(c)*"
    )


def test_without_a_gateway_urls_stay_as_they_are(client):
    assert client.wrap_url("https://x/?a=b") == "https://x/?a=b"


def test_extra_headers_are_added_and_never_replace_ours(server, make_client):
    extra = {"X-Team": "line 3", "content-type": "text/plain", "idempotency-key": "x"}
    client = make_client(extra_headers=extra)
    client.send_report_body("k", "acme", b"{}", "id-3")

    (request,) = server.requests
    assert request.headers["X-Team"] == "line 3"
    assert request.headers.get_all("Content-Type") == ["application/json"]
    assert request.headers.get_all("Idempotency-Key") == ["id-3"]


def test_build_api_headers_merges_with_the_explicit_ones_winning(make_client):
    client = make_client(extra_headers={"X-Team": "a", "X-Line": "3"})

    assert client.build_api_headers() == {"X-Team": "a", "X-Line": "3"}
    assert client.build_api_headers({"x-team": "b"}) == {"x-team": "b", "X-Line": "3"}


def test_build_api_headers_answers_none_when_there_are_none(client):
    assert client.build_api_headers() is None
    assert client.build_api_headers({}) is None
    assert client.build_api_headers({"A": "b"}) == {"A": "b"}


def test_device_id_and_version_come_from_settings_and_package(make_client):
    client = make_client(device_id="camera-7")

    assert client.get_device_id() == "camera-7"
    assert client.get_server_version() == f"peakhold-{_peakhold.__version__}"
    assert make_client().get_device_id() is None


def test_a_client_without_settings_reads_the_environment(server, monkeypatch):
    monkeypatch.setenv("API_BASE_URL", server.url)
    client = RoboflowClient()
    client.send_report_body("k", "acme", b"{}", "id")
    client.close()

    assert len(server.requests) == 1


def test_offline_mode_never_touches_the_network(server, make_client):
    client = make_client(offline=True)
    calls = [
        lambda: client.get_roboflow_workspace("k"),
        lambda: client.send_inference_results_to_model_monitoring("k", "w", {}),
        lambda: client.add_custom_metadata("k", "w", ["i"], "f", "v"),
        lambda: client.send_report_body("k", "w", b"{}", "id"),
        lambda: client.send_metadata_body("k", "w", b"{}", "id"),
    ]
    for call in calls:
        with pytest.raises(OfflineError, match="OFFLINE_MODE") as caught:
            call()
        assert caught.value.status is None

    assert server.requests == []
    make_client(offline=False).send_report_body("k", "w", b"{}", "id")
    assert len(server.requests) == 1  # control: the same call arrives when online


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


def test_cookies_are_not_kept(server, client):
    server.script(Answer(200, b"{}", {"Set-Cookie": "session=1; Path=/"}))
    client.send_report_body("k", "acme", b"{}", "id")
    client.send_report_body("k", "acme", b"{}", "id")

    assert server.requests[1].headers["Cookie"] is None


def test_a_netrc_file_does_not_add_credentials(server, client, tmp_path, monkeypatch):
    import requests

    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password s3cret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))

    client.send_report_body("k", "acme", b"{}", "id")
    requests.get(server.url, timeout=5)  # control: this file would be used

    ours, plain = server.requests
    assert ours.headers["Authorization"] is None
    assert plain.headers["Authorization"].startswith("Basic ")


def test_a_proxy_of_the_environment_is_used(server, make_client, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", server.url)
    client = make_client(api_base_url="http://api.example")
    client.send_report_body("k", "acme", BODY, "id")
    client.send_report_body("k", "acme", BODY, "id")

    first, second = server.requests
    assert first.target == "http://api.example/acme/inference-stats?api_key=k"
    assert (first.connection, second.connection) == (1, 1)


class Tunnel:
    """What a proxy does with CONNECT: pass bytes both ways until one side leaves."""

    def perform(self, peer):
        host, port = peer.asked.target.split(":")
        with socket.create_connection((host, int(port))) as beyond:
            peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            passes = {peer.connection: beyond, beyond: peer.connection}
            while not peer.wait(0):
                for side in select.select(list(passes), [], [], 0.05)[0]:
                    data = side.recv(65_536)
                    if not data:
                        peer.hang_up()
                        return
                    passes[side].sendall(data)


def test_tls_through_a_proxy_of_the_environment_works(
    server, tls_server, make_client, monkeypatch
):
    server.otherwise = Tunnel()
    monkeypatch.setenv("HTTPS_PROXY", server.url)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
    client = make_client(api_base_url=tls_server.url)
    client.send_report_body("k", "acme", BODY, "id")
    client.send_report_body("k", "acme", BODY, "id")

    (tunnel,) = server.requests  # one tunnel for both, and the key not in sight of it
    assert tunnel.method == "CONNECT"
    assert tunnel.target == tls_server.url.removeprefix("https://")
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
            print("child", n, "hangs")
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
        print("hangs")
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


def test_importing_the_package_does_not_import_requests():
    script = """
import sys, peakhold.roboflow
network = {"requests", "urllib3", "http.client"}
print(sorted(network & set(sys.modules)))
peakhold.roboflow.RoboflowClient(peakhold.roboflow.Settings(offline=True))
print(sorted(network & set(sys.modules)))
"""
    outcome = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert outcome.stdout.splitlines() == [
        "[]",
        "['http.client', 'requests', 'urllib3']",
    ]


def test_repr_names_the_endpoint_only():
    client = RoboflowClient(Settings(api_key="s3cret"))

    assert repr(client) == "RoboflowClient(endpoint='https://api.roboflow.com')"
