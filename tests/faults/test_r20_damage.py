"""R20: a damaged outbox never stops the application."""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import time
from contextlib import closing

import pytest
from stepping import Stepped, conserved

from peakhold.delivery import schema
from peakhold.testing import Answer

TIMES = 1000
TIMES_OF_THE_CONTROL = 40
RECORDS = 30
LONGEST_START = 1.0
SOON = 20.0
"""Seconds after which a disk that failed was tried again, and memory moved there."""


def flip(content, draw):
    damaged = bytearray(content)
    for _ in range(draw.choice([1, 4, 64])):
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def flip_the_head(content, draw):
    return flip(content[:100], draw) + content[100:]


def truncate(content, draw):
    return content[: draw.randrange(len(content))]


def overwrite_a_page(content, draw):
    at = draw.randrange(len(content) // 4096) * 4096
    return content[:at] + draw.randbytes(4096) + content[at + 4096 :]


def empty(content, draw):
    return b""


def zeros(content, draw):
    return bytes(len(content))


def foreign(content, draw):
    return b"\x89PNG\r\n\x1a\n" + draw.randbytes(5000)


WAYS = (flip, flip, flip_the_head, truncate, overwrite_a_page, empty, zeros, foreign)


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.ERROR)


@pytest.fixture
def whole(api, tmp_path):
    """The bytes of an outbox with records that wait."""
    api.always = Answer(503)
    stepped = Stepped(api, tmp_path / "whole")
    for number in range(RECORDS):
        stepped.seal(**{f"class-{number}": 0.5})
    stepped.run(0.0)
    stepped.dispatcher.close(0)
    return (tmp_path / "whole" / "outbox.sqlite3").read_bytes()


def begin_with(api, directory, content):
    """Start with such a file, and seal a window.

    Returns:
        The seconds until it was committed, and the dispatcher.
    """
    directory.mkdir(mode=0o700)
    path = directory / "outbox.sqlite3"
    path.write_bytes(content)
    path.chmod(0o600)
    stepped = Stepped(api, directory)
    begin = time.perf_counter()
    stepped.seal(new=0.5)
    stepped.run(0.0)
    return time.perf_counter() - begin, stepped


def usable(stepped):
    """Whether the disk is soon in use again, takes a window, and accounts for all.

    What was put into the file before its damage showed went aside with it.
    """
    stepped.run(SOON)
    stepped.seal(another=0.5)
    stepped.run(0.0)
    counts = stepped.counts()
    assert conserved(counts)
    return stepped.dispatcher.outbox.disk_error is None and counts.pending > 0


def damage(api, directory, whole, times, seed):
    """Damage it in many ways; returns the longest start, quarantines, and unusable."""
    draw = random.Random(seed)
    longest, quarantined, unusable = 0.0, 0, 0
    for number in range(times):
        damaged = draw.choice(WAYS)(whole, draw)
        here = directory / str(number)
        took, stepped = begin_with(api, here, damaged)
        longest = max(longest, took)
        quarantined += any(here.glob("*.corrupt-*"))
        unusable += not usable(stepped)
        stepped.dispatcher.close(0)
    return longest, quarantined, unusable


def test_any_damage_is_put_aside_and_a_new_outbox_begun(
    api, tmp_path, whole, seed, figure
):
    longest, quarantined, unusable = damage(api, tmp_path, whole, TIMES, seed)
    assert unusable == 0
    assert longest <= LONGEST_START
    assert quarantined > TIMES / 4
    figure(
        "R20",
        f"{TIMES} damaged files: start {longest:.2f} s at most, {quarantined} put "
        "aside, 0 unusable",
    )


def test_the_control_damage_that_is_not_recognised_makes_it_unusable(
    api, tmp_path, whole, monkeypatch
):
    monkeypatch.setattr(schema, "is_damage", lambda error: False)
    _, quarantined, unusable = damage(api, tmp_path, whole, TIMES_OF_THE_CONTROL, 20)
    assert (quarantined, unusable > 0) == (0, True)


def test_a_newer_schema_is_refused_and_left_as_it_is(api, tmp_path, whole, figure):
    path = tmp_path / "newer.sqlite3"
    path.write_bytes(whole)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 99")
        database.commit()
    newer = path.read_bytes()
    took, stepped = begin_with(api, tmp_path / "newer", newer)
    assert took <= LONGEST_START
    assert (tmp_path / "newer" / "outbox.sqlite3").read_bytes() == newer
    assert not list((tmp_path / "newer").glob("*.corrupt-*"))
    assert stepped.dispatcher.outbox.disk_error is not None
    api.always = None
    stepped.run(60.0)
    assert [result["class_name"] for result in api.results()] == ["new"]
    stepped.dispatcher.close(0)
    figure("R20", "newer schema refused, not a byte changed, the window delivered")


@pytest.mark.skipif(os.name == "nt", reason="permissions as POSIX has them")
def test_what_is_put_aside_is_as_private_as_the_outbox(api, tmp_path, whole):
    _, stepped = begin_with(api, tmp_path / "here", whole[:5000])
    stepped.dispatcher.close(0)
    (aside,) = (tmp_path / "here").glob("*.corrupt-*")
    assert aside.stat().st_mode & 0o077 == 0
