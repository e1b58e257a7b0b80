"""What the doctor finds about shared windows, and about the server they meet on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from time import time as real_time
from types import SimpleNamespace

import pytest
from redis_server import PROGRAM, WITHOUT, RedisServer

from peakhold.cli.custody import check_outbox
from peakhold.cli.sharing import check_sharing
from peakhold.testing import refusing_port

LEFT = """
from peakhold.blocks.windows import REGISTRY
from peakhold.delivery import current
REGISTRY.flush_all()
current().committer.commit()
os._exit(9)
"""


def test_without_shared_windows_nothing_is_said_of_them(leave):
    leave("a", OFFLINE_MODE="True")
    assert list(check_sharing()) == []


def test_shared_windows_are_told(leave, monkeypatch):
    monkeypatch.setenv("PEAKHOLD_SHARE", "host")
    (finding,) = check_sharing()
    assert (finding.status, finding.check) == ("ok", "sharing")
    leave("a", "b", then=LEFT, PEAKHOLD_SHARE="host")
    (finding,) = check_sharing()
    assert finding.status == "ok"
    assert finding.text == (
        "2 windows are shared by up to 0 running processes of this "
        "host; 2 parts wait, 0 came late"
    )
    assert check_outbox().text == "it is whole, 2 pending"


def test_who_does_not_share_what_others_do_is_warned(leave):
    leave("a", then=LEFT, PEAKHOLD_SHARE="host")
    (finding,) = check_sharing()
    assert finding.status == "warn"
    assert finding.remedy.startswith("export PEAKHOLD_SHARE=host")


def test_two_frequencies_of_a_window_are_a_warning(leave, state_directory, monkeypatch):
    monkeypatch.setenv("PEAKHOLD_SHARE", "host")
    leave("a", then=LEFT, PEAKHOLD_SHARE="host")
    file = state_directory / "outbox.sqlite3"
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(
            "INSERT INTO shares (destination, name, frequency, place, closed, used_at)"
            " SELECT destination, name, 5, place, closed, used_at FROM shares"
        )
    (finding,) = check_sharing()
    assert finding.status == "warn"
    assert "window a has frequencies of 5 and 3600 s" in finding.text


def test_sharing_without_durability_is_a_warning(monkeypatch):
    monkeypatch.setenv("PEAKHOLD_SHARE", "host")
    monkeypatch.setenv("PEAKHOLD_DURABILITY", "memory")
    (finding,) = check_sharing()
    assert finding.status == "warn"
    assert "set PEAKHOLD_DURABILITY" in finding.remedy


# The Redis server -------------------------------------------------------------------


@pytest.fixture(scope="module")
def server():
    if PROGRAM is None:
        pytest.skip(WITHOUT)
    with RedisServer() as running:
        yield running


@pytest.fixture
def of_server(monkeypatch):
    """What the doctor says about the server that PEAKHOLD_SHARE names."""

    def check(url):
        monkeypatch.setenv("PEAKHOLD_SHARE", url)
        (finding,) = (each for each in check_sharing() if each.check == "redis")
        return finding

    return check


def test_a_server_that_answers_is_all_right(server, of_server):
    finding = of_server(server.url)
    assert finding.status == "ok"
    assert server.url in finding.text
    assert server.ask("DBSIZE") == 0


def test_a_server_that_deletes_keys_is_a_warning(server, of_server):
    server.ask("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    try:
        finding = of_server(server.url)
    finally:
        server.ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    assert finding.status == "warn"
    assert "allkeys-lru" in finding.text
    assert "noeviction" in finding.remedy


@pytest.mark.parametrize(
    ("seconds", "said"), [(3.0, "3.0 s behind"), (-3.0, "3.0 s ahead of")]
)
def test_a_clock_that_is_apart_is_a_warning(
    server, of_server, monkeypatch, seconds, said
):
    time = SimpleNamespace(time=lambda: real_time() + seconds)
    monkeypatch.setattr("peakhold.cli.sharing.time", time)
    finding = of_server(server.url)
    assert finding.status == "warn"
    assert said in finding.text


def test_a_server_that_does_not_answer_fails_and_shows_no_secret(of_server):
    finding = of_server(f"redis://user:canary-1@127.0.0.1:{refusing_port()}/0?db=3")
    assert finding.status == "fail"
    assert "PEAKHOLD_SHARE" in finding.remedy
    assert "canary" not in f"{finding}"
    assert "user" not in finding.text


def test_a_wrong_password_fails_and_is_not_shown(server, of_server):
    finding = of_server(server.url.replace("//", "//user:canary-2@"))
    assert finding.status == "fail"
    assert "canary" not in f"{finding}"


def test_who_shares_in_another_way_than_what_waits_is_warned(
    leave, of_server, server, monkeypatch
):
    leave("a", then=LEFT, PEAKHOLD_SHARE="host")
    monkeypatch.setenv("PEAKHOLD_SHARE", server.url)
    finding = next(check_sharing())
    assert finding.status == "warn"
    assert "PEAKHOLD_SHARE=host" in finding.remedy
