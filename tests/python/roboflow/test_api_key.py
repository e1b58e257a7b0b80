"""The object that holds an api key, and those that hold that object."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import pprint
from enum import Enum

import pytest

from peakhold.delivery import Sender
from peakhold.roboflow import ApiKey, RoboflowClient, Settings
from peakhold.testing import RecordingClient

KEY = "canary-7f3a9c51"


class Key(str, Enum):
    """A text that ``str`` shows as something else."""

    MINE = KEY


def test_no_text_of_a_key_shows_it():
    key = ApiKey(KEY)
    for text in (repr(key), str(key), f"{key}", f"{key!s:}", pprint.pformat([key])):
        assert text.strip("[]") == "ApiKey(***)"
    with pytest.raises(TypeError):
        vars(key)


def test_an_empty_key_is_false_as_its_text_is():
    assert not ApiKey("")
    assert ApiKey(KEY)


def test_a_key_is_compared_hashed_and_copied_without_showing_it():
    key = ApiKey.of(KEY)
    assert key == ApiKey(KEY) == KEY
    assert key == Key.MINE
    assert key not in (ApiKey("other"), "other", None)
    assert hash(key) == hash(ApiKey(Key.MINE))
    assert ApiKey.of(key) is copy.copy(key) is copy.deepcopy(key) is key
    assert type(ApiKey.of(Key.MINE).reveal()) is str


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_key_cannot_be_pickled_and_the_error_says_what_to_do(protocol):
    with pytest.raises(TypeError, match="by its environment") as refused:
        pickle.dumps({"key": ApiKey(KEY)}, protocol)
    assert KEY not in str(refused.value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_settings_and_clients_cross_process_boundaries_without_key_and_headers(
    server, protocol
):
    secret = {"Authorization": f"Bearer {KEY}"}
    client = RoboflowClient(
        Settings(api_key=KEY, api_base_url=server.url, extra_headers=secret)
    )
    client.send_report_body("k", "acme", b"{}", "id")  # has a connection now
    pickled = pickle.dumps(client, protocol)
    assert KEY.encode() not in pickled
    other = pickle.loads(pickled)
    assert other.settings == dataclasses.replace(
        client.settings, api_key=None, extra_headers={}
    )
    other.send_report_body("k", "acme", b"{}", "id")
    assert [request.connection for request in server.requests] == [1, 2]
    for each in (client, other):
        each.close()


def test_what_holds_a_key_shows_none_of_it():
    settings = Settings(api_key=KEY)
    client = RoboflowClient(settings)
    sender = Sender(RecordingClient(), KEY, {}, injected=True)
    for shown in (
        *(dataclasses.asdict(settings), dataclasses.astuple(settings), vars(settings)),
        *(vars(client), vars(client.settings), vars(sender), sender, client, settings),
    ):
        assert KEY not in repr(shown)
    assert settings.api_key == KEY  # the control: it is there


def test_copies_in_the_process_have_key_and_headers():
    settings = Settings(api_key=KEY, extra_headers={"X-Team": "line 3"})
    for other in (copy.copy(settings), copy.deepcopy(settings)):
        assert other.api_key == KEY
        assert other.extra_headers == {"X-Team": "line 3"}
    assert copy.deepcopy(RoboflowClient(settings)).settings.api_key == KEY


@pytest.mark.parametrize("empty", [None, ""])
def test_an_empty_key_is_none(empty):
    assert Settings(api_key=empty).api_key is None


def test_a_hidden_key_is_taken_wherever_a_key_is(server, make_client):
    client = make_client()
    client.send_report_body(ApiKey(KEY), "acme", b"{}", "id")
    assert server.requests[0].query == {"api_key": [KEY]}
    sender = Sender(client, ApiKey(KEY), {}, injected=False)
    assert sender.destination == Sender(client, KEY, {}, injected=False).destination
