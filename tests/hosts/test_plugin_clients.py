"""Who sends: our transport as the host tells it, or the client somebody injected."""

from __future__ import annotations

import importlib
import json
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
from host import PLUGIN

from peakhold.roboflow import RoboflowClient

SENDING = (
    "get_roboflow_workspace",
    "send_inference_results_to_model_monitoring",
    "add_custom_metadata",
)


class Request(NamedTuple):
    """What arrived, and on which connection."""

    path: str
    query: dict
    headers: dict
    body: bytes
    connection: int


class Recorder:
    """An API, or a gateway to it, that keeps what it was sent."""

    def __init__(self):
        self.requests = []
        recorder = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self):
                length = int(self.headers.get("Content-Length") or 0)
                parts = urlsplit(self.path)
                recorder.requests.append(
                    Request(
                        parts.path,
                        parse_qs(parts.query),
                        dict(self.headers),
                        self.rfile.read(length),
                        self.client_address[1],
                    )
                )
                body = b'{"workspace": "local"}'
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = _answer  # noqa: N815 - the names http.server looks up

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def posts(self):
        return [request for request in self.requests if request.body]


class Client:
    """A client as a program may inject it: it has what the blocks need, no more."""

    def __init__(self):
        self.calls = []

    def get_roboflow_workspace(self, api_key):
        return "injected"

    def send_inference_results_to_model_monitoring(
        self, api_key, workspace_id, inference_data
    ):
        self.calls.append((api_key, workspace_id, inference_data))

    def add_custom_metadata(
        self, api_key, workspace_id, inference_ids, field_name, field_value
    ):
        self.calls.append((workspace_id, inference_ids, field_name, field_value))

    def get_device_id(self):
        return "device of the injected"

    def get_server_version(self):
        return "injected-1"

    def get_system_info(self):
        return None


class Cache:
    """A host's cache that no other test sees."""

    def __init__(self):
        self.values = {}

    def get(self, key):
        return self.values.get(key)

    def set(self, key, value, expire=None):
        self.values[key] = value


@pytest.fixture
def api():
    with Recorder() as recorder:
        yield recorder


@pytest.fixture
def inference(host):
    """The modules of `inference` that say how to send."""
    if host.standalone:
        pytest.skip("inference is not installed here")

    class Modules:
        api = importlib.import_module("inference.core.roboflow_api")
        env = importlib.import_module("inference.core.env")
        metrics = importlib.import_module("inference.core.managers.metrics")
        urls = importlib.import_module("inference.core.utils.url_utils")
        version = importlib.import_module("inference.core.version").__version__

    return Modules


@pytest.fixture
def pointed(host, api, monkeypatch):
    """The recorder, with the host's endpoint pointing at it."""
    if host.standalone:
        monkeypatch.setenv("API_BASE_URL", api.url)
    else:
        module = importlib.import_module("inference.core.roboflow_api")
        monkeypatch.setattr(module, "API_BASE_URL", api.url)
    return api


@pytest.fixture
def make(host):
    """Makes a block of ours with a key and a cache of the test's own."""
    host.module("execution_engine.introspection.blocks_loader")
    aggregator, metadata, _ = importlib.import_module(PLUGIN).load_blocks()
    key = f"key-{uuid.uuid4().hex}"

    def block(kind="metadata", **parameters):
        made = {"aggregator": aggregator, "metadata": metadata}[kind]
        return made(**{"api_key": key, "cache": Cache(), **parameters})

    return block


@pytest.fixture
def server_client(host):
    """The host's own client: an object, or none where hosts pass none."""
    if host.standalone:
        return host.module("prototypes.platform_client").OFFLINE_PLATFORM_CLIENT
    if not host.split:
        return None
    name = "inference.core.interfaces.roboflow_platform_client"
    return importlib.import_module(name).SERVER_PLATFORM_CLIENT


def send_metadata(block, count=1, **arguments):
    ids = [uuid.uuid4().hex for _ in range(count)]
    answers = [
        block.run(
            fire_and_forget=False,
            field_name="lot",
            field_value="7",
            predictions={"inference_id": inference_id},
            **arguments,
        )
        for inference_id in ids
    ]
    return ids, answers


def report(block):
    """Send a window now: the interval of a window never reported is long over."""
    key = uuid.uuid4().hex
    arguments = {
        "fire_and_forget": False,
        "predictions": {
            "inference_id": "i",
            "prediction_type": "classification",
            "predictions": [{"class": "dog", "confidence": 0.5}],
        },
        "frequency": 1,
        "unique_aggregator_key": key,
        "model_id": "gate/1",
    }
    block._sender.cache.set(
        "workflows:steps_cache:roboflow_core/model_monitoring_inference_aggregator@v1:"
        f"{key}:last_report_time",
        "2001-02-03T04:05:06",
    )
    return block.run(**arguments)


