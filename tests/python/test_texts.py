"""Values and text from outside, as plain and printable text."""

from __future__ import annotations

from enum import Enum
from pathlib import Path

import pytest

from peakhold.notices import Notices
from peakhold.texts import printable, text_of


class Status(str, Enum):
    """Its members are texts that ``str`` shows as something else."""

    PASS = "pass"


class Shown:
    """Its text is of a subclass."""

    def __str__(self):
        return Status.PASS


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (Status.PASS, "pass"),
        (Shown(), "pass"),
        (5.0, "5.0"),
        (None, "None"),
    ],
)
def test_a_value_reads_as_its_own_characters(value, text):
    assert text_of(value) == text
    assert type(text_of(value)) is str


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, é, 猫 and 😀", "plain, é, 猫 and 😀"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("a\r\nWARNING forged", "a\\r\\nWARNING forged"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_is_shown_moves_no_cursor_and_begins_no_line(text, shown):
    assert printable(text) == shown
    assert printable(shown) == shown


def test_what_is_logged_of_texts_paths_and_errors_is_printable(caplog):
    notices = Notices()
    for part in ("\x1b[31m", Path("a\x1b[31m"), OSError("\x1b[31m"), 5):
        notices.warn(f"cause of {part!r}", "It is %s", part)
    assert [record.args for record in caplog.records] == [
        ("\\x1b[31m",),
        ("a\\x1b[31m",),
        ("\\x1b[31m",),
        (5,),
    ]
