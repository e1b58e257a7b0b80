"""R20: a damaged outbox never stops the application."""

from __future__ import annotations

import logging
import os
import random
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass

import pytest
from stepping import Stepped

from peakhold.outbox import schema
from peakhold.outbox.ledger import counts_of
from peakhold.testing import Answer

pytestmark = pytest.mark.unbalanced  # the damage may take seals from the books

TIMES = 1000
TIMES_OF_THE_CONTROL = 40
RECORDS = 10
LONGEST_START = 1.0
SOON = 20.0
"""Seconds after which a disk that failed was tried again, and memory moved there."""
LATER = 120.0
"""Seconds after which everything was tried again."""
VERSION = slice(60, 64)
"""Where the header of a file has the version of its schema."""


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


def begin_with(api, directory, content, name="new"):
    """Start with such a file, and seal a window of a class.

    Returns:
        The seconds until it was committed, and the dispatcher.
    """
    directory.mkdir(mode=0o700)
    path = directory / "outbox.sqlite3"
    path.write_bytes(content)
    path.chmod(0o600)
    stepped = Stepped(api, directory)
    begin = time.perf_counter()
    stepped.seal(**{name: 0.5})
    stepped.run(0.0)
    return time.perf_counter() - begin, stepped


@dataclass
class Outcome:
    """What became of an outbox that was damaged.

    Attributes:
        start: Seconds until a window was sealed there.
        put_aside: Whether the file was.
        refused: Whether it was taken for that of a later version, and left as it was.
        used: Whether the disk was soon in use.
        unexplained: Seals, but for those that the damage itself took from the books.
    """

    start: float
    put_aside: bool
    refused: bool
    used: bool
    unexplained: int


def outcome(api, directory, content, name):
    """Start with such a file while the API is down, and go on until it is up."""
    api.always = Answer(503)
    start, stepped = begin_with(api, directory, content, name)
    stepped.run(SOON)
    used = stepped.dispatcher.outbox.disk_error is None
    api.always = None
    stepped.run(LATER)
    put_aside = any(directory.glob("*.corrupt-*"))
    path = directory / "outbox.sqlite3"
    refused = path.read_bytes() == content and is_of_later_version(content)
    unexplained = stepped.counts().unaccounted
    if used and not put_aside:
        unexplained -= taken_from_the_books(directory, content)
    stepped.dispatcher.close(0)
    return Outcome(start, put_aside, refused, used, unexplained)


def is_of_later_version(content):
    return int.from_bytes(content[VERSION], "big") > schema.SCHEMA_VERSION


def taken_from_the_books(directory, content):
    """Return how many seals are unaccounted for in a file that may be none."""
    copy = directory / "copy"
    copy.write_bytes(content)
    with closing(sqlite3.connect(copy)) as database:
        try:
            return counts_of(database).unaccounted
        except sqlite3.Error:  # it was empty, most likely
            return 0


def damage(api, directory, whole, times, seed):
    """Damage it in many ways; returns the outcomes, and the windows that were lost."""
    draw = random.Random(seed)
    outcomes = [
        outcome(
            api, directory / f"{number}", draw.choice(WAYS)(whole, draw), f"n{number}"
        )
        for number in range(times)
    ]
    arrived = {result["class_name"] for result in api.results()}
    return outcomes, {f"n{number}" for number in range(times)} - arrived


def test_any_damage_is_put_aside_and_a_new_outbox_begun(
    api, tmp_path, whole, seed, figure
):
    outcomes, lost = damage(api, tmp_path, whole, TIMES, seed)
    assert lost == set()
    assert [each for each in outcomes if each.used == each.refused] == []
    assert [each for each in outcomes if each.unexplained] == []
    longest = max(each.start for each in outcomes)
    assert longest <= LONGEST_START
    put_aside = sum(each.put_aside for each in outcomes)
    assert put_aside > TIMES / 4
    refused = sum(each.refused for each in outcomes)
    figure(
        "R20",
        f"{TIMES} damaged files: start {longest:.2f} s at most, {put_aside} put aside, "
        f"{refused} taken for a later version's and left alone, 0 other unusable, 0 "
        "windows lost, 0 unexplained",
    )


def test_the_control_damage_that_is_not_recognised_makes_it_unusable(
    api, tmp_path, whole, monkeypatch, figure
):
    monkeypatch.setattr(schema, "is_damage", lambda error: False)
    outcomes, _ = damage(api, tmp_path, whole, TIMES_OF_THE_CONTROL, 20)
    unusable = [each for each in outcomes if each.used == each.refused]
    assert unusable != []
    assert not any(each.put_aside for each in outcomes)
    figure("R20n", f"{len(unusable)} of {TIMES_OF_THE_CONTROL} unusable")


def test_the_control_damage_that_comes_later_costs_the_window(api, tmp_path, whole):
    api.always = Answer(503)
    _, stepped = begin_with(api, tmp_path / "here", whole)
    (tmp_path / "here" / "outbox.sqlite3").write_bytes(
        foreign(whole, random.Random(20))
    )
    api.always = None
    stepped.run(LATER)
    stepped.dispatcher.close(0)
    assert api.results() == []


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
