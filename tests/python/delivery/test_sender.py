"""Which operations of a client are called, and which clients share a destination."""

from __future__ import annotations

import copy
import json
from enum import Enum
from unittest.mock import MagicMock

import pytest
from stand_ins import DictCache, StatusError, report, sent

from peakhold.delivery import Sender
from peakhold.delivery.workspace import Workspace
from peakhold.notices import Notices
from peakhold.roboflow import RoboflowClient, Settings
from peakhold.roboflow.operations import sends_bodies
from peakhold.testing import RecordingClient


class ReportsItself(RoboflowClient):
    """A user's client that overrides an operation of the contract."""

    taken = None

    def send_inference_results_to_model_monitoring(
        self, api_key, workspace_id, inference_data
    ):
        self.taken = inference_data


class AddsMetadataItself(RoboflowClient):
    taken = None

    def add_custom_metadata(self, **arguments):
        self.taken = arguments


class AddsABody(RoboflowClient):
    """Overrides what sends bodies, and nothing of the contract."""

    def send_report_body(self, api_key, workspace_id, body, idempotency_key):
        self.taken = json.loads(body)


class SaysSoAnew(AddsMetadataItself):
    sends_bodies = True


class Adapter:
    """No RoboflowClient at all, but one that says so."""

    sends_bodies = True


class Foreign:
    """Happens to have operations of these names, and says nothing."""

    def send_report_body(self):
        raise AssertionError

    def send_metadata_body(self):
        raise AssertionError


class ByAccident(Foreign):
    sends_bodies = "yes"


def made(kind, api_url="http://127.0.0.1:1"):
    settings = Settings(api_base_url=api_url, read_timeout=5, system_info=False)
    return kind(settings)


@pytest.mark.parametrize("kind", [RoboflowClient, AddsABody, SaysSoAnew])
def test_the_package_s_client_gets_bodies(kind):
    assert sends_bodies(made(kind))


def test_any_class_may_say_that_it_takes_bodies():
    assert sends_bodies(Adapter())


@pytest.mark.parametrize("kind", [ReportsItself, AddsMetadataItself])
def test_a_subclass_that_overrides_a_named_operation_gets_none(kind):
    assert not sends_bodies(made(kind))
    assert not sends_bodies(made(type("Sub", (kind,), {})))


def test_a_client_with_an_operation_of_its_own_gets_none():
    client = made(RoboflowClient)
    client.add_custom_metadata = MagicMock()
    assert not sends_bodies(client)


@pytest.mark.parametrize(
    "client",
    [
        MagicMock(),
        MagicMock(spec=RoboflowClient),
        MagicMock(sends_bodies=True),
        Foreign(),
        ByAccident(),
        RecordingClient(),
    ],
    ids=lambda client: type(client).__name__,
)
def test_nothing_gets_bodies_by_accident(client):
    assert not sends_bodies(client)


@pytest.mark.parametrize("injected", [True, False])
def test_overridden_operations_are_called(stepped, api, api_key, cache, injected):
    client = made(ReportsItself, api.url)
    lent = Sender(client, api_key, cache, injected=injected)
    assert stepped.deliver_now(report(lent), lent) is None
    assert client.taken["inference_results"][0]["class_name"] == "a"
    client = made(AddsMetadataItself, api.url)
    lent = Sender(client, api_key, cache, injected=injected)
    stepped.add_metadata(["i"], "f", "v", lent)
    stepped.step()
    assert client.taken["inference_ids"] == ["i"]
    assert client.taken["api_key"] == api_key
    assert api.posts() == []
    # The control: what is not overridden goes over the wire.
    assert stepped.deliver_now(report(lent), lent) is None
    assert len(api.posts(kind="report")) == 1


@pytest.mark.parametrize("spec", [None, RoboflowClient])
def test_a_mock_has_its_named_operations_called(stepped, api_key, cache, spec):
    client = MagicMock(spec=spec)
    client.get_roboflow_workspace.return_value = "spaceship"
    client.get_system_info.return_value = {}
    lent = Sender(client, api_key, cache, injected=True)
    assert stepped.deliver_now(report(lent), lent) is None
    stepped.add_metadata(["i"], "f", "v", lent)
    stepped.step()
    client.send_inference_results_to_model_monitoring.assert_called_once()
    client.add_custom_metadata.assert_called_once_with(
        api_key=api_key,
        workspace_id="spaceship",
        inference_ids=["i"],
        field_name="f",
        field_value="v",
    )
    client.send_report_body.assert_not_called()
    client.send_metadata_body.assert_not_called()


