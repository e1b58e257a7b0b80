"""The recording client in a block's hands, and the clock that moves by hand."""

from __future__ import annotations

import pytest

from peakhold import RoboflowCustomMetadataBlockV1
from peakhold.testing import Clock, RecordingClient


def register(client):
    block = RoboflowCustomMetadataBlockV1(api_key="key", platform_client=client)
    return block.run(
        fire_and_forget=False,
        field_name="line",
        field_value="3",
        predictions={"inference_id": "f1"},
    )


def test_the_client_records_what_a_block_sends():
    client = RecordingClient()
    assert register(client)["error_status"] is False
    (entry,) = client.entries()
    assert (entry["field_name"], entry["inference_ids"]) == ("line", ["f1"])
    assert len(client.named("get_roboflow_workspace")) == 1


def test_the_client_fails_as_often_as_told():
    client = RecordingClient()
    client.failures = [ConnectionError("no luck"), None]
    assert register(client)["error_status"] is True
    assert len(client.entries()) == 1


def test_the_client_s_lookup_fails_when_told():
    client = RecordingClient()
    client.lookup_failures = [ConnectionError("no luck")]
    with pytest.raises(ConnectionError):
        client.get_roboflow_workspace("key")
    assert client.get_roboflow_workspace("key") == "spaceship"


def test_time_passes_on_both_clocks_and_jumps_on_one():
    clock = Clock(now=10.0, wall=100.0)
    clock.advance(5)
    clock.jump(-3600)
    assert (clock(), clock.time()) == (15.0, -3495.0)
