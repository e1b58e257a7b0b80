"""`peakhold monitor`."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

windows_has_no_signals = pytest.mark.skipif(
    sys.platform == "win32", reason="signals cannot be sent to a process on Windows"
)


def fetch(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


@windows_has_no_signals
def test_the_printed_address_answers_until_ctrl_c(start):
    command = start("monitor", "--workspace", "line-3")
    dashboard = command.line_with("dashboard").split()[-1]
    address = command.line_with("API_BASE_URL=").partition("=")[2]
    command.line_with("ROBOFLOW_API_KEY=any")
    command.line_with("Ctrl-C")

    assert json.loads(fetch(f"{address}/?api_key=any"))["workspace"] == "line-3"
    assert "<html" in fetch(dashboard).lower()
    assert command.end() == (130, "")
    with pytest.raises(OSError, match="refused"):
        fetch(dashboard)


def test_a_shell_takes_the_printed_lines_and_its_programs_have_them(start, monkeypatch):
    for name in ("API_BASE_URL", "ROBOFLOW_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    command = start("monitor")
    lines = [command.line_with("API_BASE_URL="), command.line_with("ROBOFLOW_API_KEY=")]
    address = lines[0].partition("=")[2]
    code = "from os import getenv as e; print(e('API_BASE_URL'), e('ROBOFLOW_API_KEY'))"
    python = subprocess.list2cmdline([sys.executable, "-c", code])
    shell = ["cmd", "/q"] if os.name == "nt" else ["sh"]

    ended = subprocess.run(
        shell,
        check=False,
        input="\n".join([*lines, python, ""]),
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert f"{address} any" in ended.stdout, ended.stderr


@windows_has_no_signals
def test_sigterm_stops_it_cleanly(start):
    command = start("monitor")
    command.line_with("Ctrl-C")

    assert command.end(signal.SIGTERM) == (143, "")


@windows_has_no_signals
def test_the_data_file_outlives_it(start, boxes, peakhold, tmp_path):
    data = tmp_path / "monitor.db"
    first = start("monitor", "--data", data)
    address = first.line_with("API_BASE_URL=").partition("=")[2]
    replayed = peakhold("replay", boxes([("crane", 0.5)]), "--api-url", address)
    assert replayed.returncode == 0, replayed.stderr
    first.end()

    second = start("monitor", "--data", data)
    dashboard = second.line_with("dashboard").split()[-1]
    kept = fetch(dashboard)
    second.end()
    fresh = start("monitor")
    empty = fetch(fresh.line_with("dashboard").split()[-1])

    assert "crane" in kept
    assert "crane" not in empty


def test_a_port_in_use_is_told(peakhold, told):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        told(peakhold("monitor", "--port", port), str(port), "port 0")


def test_a_host_that_is_not_here_is_told(peakhold, told):
    # From the block of addresses for documentation, which no machine has.
    told(peakhold("monitor", "--host", "192.0.2.1"), "192.0.2.1")


def test_a_data_file_that_cannot_be_is_told(peakhold, told, tmp_path):
    told(peakhold("monitor", "--data", tmp_path / "absent" / "monitor.db"), "absent")


def test_a_data_file_that_is_something_else_is_told(peakhold, told, tmp_path):
    other = tmp_path / "notes.txt"
    other.write_text("Not a database, and worth keeping. " * 50)

    told(peakhold("monitor", "--data", other), "notes.txt")
    assert other.read_text().startswith("Not a database")


def test_a_workspace_that_is_no_name_is_told(peakhold, told):
    told(peakhold("monitor", "--workspace", "a/b"), "a/b")
