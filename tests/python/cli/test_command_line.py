"""What holds for every command: versions, help, exit codes, extras."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import peakhold._peakhold as extension

HIDE = "import sys; sys.modules[{module!r}] = None; from peakhold.cli import main; "


def test_the_version_is_that_of_the_extension(peakhold):
    ended = peakhold("--version")

    assert ended.stdout.decode() == f"peakhold {extension.__version__}\n"
    assert ended.returncode == 0


def test_the_package_itself_runs_as_a_module():
    ended = subprocess.run(
        [sys.executable, "-m", "peakhold", "--version"],
        check=True,
        capture_output=True,
    )

    assert ended.stdout.startswith(b"peakhold ")


def test_help_names_every_command(peakhold):
    ended = peakhold("--help")

    for command in ("bench", "demo", "flush", "monitor", "outbox", "replay", "status"):
        assert command in ended.stdout.decode()
        assert peakhold(command, "--help").returncode == 0
    assert ended.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "COMMAND"),
        (["explode"], "explode"),
        (["replay"], "FILE"),
        (["replay", "x", "--fps", "-1"], "--fps"),
        (["replay", "x", "--fps", "fast"], "--fps"),
        (["replay", "x", "--frequency", "0"], "--frequency"),
        (["replay", "x", "--frequency", "2.7"], "--frequency"),
        (["replay", "x", "--metadata", "novalue"], "NAME=VALUE"),
        (["replay", "x", "--nonsense"], "--nonsense"),
        (["demo", "--seconds", "0"], "--seconds"),
        (["demo", "--seconds", "nan"], "--seconds"),
        (["monitor", "--port", "70000"], "65535"),
        (["monitor", "--port", "http"], "--port"),
        (["outbox"], "ACTION"),
        (["outbox", "ls", "--state", "lost"], "--state"),
    ],
)
def test_a_wrong_argument_is_told_in_one_line(peakhold, told, arguments, part):
    told(peakhold(*arguments), part, "--help")


def test_help_loads_no_extra_and_no_network_library(python):
    ended = python(
        "import sys; from peakhold.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted({'rich', 'starlette', 'uvicorn', 'supervision', 'requests'}"
        " & sys.modules.keys()))"
    )

    assert ended.stdout.decode().splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("command", "module"),
    [
        (["demo"], "rich"),
        (["demo"], "uvicorn"),
        (["replay", "x"], "rich"),
        (["monitor"], "starlette"),
    ],
)
def test_a_missing_extra_is_told_with_its_installation(python, told, command, module):
    hidden = HIDE.format(module=module)

    ended = python(f"{hidden} sys.exit(main({command!r}))")

    told(ended, module, 'pip install "peakhold[monitor]"')


def test_a_reader_that_leaves_early_is_no_error(boxes, monitor, python):
    recording = boxes([("cat", 0.5)])
    arguments = ["replay", str(recording), "--api-url", monitor.url, "--fps", "0"]

    # Closed before the summary: what `| head -0` does.
    ended = python(
        "import os, sys; from peakhold.cli import main\n"
        "reader, writer = os.pipe(); os.dup2(writer, 1); os.close(reader)\n"
        f"sys.exit(main({arguments!r}))"
    )

    assert ended.returncode == 141
    assert ended.stderr == b""


@pytest.mark.skipif(os.name == "nt", reason="homes as POSIX has them")
@pytest.mark.parametrize(
    "command", ["status", "outbox ls", "outbox retry --all", "flush", "env --docker"]
)
def test_a_state_directory_that_cannot_be_resolved_is_told_in_one_line(
    peakhold, command
):
    ended = peakhold(
        *command.split(),
        PEAKHOLD_STATE_DIR="~nosuchuser/x",
        ROBOFLOW_API_KEY="canary-key",
    )

    errors = ended.stderr.decode()
    if command == "env --docker":  # which does not need it
        assert ended.returncode == 0, errors
        return
    assert ended.returncode == 2
    assert errors.count("\n") == 1
    assert errors.startswith(f"peakhold {command.split()[0]}: ")
    assert "set PEAKHOLD_STATE_DIR to an absolute path" in errors
    assert "nosuchuser" not in errors


@pytest.mark.parametrize(
    "command", ["status", "outbox ls", "flush", "monitor", "demo", "doctor", "--help"]
)
def test_without_sqlite_a_command_says_so_in_one_line(python, command):
    code = HIDE.format(module="_sqlite3") + f"sys.exit(main({command.split()}))"
    nowhere = "http://127.0.0.1:1"
    ended = python(code, ROBOFLOW_API_KEY="canary-key", API_BASE_URL=nowhere)

    output, errors = ended.stdout.decode(), ended.stderr.decode()
    if command == "--help":  # which does not need it
        assert (ended.returncode, errors) == (0, "")
    elif command == "doctor":
        (line,) = [line for line in output.splitlines() if " outbox " in line]
        assert line.startswith("warn")
        assert "without the module sqlite3" in line
    else:
        assert (ended.returncode, errors.count("\n")) == (2, 1), errors
        assert "without the module sqlite3: use one that has it" in errors
