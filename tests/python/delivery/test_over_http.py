"""Delivery with the package's client over real sockets, to servers that misbehave."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import ClassVar

import pytest
from stand_ins import conserved, eventually, window_of

from peakhold import notices
from peakhold.delivery import Dispatcher, Sender
from peakhold.outbox import admin
from peakhold.records import seal_report
from peakhold.roboflow import RoboflowClient, Settings
from peakhold.testing import Answer, BlackHole, Reset, answer_json


def report(sender, **best):
    return seal_report(sender.destination, "w", window_of(best or {"a": 0.5}))


def test_a_report_goes_to_the_contract_s_address(working, own_sender, api, api_key):
    working.deliver(report(own_sender), own_sender)
    assert working.flush(5)
    (post,) = api.posts()
    assert post.path == "/spaceship/inference-stats"
    assert post.query == {"api_key": [api_key]}
    assert post.headers["Content-Type"] == "application/json"


def test_metadata_goes_to_the_contract_s_address(working, own_sender, api, api_key):
    working.add_metadata(["i"], "f", "v", own_sender)
    assert working.flush(5)
    (post,) = api.posts()
    assert post.path == "/spaceship/inference-stats/metadata"
    assert post.query == {"api_key": [api_key], "nocache": ["true"]}
    assert post.json() == {
        "data": [{"inference_ids": ["i"], "field_name": "f", "field_value": "v"}]
    }


def test_body_and_idempotency_key_are_identical_when_the_answer_was_lost(
    working, own_sender, api
):
    api.failures = [Reset(), Answer(503), Reset(b"HTTP/1.1 2")]
    record = report(own_sender)
    working.deliver(record, own_sender)
    assert working.flush(5)
    posts = api.posts()
    assert len(posts) == 4
    assert {post.headers["Idempotency-Key"] for post in posts} == {record.id}
    assert len({post.body for post in posts}) == 1
    # The control: another record has another key.
    working.deliver(report(own_sender), own_sender)
    assert working.flush(5)
    assert len({post.headers["Idempotency-Key"] for post in api.posts()}) == 2


@dataclass(frozen=True)
class Raw:
    """Bytes in place of an answer, then the end of the connection."""

    sent: bytes
    takes_effect: ClassVar[bool] = False

    def perform(self, peer):
        peer.send(self.sent)
        peer.hang_up()


ESCAPES = {
    "status line": Raw(b"HTTP/1.1 \x1b[31m500 \x9b2J\r\n\r\n"),
    "not HTTP": Raw(b"\x1b]0;title\x07 \x1b[31m\r\n\r\n"),
    "reason": Raw(b"HTTP/1.1 500 \x1b[31m\r\nContent-Length: 0\r\n\r\n"),
    "header": Raw(b"HTTP/1.1 500 No\r\n\x1b[31mbad\r\nContent-Length: 0\r\n\r\n"),
    "length": Raw(b"HTTP/1.1 500 No\r\nContent-Length: \x1b[31m\r\n\r\n"),
    "chunk": Raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\x1b[31m\r\n"),
    "encoding": Raw(
        b"HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\n"
        b"Content-Length: 5\r\n\r\n\x1b[31m"
    ),
    "location": Raw(
        b"HTTP/1.1 302 Found\r\nLocation: http://\x1b[31mred\x9b/\r\n"
        b"Content-Length: 0\r\n\r\n"
    ),
    "body": answer_json({"error": "\x1b[31mred\x9b31m\nWARNING forged"}, 500),
}


@pytest.mark.parametrize("fault", ESCAPES.values(), ids=ESCAPES.keys())
def test_no_control_character_of_an_answer_is_shown(
    own_sender, api, state, caplog, monkeypatch, fault
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(notices, "ERROR_CALLBACKS", failures := [])
    told = []
    failures.append(told.append)
    dispatcher = Dispatcher(state, worker=False)
    api.lookups = [fault]
    api.failures = [fault]
    errors = [dispatcher.deliver_now(report(own_sender), own_sender) for _ in range(2)]
    texts = [own_sender.describe(error) for error in errors if error]
    texts += [str(error) for error in errors if error]
    texts += [failure.error for failure in told]
    texts += [row["last_error"] or "" for row in admin.listed(state)]
    dispatcher.close(0)
    for record in caplog.records:
        texts += record.getMessage().split("\n") + (record.exc_text or "").split("\n")
    assert [text for text in texts if not text.isprintable()] == []
    assert api.requests


def test_no_control_character_of_an_injected_client_s_error_is_shown(
    stepped, sender, client, caplog
):
    client.lookup_failures = [OSError("\x1b[31mred\r\nWARNING forged")]
    stepped.deliver(report(sender), sender)
    stepped.step()
    assert "\\x1b[31mred\\r\\nWARNING forged" in caplog.text
    assert "\x1b" not in caplog.text


def test_after_an_outage_everything_arrives_once(working, own_sender, api):
    api.always = Answer(503)
    for index in range(8):
        working.deliver(report(own_sender, **{f"c{index}": 0.5}), own_sender)
        working.add_metadata([f"id{index}"], "f", "v", own_sender)
    assert eventually(lambda: len(api.posts()) >= 3)
    assert api.accepted() == []
    api.always = None
    assert working.flush(10)
    results = [
        result["class_name"]
        for request in api.accepted(kind="report")
        for result in request.json()["inference_results"]
    ]
    assert results == [f"c{index}" for index in range(8)]
    ids = [each for entry in api.entries() for each in entry["inference_ids"]]
    assert ids == [f"id{index}" for index in range(8)]
    assert conserved(working.counts())
    assert working.counts().pending == 0


def test_metadata_of_many_frames_uses_one_connection_and_4_requests_a_second(
    working, own_sender, api
):
    ids = []
    stop = threading.Event()
    started = time.monotonic()
    for index in range(500):
        ids.append(f"id{index}")
        working.add_metadata([ids[-1]], "line", str(index % 3), own_sender)
        stop.wait(0.002)
    assert working.flush(5)
    posts = api.posts(kind="metadata")
    assert len(posts) <= (time.monotonic() - started) * 4 + 1
    assert len({post.connection for post in posts}) == 1
    arrived = [
        (inference_id, entry["field_value"])
        for entry in api.entries()
        for inference_id in entry["inference_ids"]
    ]
    assert sorted(arrived) == sorted((f"id{n}", str(n % 3)) for n in range(500))


def test_a_hanging_destination_does_not_hold_up_the_frame_loop(
    working, own_sender, api
):
    api.always = BlackHole()
    slowest = 0.0
    for index in range(50):
        started = working._clock()
        working.deliver(report(own_sender, **{f"c{index}": 0.5}), own_sender)
        slowest = max(slowest, working._clock() - started)
    assert slowest < 1.0  # the hanging request itself takes five
    assert eventually(lambda: len(api.posts()) == 1)


def test_a_renamed_workspace_is_found(working, own_sender, api):
    working.deliver(report(own_sender), own_sender)
    assert working.flush(5)
    api.workspace = "renamed"
    api.failures = [Answer(404)]
    working.deliver(report(own_sender), own_sender)
    assert working.flush(5)
    paths = [post.path for post in api.posts()]
    assert paths == ["/spaceship/inference-stats"] * 2 + ["/renamed/inference-stats"]
    assert api.lookup_count() == 2


@pytest.mark.parametrize("answer", [{}, {"workspace": ""}, {"workspace": 3}, []])
def test_a_lookup_without_a_workspace_sends_nothing(working, own_sender, api, answer):
    api.lookups = [answer_json(answer)]
    error = working.deliver_now(report(own_sender), own_sender)
    assert type(error).__name__ == "MalformedResponseError"
    assert api.posts() == []
    assert working.flush(5)
    assert len(api.posts()) == 1


def test_offline_nothing_is_sent_and_records_stay_pending(working, api, api_key, cache):
    settings = Settings(api_base_url=api.url, offline=True, system_info=False)
    offline = Sender(RoboflowClient(settings), api_key, cache, injected=False)
    working.deliver(report(offline), offline)
    working.add_metadata(["i"], "f", "v", offline)
    assert not working.flush(0.3)
    assert api.requests == []
    assert working.counts().pending == 1
    # The control: a sender that is online takes over what the other one left.
    online_settings = Settings(api_base_url=api.url, system_info=False)
    online = Sender(RoboflowClient(online_settings), api_key, cache, injected=False)
    working.deliver(report(online), online)
    assert working.flush(5)
    assert len(api.accepted(kind="report")) == 2
    assert len(api.accepted(kind="metadata")) == 1


def test_no_api_key_in_any_log_at_debug(working, own_sender, api, api_key, caplog):
    api.failures = [Answer(401, f"bad key {api_key}".encode()), Answer(500), Reset()]
    with caplog.at_level(logging.DEBUG):
        for _ in range(4):
            working.deliver_now(report(own_sender), own_sender)
    assert "peakhold.delivery" in {record.name for record in caplog.records}
    assert any(record.name.startswith("urllib3") for record in caplog.records)
    shown = "\n".join(f"{record.__dict__}" for record in caplog.records)
    assert api_key not in shown
    assert api_key not in caplog.text
