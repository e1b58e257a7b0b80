"""What goes over the wire when all is well."""

from __future__ import annotations

import subprocess
import sys
from urllib.parse import quote

import pytest

from peakhold import _peakhold
from peakhold.roboflow import OfflineError, RoboflowClient, Settings
from peakhold.testing import Answer, answer_json

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