# Destinations -----------------------------------------------------------------------


def test_a_client_per_request_makes_one_lane_and_the_last_one_sends(
    stepped, api_key, cache
):
    clients = [RecordingClient() for _ in range(100)]
    for number, client in enumerate(clients):
        lent = Sender(client, api_key, cache, injected=True)
        stepped.add_metadata([f"id{number}"], "f", "v", lent)
    assert len(stepped._destinations.values()) == 1
    stepped.step()
    assert [len(client.named("add_custom_metadata")) for client in clients] == (
        [0] * 99 + [1]
    )
    ((_, call),) = clients[-1].named("add_custom_metadata")
    assert call["inference_ids"] == [f"id{number}" for number in range(100)]


def test_what_one_client_failed_to_send_the_next_one_sends(
    stepped, api_key, cache, clock
):
    gone, fresh = RecordingClient(), RecordingClient()
    gone.failures = [StatusError(503)] * 9
    lent = Sender(gone, api_key, cache, injected=True)
    assert stepped.deliver_now(report(lent, "early"), lent) is not None
    lent = Sender(fresh, api_key, cache, injected=True)
    assert stepped.deliver_now(report(lent, "late"), lent) is None
    clock.now += 10
    stepped.step()
    assert (sent(gone), sent(fresh)) == (1, 2)


class Named(str, Enum):
    """Texts that ``str`` shows as something else."""

    KEY = "key"
    ENDPOINT = "http://named.invalid"
    WORKSPACE = "acme"


def test_a_subclass_of_str_counts_as_its_own_characters(client):
    client.endpoint, client.workspace = Named.ENDPOINT, Named.WORKSPACE
    cache = DictCache()
    sender = Sender(client, Named.KEY, cache, injected=True)
    plain = Sender(client, "key", cache, injected=True)
    assert sender.destination == plain.destination
    assert type(sender.destination.endpoint) is str
    assert sender.workspace_cache_key == plain.workspace_cache_key
    cache.set(sender.workspace_cache_key, Named.WORKSPACE)
    for name in (
        sender.look_up_workspace(),
        Workspace(sender.workspace_cache_key, Notices()).get(cache, list),
    ):
        assert (type(name), name) == (str, "acme")
    client.calls.clear()
    sender.look_up_workspace()
    ((key,), _) = client.named("get_roboflow_workspace")[0]
    assert type(key) is str


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_of_a_sender_is_the_same_object(client, copied):
    sender = Sender(client, "key", {}, injected=True)
    assert copied(sender) is sender
    assert copy.deepcopy({"sender": sender}) == {"sender": sender}


def test_a_sender_that_is_not_made_yet_can_be_shown():
    assert "Sender" in repr(Sender.__new__(Sender))  # as a debugger does half-way


def destination(client, api_key="key", *, injected=True):
    return Sender(client, api_key, None, injected=injected).destination


def test_type_endpoint_and_api_key_tell_destinations_apart():
    here = destination(RecordingClient())
    assert here == destination(RecordingClient())
    elsewhere = RecordingClient()
    elsewhere.endpoint = "http://elsewhere.invalid"
    own, overriding = made(RoboflowClient), made(RoboflowClient)
    overriding.add_custom_metadata = print
    others = [
        destination(elsewhere),
        destination(RecordingClient(), "other key"),
        destination(own),
        destination(own, injected=False),
        destination(overriding),
        destination(made(AddsABody)),
    ]
    assert len({here, *others}) == 1 + len(others)


def test_a_client_without_an_endpoint_is_known_by_its_type():
    assert destination(Foreign()).endpoint.endswith(".Foreign")
    assert destination(Foreign()) == destination(Foreign())
    assert destination(Foreign()) != destination(Adapter())
