"""R3: at the local monitor every sealed window has its effect once."""

from __future__ import annotations

import os
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest
from draining import drain
from nursery import kill_at_random

from peakhold.monitor import MonitorServer
from peakhold.testing import LostAcknowledgement, RandomFaults, refuse

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

KILLS = 200
KILLS_OF_THE_CONTROL = 40
LIVES = 0.25


@pytest.fixture
def monitor():
    with MonitorServer(workspace="spaceship") as running:
        yield running


class BadLine(RandomFaults):
    """The line to a monitor: requests are lost on it, and answers are."""

    def __init__(self, monitor, seed, *, keys=True):
        """Pass on what is not lost, with or without its idempotency key."""
        super().__init__(seed, (0.12, refuse(503)), (0.2, LostAcknowledgement()))
        self._address = urlsplit(monitor.url).netloc
        self._keys = keys

    def __call__(self, request):
        """Pass a request on, unless it is lost before."""
        fault = super().__call__(request)
        if fault is None or fault.takes_effect:
            headers = {"Content-Type": "application/json"}
            if self._keys:
                headers["Idempotency-Key"] = request.headers["Idempotency-Key"]
            connection = HTTPConnection(self._address, timeout=30)
            connection.request("POST", request.target, request.body, headers)
            status = connection.getresponse().status
            connection.close()
            assert status == 200
        return fault


def stored_and_sealed(api, monitor, start, kills, seed, **line):
    """Kill senders at random; returns the reports stored, and the windows sealed."""
    api.faults = BadLine(monitor, seed, **line)
    options = {"PEAKHOLD_REQUESTS_PER_SECOND": "2000"}
    kill_at_random(start("nursery", "sealing", **options), kills, seed, longest=LIVES)
    sealed = drain(start, **options)
    return len(monitor.store.requests("report")), sealed, len(api.accepted())


def test_what_is_stored_is_what_was_sealed(api, monitor, start, seed, figure):
    stored, sealed, accepted = stored_and_sealed(api, monitor, start, KILLS, seed)
    assert stored == sealed
    assert accepted > sealed
    figure(
        "R3",
        f"{KILLS} kills, {accepted} requests took effect, stored == sealed == {sealed}",
    )


@pytest.mark.flaky(reruns=1)
def test_the_control_without_its_key_a_repeat_is_stored_again(
    api, monitor, start, seed, figure
):
    stored, sealed, _ = stored_and_sealed(
        api, monitor, start, KILLS_OF_THE_CONTROL, seed, keys=False
    )
    assert stored > sealed
    figure("R3n", f"without keys: {stored} stored, {sealed} sealed")
