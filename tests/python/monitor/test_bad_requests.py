"""What is refused, with which status, and with which reason."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from contextlib import closing
from urllib.parse import quote, urlsplit

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from peakhold.monitor.bodies import MAX_BODY

REPORTS = "/local/inference-stats"
METADATA = "/local/inference-stats/metadata"
PERIOD = "startTime=2026-01-01%2000:00:00&endTime=2026-01-02%2000:00:00"


@pytest.mark.parametrize("query", ["", "?api_key=", "?nocache=true", "?API_KEY=k"])
@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/"), ("GET", REPORTS), ("POST", REPORTS), ("POST", METADATA)],
)
def test_a_request_without_an_api_key_is_401(refusing_api, method, path, query):
    answer = refusing_api.send(
        method, path + query, b"{}" if method == "POST" else None
    )
    assert answer.status == 401
    assert "api_key" in answer.json["error"]


@pytest.mark.parametrize("workspace", ["other", "LOCAL", "local%20", "%00", "%ff"])
def test_an_unknown_workspace_is_404(refusing_api, workspace):
    for method, path in [("GET", ""), ("POST", ""), ("POST", "/metadata")]:
        address = f"/{workspace}/inference-stats{path}?api_key=k&{PERIOD}"
        answer = refusing_api.send(method, address, b"{}" if method == "POST" else None)
        assert answer.status == 404
        assert "workspace" in answer.json["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/local", 404),
        ("POST", f"{REPORTS}/", 404),
        ("PUT", REPORTS, 405),
        ("GET", METADATA, 405),
        ("POST", "/", 405),
        ("POST", "/dashboard", 405),
    ],
)
def test_other_addresses_and_methods_are_refused_in_json(
    refusing_api, method, path, status
):
    answer = refusing_api.send(method, f"{path}?api_key=k")
    assert answer.status == status
    assert answer.json["error"]


NOT_JSON = [
    b"",
    b" ",
    b"not json",
    b'{"inference_results": []',
    b'{"inference_results": []} x',
    b"\xff\xfe{}",
    "{}".encode("utf-16"),
    b"\xef\xbb\xbf{}",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'{"inference_results": [], "extra": NaN}',
    b'{"inference_results": [], "extra": [Infinity]}',
    b'{"inference_results": [], "extra": {"a": -Infinity}}',
    b'{"inference_results": [], "extra": 1e400}',
    b'{"inference_results": [], "extra": ' + b"1" * 5_000 + b"e9}",
]


@pytest.mark.parametrize("path", [REPORTS, METADATA])
@pytest.mark.parametrize("body", NOT_JSON, ids=lambda body: str(body[:24]))
def test_a_body_that_is_not_json_is_400(refusing_api, path, body):
    answer = refusing_api.send("POST", f"{path}?api_key=k", body)
    assert answer.status == 400
    assert "JSON" in answer.json["error"]


def changed(row, **changes):
    return {key: value for key, value in {**row, **changes}.items() if value is not ...}


BAD_ROWS = [
    ({"confidence": ...}, "confidence"),
    ({"confidence": None}, "confidence"),
    ({"confidence": "0.5"}, "confidence"),
    ({"confidence": True}, "confidence"),
    ({"confidence": [0.5]}, "confidence"),
    ({"confidence": 1e101}, "confidence"),
    ({"confidence": 10**400}, "confidence"),
    ({"class_name": ...}, "class_name"),
    ({"class_name": None}, "class_name"),
    ({"class_name": 7}, "class_name"),
    ({"class_name": "x" * 4_097}, "class_name"),
    ({"class_name": "half \ud83d"}, "class_name"),
    ({"model_id": ...}, "model_id"),
    ({"model_id": {}}, "model_id"),
    ({"model_id": "x" * 4_097}, "model_id"),
    ({"inference_id": ...}, "inference_id"),
    ({"inference_id": None}, "inference_id"),
    ({"model_type": ...}, "model_type"),
    ({"model_type": 1}, "model_type"),
]


@pytest.mark.parametrize(("changes", "field"), BAD_ROWS)
def test_a_bad_row_is_400_and_named(refusing_api, report, row, changes, field):
    answer = refusing_api.report(report(row(), changed(row(), **changes)))
    assert answer.status == 400
    assert answer.json["field"] == f"inference_results[1].{field}"
    assert answer.json["error"].startswith(f"inference_results[1].{field} ")


def test_the_report_that_the_bad_rows_are_made_from_is_taken(api, report, row):
    assert api.report(report(row(), changed(row()))).status == 200
    assert api.counts() == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ([], None),
        ("text", None),
        (None, None),
        ({}, "inference_results"),
        ({"inference_results": None}, "inference_results"),
        ({"inference_results": {}}, "inference_results"),
        ({"inference_results": [[]]}, "inference_results[0]"),
        ({"inference_results": [None]}, "inference_results[0]"),
        ({"inference_results": [], "timestamp": 1}, "timestamp"),
        ({"inference_results": [], "hostname": []}, "hostname"),
        ({"inference_results": [], "source": "x" * 4_097}, "source"),
        ({"inference_results": [], "device_id": "\udc00"}, "device_id"),
    ],
)
def test_a_report_of_another_shape_is_400(refusing_api, body, field):
    answer = refusing_api.report(json.dumps(body).encode())
    assert answer.status == 400
    assert answer.json["field"] == field


@pytest.mark.parametrize(
    ("entry", "field"),
    [
        (None, "data[0]"),
        ({}, "data[0].inference_ids"),
        ({"inference_ids": "i1"}, "data[0].inference_ids"),
        ({"inference_ids": []}, "data[0].inference_ids"),
        ({"inference_ids": ["i", 1]}, "data[0].inference_ids[1]"),
        ({"inference_ids": ["i", ""]}, "data[0].inference_ids[1]"),
        ({"inference_ids": ["i", None]}, "data[0].inference_ids[1]"),
        ({"inference_ids": ["x" * 4_097]}, "data[0].inference_ids[0]"),
        ({"inference_ids": ["i"]}, "data[0].field_name"),
        ({"inference_ids": ["i"], "field_name": ""}, "data[0].field_name"),
        ({"inference_ids": ["i"], "field_name": "f"}, "data[0].field_value"),
        (
            {"inference_ids": ["i"], "field_name": "f", "field_value": 7},
            "data[0].field_value",
        ),
        (
            {"inference_ids": ["i"], "field_name": "f", "field_value": "x" * 65_537},
            "data[0].field_value",
        ),
    ],
)
def test_a_bad_metadata_entry_is_400_and_named(refusing_api, entry, field):
    answer = refusing_api.metadata({"data": [entry]})
    assert answer.status == 400
    assert answer.json["field"] == field


@pytest.mark.parametrize("body", [{}, {"data": None}, {"data": {}}, {"data": []}])
def test_metadata_without_entries_is_400(refusing_api, body):
    answer = refusing_api.metadata(body)
    assert answer.status == 400
    assert answer.json["field"] == "data"


def padded(size):
    frame = b'{"inference_results": [], "extra": "%s"}'
    return frame % (b"x" * (size - len(frame) + 2))


@pytest.mark.parametrize("path", [REPORTS, METADATA])
def test_a_body_over_1_mib_is_413(refusing_api, path):
    answer = refusing_api.send("POST", f"{path}?api_key=k", padded(MAX_BODY + 1))
    assert answer.status == 413
    assert answer.headers["connection"] == "close"
    assert "1,048,576" in answer.json["error"]


def test_a_sender_that_does_not_listen_while_it_sends_still_learns_of_the_413(
    refusing_api,
):
    # More than the buffers of both sockets: sending it all takes a reader.
    answer = refusing_api.send("POST", f"{REPORTS}?api_key=k", padded(7 * MAX_BODY))
    assert answer.status == 413


def test_a_body_of_exactly_1_mib_is_taken(monitor, api):
    body = padded(MAX_BODY)
    assert len(body) == MAX_BODY
    assert api.report(body).status == 200
    assert monitor.store.requests("report")[0].body == body


def send_chunks(url, chunks):
    """Send a chunked report; return the status, and how much was taken of it."""
    sent = 0
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=20)
    with closing(connection):
        connection.putrequest("POST", f"{REPORTS}?api_key=k")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        # A server that has closed breaks the pipe; its answer is here by then.
        with contextlib.suppress(ConnectionError):
            for chunk in chunks:
                connection.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))
                sent += len(chunk)
            connection.send(b"0\r\n\r\n")
        return connection.getresponse().status, sent


def test_a_chunked_body_is_taken_up_to_1_mib(monitor):
    body = padded(MAX_BODY)
    chunks = [body[at : at + 65_536] for at in range(0, len(body), 65_536)]
    assert send_chunks(monitor.url, chunks) == (200, MAX_BODY)
    assert monitor.store.requests("report")[0].body == body


def test_a_chunked_body_over_1_mib_is_413(monitor):
    assert send_chunks(monitor.url, [padded(MAX_BODY), b" "]) == (413, MAX_BODY + 1)
    assert monitor.store.requests("report") == []


def test_an_endless_chunked_body_is_not_read_to_its_end(monitor):
    whole = 256 * MAX_BODY
    chunk = b"x" * 262_144
    status, sent = send_chunks(monitor.url, (chunk for _ in range(whole // len(chunk))))
    assert status == 413
    # What it lingers for, and what fits into the buffers of both sockets
    assert sent < 32 * MAX_BODY


def test_a_large_body_that_is_announced_need_not_be_sent(monitor):
    address = urlsplit(monitor.url)
    with socket.create_connection((address.hostname, address.port), 20) as client:
        client.sendall(
            f"POST {REPORTS}?api_key=k HTTP/1.1\r\nHost: x\r\n"
            f"Content-Length: {MAX_BODY + 1}\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        assert client.recv(4_096).startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("length", ["-1", "x", "1.5", "9" * 30])
def test_a_nonsense_content_length_is_a_4xx(refusing_api, length):
    address = urlsplit(refusing_api.url)
    with socket.create_connection((address.hostname, address.port), 20) as client:
        client.sendall(
            f"POST {REPORTS}?api_key=k HTTP/1.1\r\nHost: x\r\n"
            f"Content-Length: {length}\r\n\r\n".encode()
        )
        assert client.recv(4_096).startswith(b"HTTP/1.1 4")


def test_a_client_that_goes_away_is_no_error(monitor, api, caplog):
    address = urlsplit(monitor.url)
    with socket.create_connection((address.hostname, address.port), 20) as client:
        client.sendall(
            f"POST {REPORTS}?api_key=k HTTP/1.1\r\nHost: x\r\n"
            'Content-Length: 99\r\n\r\n{"inference'.encode()
        )
    assert api.send("GET", "/health").status == 200
    monitor.stop()
    assert caplog.records == []


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300)
    | st.floats()
    | st.text(st.characters(codec=None)),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "inference_results",
                    "data",
                    "inference_ids",
                    "field_name",
                    "field_value",
                    "confidence",
                    "class_name",
                    "model_id",
                    "inference_id",
                    "model_type",
                    "timestamp",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=20,
)

NEARLY_A_ROW = st.fixed_dictionaries(
    {
        name: st.text(max_size=5) | JSON
        for name in ("model_id", "class_name", "inference_id", "model_type")
    }
    | {"confidence": st.floats() | st.integers() | JSON}
)
NEARLY_AN_ENTRY = st.fixed_dictionaries(
    {
        "inference_ids": st.lists(st.text(max_size=5) | JSON, max_size=3),
        "field_name": st.text(max_size=5) | JSON,
        "field_value": st.text(max_size=5) | JSON,
    }
)
BODIES = (
    JSON
    | st.fixed_dictionaries({"inference_results": st.lists(NEARLY_A_ROW, max_size=2)})
    | st.fixed_dictionaries({"data": st.lists(NEARLY_AN_ENTRY, max_size=2)})
)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
    ],
)
@given(body=BODIES | st.binary(max_size=40))
def test_no_body_whatever_is_a_500(api, body):
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    for answer in (api.report(body), api.metadata(body)):
        assert answer.status in (200, 400)
        if answer.status == 400:
            assert answer.json["error"]
    # What was let in can be read back.
    assert isinstance(api.counts(), int)
    assert api.dashboard().status == 200


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    start=st.text(max_size=25),
    end=st.datetimes().map(str) | st.text(max_size=25),
    models=st.text(max_size=25),
)
def test_no_query_whatever_is_a_500(api, start, end, models):
    def quoted(text):
        return quote(text, safe="", errors="replace")

    path = (
        f"{REPORTS}?api_key=k&startTime={quoted(start)}"
        f"&endTime={quoted(end)}&modelNames={quoted(models)}"
    )
    assert api.send("GET", path).status in (200, 400)
    assert api.send("GET", f"/dashboard?model={quoted(models)}").status == 200
