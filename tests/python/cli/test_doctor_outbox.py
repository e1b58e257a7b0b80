"""What the doctor finds about the outbox."""

from __future__ import annotations

import os
import sqlite3

import pytest

from peakhold.cli.custody import check_outbox
from peakhold.outbox.schema import SCHEMA_VERSION


@pytest.fixture
def file(state_directory):
    return state_directory / "outbox.sqlite3"


@pytest.fixture
def used(leave, file):
    """An outbox in which one report waits."""
    leave("a", OFFLINE_MODE="True")
    return file


def change(file, statement):
    database = sqlite3.connect(file)
    with database:
        database.execute(statement)
    database.close()


def test_where_nothing_was_sealed_all_is_well_and_nothing_is_made(state_directory):
    finding = check_outbox()

    assert finding.status == "ok"
    assert f"nothing was sealed yet in {state_directory}" in finding.text
    assert not state_directory.exists()


def test_a_whole_outbox_is_ok(used):
    finding = check_outbox()

    assert (finding.status, finding.text) == ("ok", "it is whole, 1 pending")


@pytest.mark.parametrize(
    ("sealed", "words"), [(False, "nothing was sealed yet"), (True, "1 pending")]
)
def test_windows_that_dead_processes_left_are_told(leave, sealed, words):
    if sealed:
        leave("a", OFFLINE_MODE="True")
    leave("b", then="os._exit(9)", API_BASE_URL="http://127.0.0.1:9")

    finding = check_outbox()

    assert finding.status == "ok"
    assert words in finding.text
    assert finding.text.endswith(", 1 windows or batches of metadata of dead processes")


def test_records_that_need_a_person_are_a_warning(troubled):
    finding = check_outbox()

    assert finding.status == "warn"
    assert "1 pending, 1 parked, 1 dead" in finding.text
    assert "peakhold status" in finding.remedy


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE contents SET packed = x'00'", "is damaged"),
        ("UPDATE totals SET value = 7 WHERE name = 'sealed'", "+6 seals"),
    ],
)
def test_what_is_wrong_inside_fails(used, statement, words):
    change(used, statement)

    finding = check_outbox()

    assert finding.status == "fail"
    assert words in finding.text
    assert "peakhold outbox export" in finding.remedy


def test_a_damaged_file_fails_and_is_left_as_it_is(used):
    content = used.read_bytes()
    damaged = content[:100] + bytes(4_000) + content[4_100:]
    used.write_bytes(damaged)

    finding = check_outbox()

    assert finding.status == "fail"
    assert "cannot be used" in finding.text
    assert "puts it aside" in finding.remedy
    assert used.read_bytes() == damaged


def test_the_file_of_a_later_version_fails(used):
    change(used, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")

    finding = check_outbox()

    assert finding.status == "fail"
    assert finding.remedy.startswith("use that version")


def test_a_file_that_was_put_aside_is_a_warning(used, state_directory):
    name = "outbox.sqlite3.corrupt-20260102T030405.000000Z"
    (state_directory / name).write_bytes(b"")

    finding = check_outbox()

    assert finding.status == "warn"
    assert name in finding.text


def test_a_directory_that_cannot_be_one_is_a_warning(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("PEAKHOLD_STATE_DIR", str(tmp_path / "file" / "state"))

    finding = check_outbox()

    assert finding.status == "warn"
    assert "waits in memory" in finding.text


def test_durability_memory_is_told(monkeypatch):
    monkeypatch.setenv("PEAKHOLD_DURABILITY", "memory")

    assert "uses none" in check_outbox().text


def test_a_variable_that_cannot_be_used_fails(monkeypatch):
    monkeypatch.setenv("PEAKHOLD_OUTBOX_TTL", "long")

    finding = check_outbox()

    assert finding.status == "fail"
    assert "PEAKHOLD_OUTBOX_TTL" in finding.text


@pytest.mark.skipif(os.name == "nt", reason="modes as POSIX has them")
def test_a_directory_that_everybody_may_write_fails_with_the_remedy(
    used, state_directory
):
    assert check_outbox().status == "ok"  # the control
    state_directory.chmod(0o777)
    finding = check_outbox()

    assert finding.status == "fail"
    assert f"{state_directory} can be written by every user" in finding.text
    assert "chmod 700" in finding.remedy


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0,
    reason="only root can give a directory away",
)
def test_a_directory_of_another_user_has_a_remedy_and_fails_but_for_root(
    used, state_directory, monkeypatch
):
    os.chown(state_directory, 1234, 1234)
    for_root = check_outbox()
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    finding = check_outbox()

    assert (for_root.status, finding.status) == ("warn", "fail")
    for each in (for_root, finding):
        assert "belongs to another user, 1234" in each.text
        assert "chown" in each.remedy


@pytest.mark.skipif(os.name == "nt", reason="homes as POSIX has them")
def test_a_directory_in_the_home_of_nobody_is_a_warning(monkeypatch):
    monkeypatch.setenv("PEAKHOLD_STATE_DIR", "~nosuchuser/x")
    finding = check_outbox()

    assert finding.status == "warn"
    assert "waits in memory" in finding.text
    assert "PEAKHOLD_STATE_DIR" in finding.remedy
    assert "nosuchuser" not in f"{finding}"