def test_the_hosts_own_client_is_replaced_by_our_transport(
    make, pointed, server_client
):
    block = make(platform_client=server_client)
    assert isinstance(block._sender.client, RoboflowClient)
    ids, answers = send_metadata(block, count=3)
    assert {answer["error_status"] for answer in answers} == {False}
    posts = pointed.posts()
    assert [json.loads(post.body)["data"][0]["inference_ids"] for post in posts] == [
        [inference_id] for inference_id in ids
    ]
    # What the host's own client does not do: connections kept, repetitions told apart.
    assert len({request.connection for request in pointed.requests}) == 1
    assert len({post.headers["Idempotency-Key"] for post in posts}) == 3
    assert {post.path for post in posts} == {"/local/inference-stats/metadata"}


def test_metadata_of_many_frames_goes_out_in_one_request(make, pointed, server_client):
    from peakhold.delivery import current

    block = make(platform_client=server_client)
    ids = [uuid.uuid4().hex for _ in range(20)]
    for inference_id in ids:
        block.run(True, "lot", "7", {"inference_id": inference_id})
    assert current().flush(20)
    bodies = [json.loads(post.body) for post in pointed.posts()]
    sent = [
        i for body in bodies for entry in body["data"] for i in entry["inference_ids"]
    ]
    assert sent == ids
    assert len(bodies) < len(ids) / 2


def test_blocks_of_one_host_share_connections_and_windows(make, pointed, server_client):
    blocks = [make(platform_client=server_client) for _ in range(3)]
    assert len({id(block._sender.client) for block in blocks}) == 1
    assert len({block._sender.destination for block in blocks}) == 1
    for block in blocks:
        send_metadata(block)
    assert len({request.connection for request in pointed.requests}) == 1


def test_an_injected_client_has_its_own_operations_called(make, pointed, server_client):
    client = Client()
    ids, answers = send_metadata(make(platform_client=client), count=2)
    answers.append(report(make("aggregator", platform_client=client)))
    assert {answer["error_status"] for answer in answers} == {False}
    assert client.calls[:2] == [("injected", [i], "lot", "7") for i in ids]
    _, workspace, body = client.calls[2]
    assert workspace == "injected"
    assert body["device_id"] == "device of the injected"
    assert body["inference_server_version"] == "injected-1"
    assert [result["class_name"] for result in body["inference_results"]] == ["dog"]
    assert pointed.requests == []
    # The control: the host's own would have sent there.
    send_metadata(make(platform_client=server_client))
    assert pointed.requests != []


@pytest.mark.parametrize("operation", SENDING)
def test_a_client_that_cannot_send_is_none(make, pointed, operation):
    client = Client()
    setattr(client, operation, None)
    send_metadata(make(platform_client=client))
    assert client.calls == []
    assert len(pointed.posts()) == 1


def test_operations_inherited_from_the_hosts_protocol_are_none(host, make, pointed):
    if not host.split:
        pytest.skip("this host knows no platform clients")
    prototypes = host.module("prototypes.platform_client")

    class Nothing(prototypes.RoboflowPlatformClient):
        """Implements no operation: those of the protocol do nothing."""

    class Sends(Client, prototypes.RoboflowPlatformClient):
        """The control: it implements them."""

    _, (answer,) = send_metadata(make(platform_client=Nothing()))
    assert not answer["error_status"]
    assert len(pointed.posts()) == 1
    client = Sends()
    send_metadata(make(platform_client=client))
    assert len(client.calls) == 1
    assert len(pointed.posts()) == 1


def test_the_placeholder_of_the_package_alone_is_none(host, make, pointed):
    if not host.split:
        pytest.skip("this host knows no platform clients")
    placeholder = host.module("prototypes.platform_client").OFFLINE_PLATFORM_CLIENT
    # The control: by itself it cannot.
    with pytest.raises(Exception, match="not available in this installation"):
        placeholder.get_roboflow_workspace("k")
    block = make(platform_client=placeholder)
    _, (answer,) = send_metadata(block)
    assert not answer["error_status"]
    assert len(pointed.posts()) == 1
    sends_as_host = type(block._sender.client) is not RoboflowClient
    assert sends_as_host is not host.standalone


