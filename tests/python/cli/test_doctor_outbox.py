"""What the doctor finds about the outbox."""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
from pathlib import Path

import pytest

from peakhold.cli.custody import check_outbox
from peakhold.outbox import StateDirectory
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
    assert not list(state_directory.parent.iterdir())


def test_a_whole_outbox_is_ok(used):
    finding = check_outbox()

    assert (finding.status, finding.text) == ("ok", "it is whole, 1 pending")


def test_reports_that_fall_behind_are_warned_of(used):
    change(used, "UPDATE totals SET value = value - 20000 WHERE name = 'wall'")

    finding = check_outbox()

    assert finding.status == "warn"
    assert "1 pending; reports fall behind, those to http" in finding.text
    assert "peakhold status" in finding.remedy


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


def in_proc(_):
    if sys.platform != "linux":
        pytest.skip("Linux has a file system in which not even root makes a directory")
    return Path("/proc/peakhold"), "No such file"


def a_file(directory):
    (directory / "file").write_text("no directory")
    return directory / "file", "a file is in the way"


def below_a_file(directory):
    file, words = a_file(directory)
    return file / "far" / "below", words


def a_link_to_nothing(directory):
    if os.name == "nt":
        pytest.skip("links as POSIX has them")
    (directory / "link").symlink_to(directory / "absent")
    return directory / "link", "a file is in the way"


def with_a_file_for_owners(directory):
    (directory / "owners").write_text("no directory")
    return directory, "a file is in the way"


def with_a_file_for_journals(directory):
    (directory / "journals").write_text("no directory")
    return directory, "a file is in the way"


def of_too_long_a_name(directory):
    return directory / "absent" / ("x" * 300), ""


@pytest.mark.parametrize(
    "place",
    [
        in_proc,
        a_file,
        below_a_file,
        a_link_to_nothing,
        with_a_file_for_owners,
        with_a_file_for_journals,
        of_too_long_a_name,
    ],
)
def test_a_directory_that_no_sink_can_use_is_a_warning_with_the_cause(
    place, tmp_path, monkeypatch
):
    directory, cause = place(tmp_path)
    monkeypatch.setenv("PEAKHOLD_STATE_DIR", str(directory))
    before = sorted(tmp_path.rglob("*"))
    finding = check_outbox()

    assert finding.status == "warn"
    assert f"{directory} cannot be used" in finding.text
    assert "waits in memory" in finding.text
    assert cause in finding.text
    assert "PEAKHOLD_STATE_DIR" in finding.remedy
    assert sorted(tmp_path.rglob("*")) == before
    state = StateDirectory(directory)
    with pytest.raises(OSError, match=r"Errno|WinError"):  # the control: as a sink does
        _ = state.owner_id, state.journals
    state.release()


@pytest.mark.skipif(os.name == "nt", reason="locks as POSIX has them")
def test_a_directory_without_locks_is_a_warning(used, monkeypatch):
    assert check_outbox().status == "ok"  # the control

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.lockf", refuse)
    finding = check_outbox()

    assert finding.status == "warn"
    assert "the file system has no locks" in finding.text


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="root may write everywhere, and Windows knows no such permission",
)
def test_a_directory_that_may_not_be_written_is_a_warning(tmp_path, monkeypatch):
    tmp_path.chmod(0o500)
    monkeypatch.setenv("PEAKHOLD_STATE_DIR", str(tmp_path / "absent" / "state"))
    try:
        finding = check_outbox()
    finally:
        tmp_path.chmod(0o700)

    assert finding.status == "warn"
    assert "may not write there" in finding.text


def test_trying_a_directory_in_use_leaves_it_as_it_was(used, state_directory):
    before = sorted(state_directory.rglob("*"))

    assert check_outbox().status == "ok"
    assert sorted(state_directory.rglob("*")) == before


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
