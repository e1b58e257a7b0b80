"""The eight facts about the machine: gathered once, elsewhere, and never waited for."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
import threading
import time
import uuid

import pytest

import peakhold.roboflow.transport  # noqa: F401 - requests' import would be timed
from peakhold.roboflow import RoboflowClient, Settings, system_info

KEYS = [
    "platform",
    "platform_release",
    "platform_version",
    "architecture",
    "hostname",
    "ip_address",
    "mac_address",
    "processor",
]


@pytest.fixture(autouse=True)
def nothing_gathered_yet(monkeypatch):
    monkeypatch.setattr(system_info, "_gatherings", {})


@pytest.fixture
def make_client():
    return lambda **settings: RoboflowClient(Settings(**settings))


def test_the_facts_are_those_of_this_machine_in_the_order_of_the_request(make_client):
    info = make_client().get_system_info()

    assert list(info) == KEYS
    assert all(type(value) is str for value in info.values())
    assert info["platform"] == platform.system()
    assert info["platform_release"] == platform.release()
    assert info["platform_version"] == platform.version()
    assert info["architecture"] == platform.machine()
    assert info["hostname"] == socket.gethostname()
    assert info["processor"] == platform.processor()


def test_switched_off_host_address_and_mac_stay_empty_and_unasked(
    make_client, monkeypatch
):
    asked = []
    for name in system_info.IDENTIFYING:
        source = lambda name=name: asked.append(name) or "secret"  # noqa: E731
        monkeypatch.setitem(system_info.SOURCES, name, source)

    off = make_client(system_info=False).get_system_info()
    assert [name for name in KEYS if off[name] == "secret"] == []
    assert asked == []
    assert list(off) == KEYS
    assert off["platform"] == platform.system()

    on = make_client(system_info=True).get_system_info()  # control
    assert {name for name in KEYS if on[name] == "secret"} == system_info.IDENTIFYING


def test_the_facts_are_gathered_once_for_all_clients_and_off_their_thread(
    make_client, monkeypatch
):
    threads = []

    def source():
        threads.append(threading.current_thread())
        return "seen"

    monkeypatch.setitem(system_info.SOURCES, "hostname", source)
    infos = [make_client().get_system_info() for _ in range(3)]

    assert [info["hostname"] for info in infos] == ["seen"] * 3
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


def test_a_slow_name_server_is_waited_for_a_bounded_time_only_once(
    make_client, monkeypatch
):
    answer = threading.Event()

    def slow():
        answer.wait(20)
        return "10.0.0.1"

    monkeypatch.setattr(system_info, "MAX_WAIT", 0.3)
    monkeypatch.setitem(system_info.SOURCES, "ip_address", slow)
    started = time.monotonic()
    client = make_client()
    assert time.monotonic() - started < 0.2  # constructing does not wait

    first = client.get_system_info()
    assert 0.25 < time.monotonic() - started < 2
    again = time.monotonic()
    second = client.get_system_info()
    assert time.monotonic() - again < 0.2
    assert first == second
    assert first["ip_address"] == ""
    assert first["platform"] == platform.system()  # what is known is there

    answer.set()
    deadline = time.monotonic() + 10
    while client.get_system_info()["ip_address"] == "":
        assert time.monotonic() < deadline
        time.sleep(0.005)
    assert client.get_system_info()["ip_address"] == "10.0.0.1"


def test_one_fact_that_cannot_be_had_does_not_cost_the_others(make_client, monkeypatch):
    def unknown():
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setitem(system_info.SOURCES, "hostname", unknown)
    info = make_client().get_system_info()

    assert info["hostname"] == ""
    assert info["platform"] == platform.system()


def test_a_mac_address_is_written_as_usual(monkeypatch):
    monkeypatch.setattr(uuid, "getnode", lambda: 0x02FC00000001)

    assert system_info.SOURCES["mac_address"]() == "02:fc:00:00:00:01"


def test_a_made_up_mac_address_is_left_out(monkeypatch):
    monkeypatch.setattr(uuid, "getnode", lambda: 0x03FC00000001)

    assert system_info.SOURCES["mac_address"]() == ""


def test_a_caller_cannot_change_the_facts_of_others(make_client):
    client = make_client()
    client.get_system_info()["platform"] = "changed"

    assert client.get_system_info()["platform"] == platform.system()


FORK = """
import os, sys, time
import peakhold.roboflow.transport  # noqa: F401 - requests' import would be timed
from peakhold.roboflow import RoboflowClient, Settings, system_info
parent = os.getpid()
def slow_in_parent():
    if os.getpid() == parent:
        time.sleep(30)
    return "resolved"
system_info.SOURCES["ip_address"] = slow_in_parent
client = RoboflowClient(Settings())
time.sleep(0.05)
if os.fork() == 0:
    started = time.monotonic()
    info = client.get_system_info()
    print(info["ip_address"], time.monotonic() - started < 1.5, flush=True)
    os._exit(0)
os.wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_forked_while_gathering_gathers_itself():
    outcome = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert outcome.stdout == "resolved True\n"


FORK_INSIDE_PLATFORM = """
import os, sys, threading, time
import peakhold.roboflow.transport  # noqa: F401 - requests' import would be timed
from peakhold.roboflow import RoboflowClient, Settings, system_info
lock = threading.Lock()  # stands for the one that platform takes
def slow_under_a_lock():
    with lock:
        time.sleep(float(sys.argv[1]))
    return "asked"
system_info.SOURCES["processor"] = slow_under_a_lock
client = RoboflowClient(Settings(system_info=False))
while not lock.locked():
    time.sleep(0.001)
if os.fork() == 0:
    print(repr(client.get_system_info()["processor"]), flush=True)
    os._exit(0)
os.wait()
"""


# The control forks after FORK_PATIENCE, as every fork would without the wait: its child
# finds the lock held for ever.
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize(("held", "processor"), [("0.2", "asked"), ("3", "")])
def test_a_fork_waits_for_the_thread_that_asks_platform(held, processor):
    outcome = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK_INSIDE_PLATFORM, held],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )

    assert outcome.stdout == f"{processor!r}\n"


def test_without_a_thread_the_facts_are_gathered_by_the_first_that_asks(
    make_client, monkeypatch
):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    threads = []

    def source():
        threads.append(threading.current_thread())
        return "seen"

    monkeypatch.setitem(system_info.SOURCES, "hostname", source)
    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refuse)
        clients = [make_client() for _ in range(2)]
    assert threads == []  # the constructor gathers nothing
    infos = [client.get_system_info() for client in (*clients, make_client())]
    assert [info["hostname"] for info in infos] == ["seen"] * 3
    assert infos[0]["platform"] == platform.system()
    assert threads == [threading.current_thread()]


def test_a_gathering_that_was_interrupted_is_begun_anew(monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    def source():
        sources["hostname"] = lambda: "seen"
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", refuse)
    sources = {**system_info.SOURCES, "hostname": source}
    gathering = system_info.Gathering(sources)
    gathering.start()
    with pytest.raises(KeyboardInterrupt):
        gathering.facts()
    assert gathering.facts()["hostname"] == "seen"