def test_no_client_at_all_is_the_environments_or_that_of_inference(host, make, pointed):
    block = make()
    send_metadata(block)
    assert len(pointed.posts()) == 1
    sends_as_host = type(block._sender.client) is not RoboflowClient
    assert sends_as_host is not host.standalone


def test_a_subclass_of_the_hosts_client_is_somebodys_own(host, make, pointed):
    if host.standalone or not host.split:
        pytest.skip("this host has no client of its own")
    module = sys.modules["inference.core.interfaces.roboflow_platform_client"]
    calls = []

    class Own(module.ServerRoboflowPlatformClient):
        def add_custom_metadata(self, **arguments):
            calls.append(arguments)

    send_metadata(make(platform_client=Own()))
    assert len(calls) == 1
    assert pointed.posts() == []


def test_headers_are_those_of_inference(inference, make, pointed, monkeypatch):
    extra = json.dumps({"X-Line": "3", "content-type": "text/wrong"})
    monkeypatch.setattr(inference.api, "ROBOFLOW_API_EXTRA_HEADERS", extra)
    send_metadata(make())
    (post,) = pointed.posts()
    names = {name.lower(): value for name, value in post.headers.items()}
    theirs = inference.api.build_roboflow_api_headers()
    assert len(theirs) > 2
    assert theirs.pop("content-type") == "text/wrong"
    for name, value in theirs.items():
        assert names[name.lower()] == value
    # What a request needs, no header of the environment may change.
    assert names["content-type"] == "application/json"


def test_the_gateway_is_that_of_inference(inference, make, monkeypatch):
    with Recorder() as gateway, Recorder() as behind:
        monkeypatch.setattr(inference.api, "API_BASE_URL", behind.url)
        monkeypatch.setattr(inference.urls, "SECURE_GATEWAY", gateway.url)
        send_metadata(make())
        assert {request.path for request in gateway.requests} == {"/proxy"}
        wrapped = [request.query["url"][0] for request in gateway.requests]
        assert wrapped[0].startswith(f"{behind.url}/?api_key=key-")
        assert wrapped[1].startswith(f"{behind.url}/local/inference-stats/metadata?")
        assert behind.requests == []
        # The control: without a gateway it goes straight there.
        monkeypatch.setattr(inference.urls, "SECURE_GATEWAY", None)
        send_metadata(make())
        assert len(gateway.requests) == 2
        assert len(behind.requests) == 2


def test_a_report_says_of_the_device_what_inference_says(
    inference, make, pointed, monkeypatch
):
    monkeypatch.setattr(inference.env, "DEVICE_ID", "device-of-inference")
    facts = {"platform": "of inference", "hostname": "h", "mac_address": "m"}
    monkeypatch.setattr(inference.metrics, "get_system_info", lambda: dict(facts))
    report(make("aggregator"))
    body = json.loads(pointed.posts()[-1].body)
    assert body["device_id"] == "device-of-inference"
    assert body["inference_server_version"] == inference.version
    assert {name: body[name] for name in facts} == facts
    # Told to keep them back, ours says less than inference would.
    monkeypatch.setenv("PEAKHOLD_SYSTEM_INFO", "off")
    report(make("aggregator"))
    body = json.loads(pointed.posts()[-1].body)
    assert body["platform"] == "of inference"
    assert body["hostname"] == body["mac_address"] == ""


def test_certificates_are_checked_as_inference_does(inference, make, monkeypatch):
    assert make()._sender.client.settings.verify_ssl is True
    monkeypatch.setattr(inference.api, "ROBOFLOW_API_VERIFY_SSL", False)
    assert make()._sender.client.settings.verify_ssl is False


def test_offline_inference_sends_nothing(inference, make, pointed, monkeypatch):
    monkeypatch.setattr(inference.api, "OFFLINE_MODE", True)
    _, (answer,) = send_metadata(make())
    assert "OFFLINE_MODE is on" in answer["message"]
    assert pointed.requests == []
    # The control: online it does, and what was kept back may follow.
    monkeypatch.setattr(inference.api, "OFFLINE_MODE", False)
    (inference_id,), _ = send_metadata(make())
    assert inference_id in "".join(post.body.decode() for post in pointed.posts())


def test_a_request_without_a_key_does_not_use_the_servers(inference, make, pointed):
    assert inference.env.API_KEY
    block = make(api_key=None)
    with pytest.raises(ValueError, match="without Roboflow API key"):
        send_metadata(block)
    with pytest.raises(ValueError, match="without Roboflow API key"):
        make("aggregator", api_key=None, platform_client=Client())
    assert pointed.requests == []
