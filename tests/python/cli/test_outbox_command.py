"""`peakhold outbox`: records by hand, while nobody or somebody uses the outbox."""

from __future__ import annotations

import json

import pytest


@pytest.fixture
def listed(peakhold):
    """Return the records as `ls --json` has them, by state."""

    def run(*arguments):
        ended = peakhold("outbox", "ls", "--json", *arguments)
        assert ended.returncode == 0, ended.stderr
        return {record["state"]: record for record in json.loads(ended.stdout)}

    return run


def _dead(peakhold):
    return peakhold("outbox", "ls", "--json", "--state", "dead").stdout


def test_records_are_listed_the_oldest_first(peakhold, troubled, listed):
    records = listed()
    text = peakhold("outbox", "ls").stdout.decode()

    assert list(records) == ["pending", "dead", "parked"]
    positions = [text.index(record["id"]) for record in records.values()]
    assert positions == sorted(positions)
    assert "report    parked" in text
    assert "1 tried: " in text
    assert "wants payment" in text


def test_a_list_fits_a_narrow_terminal(peakhold, troubled):
    text = peakhold("outbox", "ls", COLUMNS="60").stdout.decode()

    assert max(map(len, text.splitlines())) <= 60


def test_a_list_may_be_of_a_state_or_an_endpoint(peakhold, troubled, listed):
    assert list(listed("--state", "dead")) == ["dead"]
    assert list(listed("--endpoint", troubled)) == ["pending"]
    ended = peakhold("outbox", "ls", "--endpoint", "http://elsewhere")
    assert ended.stdout == b"There is no such record.\n"


@pytest.mark.parametrize("early", [True, False])
def test_a_list_tells_of_windows_that_are_not_in_the_outbox_yet(peakhold, leave, early):
    if not early:
        leave("a", OFFLINE_MODE="True")
    leave("b", then="os._exit(9)", API_BASE_URL="http://127.0.0.1:9")

    text = " ".join(peakhold("outbox", "ls").stdout.decode().split())

    assert ("report pending" in text) is not early
    assert "Open windows that dead processes left to the next: 1." in text
    assert "windows" not in peakhold("outbox", "ls", "--state", "dead").stdout.decode()


def test_a_record_is_shown_with_its_body(peakhold, troubled, listed):
    record = listed()["parked"]

    text = peakhold("outbox", "show", record["id"]).stdout.decode()
    shown = json.loads(peakhold("outbox", "show", record["id"], "--json").stdout)

    assert "state: parked" in text
    assert "reason: HTTP 402" in text
    assert '"class_name": "unpaid"' in text
    assert shown["body"]["inference_results"][0]["class_name"] == "unpaid"
    assert {name: shown[name] for name in ("id", "state")} == {
        "id": record["id"],
        "state": "parked",
    }


@pytest.mark.parametrize("action", ["show", "retry", "drop"])
def test_an_id_that_is_not_there_is_told(peakhold, told, troubled, listed, action):
    known = listed()["parked"]["id"]
    ids = ["nonsense"] if action == "show" else [known, "nonsense"]

    told(peakhold("outbox", action, *ids), "there is no record nonsense in")
    assert set(listed()) == {"pending", "dead", "parked"}


@pytest.mark.parametrize("action", ["retry", "drop"])
@pytest.mark.parametrize("which", [[], ["x", "--all"], ["x", "--state", "dead"]])
def test_what_is_meant_has_to_be_said(peakhold, told, troubled, action, which):
    told(peakhold("outbox", action, *which), f"say which records to {action}")


def test_a_retried_record_is_pending_and_sent_by_the_next_process(
    peakhold, listed, leave, refusing_api
):
    leave("refused", API_BASE_URL=refusing_api(422))
    record = listed()["dead"]

    ended = peakhold("outbox", "retry", record["id"])

    assert ended.stdout == b"To be tried again: 1; pending as they were: 0.\n"
    assert list(listed("--state", "dead")) == []
    leave("", API_BASE_URL=record["endpoint"])
    # Its api refuses it still, so that it is seen to have been sent.
    again = {row["id"]: row for row in json.loads(_dead(peakhold))}[record["id"]]
    assert again["attempts"] == 2


def test_all_can_be_retried(peakhold, troubled, listed):
    ended = peakhold("outbox", "retry", "--all")

    assert ended.stdout == b"To be tried again: 2; pending as they were: 1.\n"
    assert list(listed()) == ["pending"]


def test_dropped_records_are_counted(peakhold, troubled, listed):
    record = listed()["parked"]

    assert peakhold("outbox", "drop", record["id"]).stdout == b"Dropped: 1.\n"
    assert peakhold("outbox", "drop", "--state", "dead").stdout == b"Dropped: 1.\n"

    assert list(listed()) == ["pending"]
    text = peakhold("status").stdout.decode()
    assert "pending 1 + parked 0 + dead 0 + dropped 2" in text
    assert "dropped: by hand 2" in text


def test_an_export_has_a_record_a_line_with_its_body(peakhold, troubled, listed):
    lines = peakhold("outbox", "export").stdout.splitlines()

    records = [json.loads(line) for line in lines]
    names = [record["body"]["inference_results"][0]["class_name"] for record in records]
    assert names == ["waits", "refused", "unpaid"]
    (line,) = peakhold("outbox", "export", "--state", "dead").stdout.splitlines()
    assert json.loads(line) == {**records[1], "age": json.loads(line)["age"]}


def test_a_reader_that_leaves_an_export_early_is_no_error(python, troubled):
    ended = python(
        "import os, sys; from peakhold.cli import main\n"
        "reader, writer = os.pipe(); os.dup2(writer, 1); os.close(reader)\n"
        "sys.exit(main(['outbox', 'export']))"
    )

    assert (ended.returncode, ended.stderr) == (141, b"")


def test_no_extra_no_key_and_no_network_is_needed(python, troubled, api_key):
    for command in (["status"], ["outbox", "ls"], ["outbox", "export"]):
        ended = python(
            "import sys; sys.modules.update(rich=None, requests=None)\n"
            "from peakhold.cli import main\n"
            f"sys.exit(main({command!r}))"
        )
        assert ended.stderr == b""
        assert api_key.encode() not in ended.stdout
