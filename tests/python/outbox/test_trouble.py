"""What is said about an outbox that cannot be used: why, and what to do about it."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
from contextlib import contextmanager

import pytest
from stand_ins import report

from peakhold.delivery import Dispatcher
from peakhold.delivery.health import health
from peakhold.outbox import admin
from peakhold.outbox.schema import explained

HOLDING = """
import sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("BEGIN EXCLUSIVE")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def durable(state, sender, clock):
    """A dispatcher whose outbox has a record."""
    dispatcher = Dispatcher(state, clock=clock, worker=False)
    dispatcher.deliver(report(sender), sender)
    dispatcher.committer.commit()
    return dispatcher


@contextmanager
def held(state):
    """Have another process hold the outbox."""
    command = [sys.executable, "-c", HOLDING, state.path / "outbox.sqlite3"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline().strip() == b"held"
        yield
        process.stdin.close()


def said(dispatcher, sender, caplog):
    """Return what log and health say once something is to be written."""
    with caplog.at_level(logging.WARNING, "peakhold.delivery"):
        dispatcher.deliver(report(sender, "w" * 10_000), sender)
        dispatcher.committer.commit()
    (record,) = caplog.records
    error = health(dispatcher)["disk_error"]
    assert error in record.getMessage()
    return error


def test_an_outbox_in_use_is_not_called_a_full_one(durable, state, sender, caplog):
    with held(state):
        error = said(durable, sender, caplog)
        with pytest.raises(admin.OutboxError) as by_command:
            admin.status(state)
    for text in (error, str(by_command.value)):
        assert "another process is using the outbox" in text
        assert "room" not in text
        assert "may not write" not in text


def test_a_full_disk_is_called_one(durable, sender, caplog):
    database = durable.outbox._disk.transaction(lambda database: database)
    (pages,) = database.execute("PRAGMA page_count").fetchone()
    database.execute(f"PRAGMA max_page_count = {pages}")
    for number in range(200):
        durable.deliver(report(sender, f"w{number}"), sender)
    error = said(durable, sender, caplog)
    assert "make room" in error
    assert "another process" not in error


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="root may write everywhere, and Windows knows no such permission",
)
def test_a_directory_that_may_not_be_written_is_called_one(state, sender, caplog):
    state.path.mkdir()
    state.path.chmod(0o500)
    dispatcher = Dispatcher(state, worker=False)
    try:
        error = said(dispatcher, sender, caplog)
    finally:
        state.path.chmod(0o700)
    assert "PEAKHOLD_STATE_DIR" in error
    assert "make room" not in error


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="root may look everywhere, and Windows knows no such permission",
)
def test_a_directory_that_may_not_be_looked_into_is_called_one(durable, state):
    assert admin.status(state)["counts"]["sealed"] == 1  # the control
    state.path.chmod(0)
    try:
        for look in (admin.status, admin.listed):
            with pytest.raises(admin.OutboxError, match="may not write there"):
                look(state)
    finally:
        state.path.chmod(0o700)


@pytest.mark.parametrize(
    ("number", "meaning"),
    [
        (errno.EACCES, "may not write"),
        (errno.ENOTDIR, "in the way"),
        (errno.EROFS, "may not write"),
        (errno.ENOSPC, "make room"),
        (errno.EIO, None),
    ],
)
def test_an_error_of_the_system_is_explained_by_its_number(number, meaning):
    error = OSError(number, os.strerror(number))
    text = explained(error)
    assert text.startswith(str(error))
    assert text == str(error) if meaning is None else meaning in text
