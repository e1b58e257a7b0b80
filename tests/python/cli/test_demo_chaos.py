"""`peakhold demo --chaos`: a bad server and a killed worker, and nothing lost."""

from __future__ import annotations

import re

import pytest

CHAOS = ["demo", "--chaos", "--seconds", "3", "--fps", "300"]

SABOTAGE = """
import sqlite3, sys
import peakhold.cli.chaos as chaos
from peakhold.cli import main
deliver = chaos.deliver_what_waits
def sabotaged(state, *arguments):
    database = sqlite3.connect(state.path / "outbox.sqlite3")
    with database:
        database.executescript({statements!r})
    database.close()
    return deliver(state, *arguments)
chaos.deliver_what_waits = sabotaged
sys.exit(main({arguments!r}))
"""
FIRST = "(SELECT min(number) FROM records)"
FORGET = f"DELETE FROM records WHERE number = {FIRST};"
LIE = "UPDATE totals SET value = value + 1 WHERE name = 'delivered'"


def test_nothing_is_lost_whatever_the_environment(peakhold):
    ended = peakhold(
        *CHAOS,
        API_BASE_URL="http://127.0.0.1:9",
        OFFLINE_MODE="True",
        ROBOFLOW_API_KEY="canary-5d41402abc",
        PEAKHOLD_STATE_DIR="/dev/null/nowhere",
        http_proxy="http://127.0.0.1:9",
    )

    text = ended.stdout.decode()
    assert ended.returncode == 0, ended.stderr.decode()
    assert ended.stderr == b""
    assert len(re.findall(r"Worker \d: killed after frame", text)) == 4
    equation = re.search(r"sealed (\d+) = delivered (\d+) \+ pending 0", text)
    assert int(equation[1]) == int(equation[2]) > 0
    assert re.search(r"Lost: 0 of \d+ records, 0 of \d+ peaks\.", text)
    assert "canary" not in text


@pytest.mark.parametrize(
    ("statements", "problem"),
    [
        (FORGET, "seals are not accounted for"),
        (FORGET + LIE, "delivered records did not arrive"),
        (
            f"UPDATE records SET state = 'dead' WHERE number = {FIRST}",
            "records were given up",
        ),
    ],
)
def test_what_is_lost_on_purpose_makes_the_exit_code_1(python, statements, problem):
    ended = python(SABOTAGE.format(statements=statements, arguments=CHAOS))

    assert ended.returncode == 1, ended.stdout
    assert problem in ended.stderr.decode()
    assert b"Lost: 0" not in ended.stdout


def test_windows_that_are_lost_on_purpose_are_missed(python):
    ended = python(
        "import sys\n"
        "from peakhold.cli import chaos, main\n"
        "chaos.MisbehavingApi.results = lambda self: []\n"
        f"sys.exit(main({CHAOS!r}))"
    )

    assert ended.returncode == 1
    assert b"peaks that a worker had taken did not arrive" in ended.stderr


def test_it_has_no_dashboard_to_keep(peakhold, told):
    told(peakhold("demo", "--chaos", "--keep"), "--keep")


def test_a_worker_that_ends_by_itself_is_told(python):
    ended = python(
        "import sys; from peakhold.cli import chaos, main\n"
        "environment = chaos._environment\n"
        "chaos._environment = lambda *a: environment(*a) | {'API_BASE_URL': 'ftp://'}\n"
        f"sys.exit(main({CHAOS!r}))"
    )

    assert ended.returncode == 2
    assert b"the worker ended by itself" in ended.stderr
