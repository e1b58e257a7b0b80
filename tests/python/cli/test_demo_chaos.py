"""`peakhold demo --chaos`: a bad server and a killed worker, and nothing lost."""

from __future__ import annotations

import json
import re

import pytest

from peakhold.cli.chaos import tell
from peakhold.roboflow import RoboflowClient, Settings
from peakhold.testing import MisbehavingApi

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
LIE = "UPDATE totals SET value = value + 1 WHERE name IN ('sealed', 'delivered')"
"""Of a record more. One that waits may have arrived, with its worker killed since."""


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


def test_a_delivered_record_that_never_arrived_makes_the_exit_code_1(python):
    ended = python(SABOTAGE.format(statements=LIE, arguments=CHAOS))

    assert ended.returncode == 1, ended.stdout
    assert "1 delivered records did not arrive" in ended.stderr.decode()
    assert b"Lost: 0" not in ended.stdout


@pytest.fixture
def api():
    """A server that took two reports, one of them twice."""
    with MisbehavingApi() as server:
        client = RoboflowClient(Settings(api_base_url=server.url))
        for key, confidence in (("a", 0.5), ("b", 0.75), ("b", 0.75)):
            result = {"model_id": "m/1", "class_name": "cat", "confidence": confidence}
            body = json.dumps({"inference_results": [result]}).encode()
            client.send_report_body("key", "local", body, key)
        yield server
        client.close()


def status(windows=0, unaccounted=0, **counts):
    states = {"sealed": 2, "delivered": 2, "pending": 0, "parked": 0, "dead": 0}
    return {
        "counts": {**states, "dropped": {}, **counts},
        "windows": {"running": 0, "left": windows},
        "unaccounted": unaccounted,
    }


PROMISED = {("m/1", "cat"): 0.75}


def test_what_the_server_took_twice_counts_once(api, capsys):
    assert tell(api, status(), PROMISED)
    assert "Lost: 0 of 2 records, 0 of 1 peaks." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("found", "promised", "problem"),
    [
        (status(delivered=3), PROMISED, "1 delivered records did not arrive"),
        (status(pending=1), PROMISED, "1 records or windows wait"),
        (status(windows=1), PROMISED, "1 records or windows wait"),
        (status(dead=1), PROMISED, "1 records were given up"),
        (status(dropped={"expired": 2}), PROMISED, "2 records were given up"),
        (status(unaccounted=1), PROMISED, "1 seals are not accounted for"),
        (status(), {("m/1", "cat"): 0.76}, "1 peaks that a worker had taken"),
        (status(), {**PROMISED, ("m/2", "cat"): 0.1}, "1 peaks that a worker"),
    ],
)
def test_each_kind_of_loss_is_found(api, capsys, found, promised, problem):
    assert not tell(api, found, promised)
    output = capsys.readouterr()
    assert problem in output.err
    assert "Lost: 0" not in output.out


def test_a_body_that_changes_between_attempts_is_found(api, capsys):
    client = RoboflowClient(Settings(api_base_url=api.url))
    client.send_report_body("key", "local", b'{"inference_results": []}', "b")
    client.close()

    assert not tell(api, status(), PROMISED)
    assert "sent with more than one body" in capsys.readouterr().err


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
