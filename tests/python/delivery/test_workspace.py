"""The workspace: looked up once, cached, and cached by caches that do not."""

from __future__ import annotations

import threading

import pytest
from stand_ins import RaisingCache, report, sent

from peakhold.delivery import Sender
from peakhold.testing import RecordingClient


@pytest.mark.parametrize("workspace", ["", None, 7])
def test_a_workspace_that_is_none_is_an_error(stepped, sender, client, workspace):
    client.workspace = workspace
    error = stepped.deliver_now(report(sender), sender)
    assert "without a workspace" in str(error)
    assert sent(client) == 0


def test_the_workspace_is_cached_for_900_seconds_under_the_contract_s_key(
    stepped, client, cache
):
    sender = Sender(client, "abc", cache, injected=True)
    for _ in range(3):
        assert stepped.deliver_now(report(sender), sender) is None
    key = "workflows:api_key_to_workspace:900150983cd24fb0d6963f7d28e17f72"
    assert cache.values == {key: "spaceship"}
    assert cache.expiries == {key: 900}
    assert len(client.named("get_roboflow_workspace")) == 1


class GarbageCache(RaisingCache):
    def get(self, key):
        return {"not": "a workspace"}


@pytest.mark.parametrize("bad", [RaisingCache, GarbageCache])
def test_a_useless_cache_is_counted_and_worked_around(stepped, client, bad):
    sender = Sender(client, "key", bad(), injected=True)
    for _ in range(3):
        assert stepped.deliver_now(report(sender), sender) is None
    assert stepped.notices.counts["cache"] >= 3
    assert len(client.named("get_roboflow_workspace")) == 1


def test_a_cache_without_expiry_is_used_without(stepped, client):
    class Plain(dict):
        def set(self, key, value):
            self[key] = value

    cache = Plain()
    sender = Sender(client, "key", cache, injected=True)
    stepped.deliver_now(report(sender), sender)
    assert list(cache.values()) == ["spaceship"]


def test_deliverers_that_need_the_workspace_at_once_share_a_lookup(working, cache):
    class Slow(RecordingClient):
        def get_roboflow_workspace(self, api_key):
            released.wait(0.3)
            return super().get_roboflow_workspace(api_key)

    released = threading.Event()
    client = Slow()
    sender = Sender(client, "key", cache, injected=True)
    threads = [
        threading.Thread(target=working.deliver_now, args=(report(sender), sender))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(client.named("get_roboflow_workspace")) == 1
    assert sent(client) == 8
