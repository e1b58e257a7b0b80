"""For your own tests: an API that misbehaves, a client that records, a clock.

Everything is on this machine and made of the standard library; no test framework is
needed. A server is a context manager, and does what it is told:

    with MisbehavingServer() as server:
        server.script(refuse(503, retry_after=2), Reset(), Answer(200))
        ...  # three requests to server.url
        assert [request.method for request in server.requests] == ["POST"] * 3

Requests take the scripted behaviours in order of arrival; when the script is used up,
``server.otherwise`` answers. ``MisbehavingApi`` is such a server that knows the
requests of the two sinks.
"""

from __future__ import annotations

from peakhold.testing.api import MisbehavingApi, RandomFaults
from peakhold.testing.behaviours import (
    After,
    Answer,
    Behaviour,
    BlackHole,
    Computed,
    CutOff,
    Drip,
    LostAcknowledgement,
    Reset,
    answer_json,
    redirect,
    refuse,
)
from peakhold.testing.client import RecordingClient
from peakhold.testing.clock import Clock
from peakhold.testing.ports import refusing_port, unreachable_port
from peakhold.testing.server import CERTIFICATE, MisbehavingServer, Peer, Request

__all__ = [
    "CERTIFICATE",
    "After",
    "Answer",
    "Behaviour",
    "BlackHole",
    "Clock",
    "Computed",
    "CutOff",
    "Drip",
    "LostAcknowledgement",
    "MisbehavingApi",
    "MisbehavingServer",
    "Peer",
    "RandomFaults",
    "RecordingClient",
    "Request",
    "Reset",
    "answer_json",
    "redirect",
    "refuse",
    "refusing_port",
    "unreachable_port",
]
